"""The result table as text."""

from __future__ import annotations

NAMES = {
    "color": "attribute binding",
    "spatial": "spatial relation",
    "numeracy": "counting",
    "complex": "complex",
    "total": "total",
}
"""Categories of the embedded world in words; others are shown as they are."""


def result_table(metrics: dict) -> str:
    """Base beside tuned by category, with the gain's 95% interval; the total last, then the Fréchet distance."""
    head = f"{'everything right':<20}{'base':>8}{'tuned':>8}{'gain':>8}   {'95% interval':<18}{'images':>7}"
    lines = [head, "-" * len(head)]
    for name, row in metrics["oracle"].items():
        interval = f"[{row['gain_low'] * 100:+.1f}, {row['gain_high'] * 100:+.1f}]"
        lines.append(
            f"{NAMES.get(name, name):<20}{row['base']:>8.1%}{row['tuned']:>8.1%}{row['gain'] * 100:>+8.1f}   "
            f"{interval:<18}{row['n']:>7}"
        )
    f = metrics["frechet"]
    lines.append(
        f"{'Fréchet distance':<20}{f['base']:>8.3f}{f['tuned']:>8.3f}   tuned/base {f['ratio']:.2f} (lower is better)"
    )
    return "\n".join(lines)
