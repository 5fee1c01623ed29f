"""The sensitivity of a captioner as text."""

from __future__ import annotations


def sensitivity_table(result: dict) -> str:
    """One line for each corruption, the mean over all last, as Table 7 has it."""
    captioner = result["captioner"]
    head = f"{'corruption':<12}{'sensitivity':>12}   {'95% interval':<20}"
    head += f"{'true wins':>10}{'captions':>10}{'left out':>10}"
    lines = [f"{captioner['kind']} {captioner['model']}, {result['images']} images", head, "-" * len(head)]
    for name, row in result["corruptions"].items():
        if row["n"]:
            interval = f"[{row['low']:.4f}, {row['high']:.4f}]"
            found = f"{row['mean']:>12.4f}   {interval:<20}{row['true_wins']:>10.1%}"
        else:
            found = f"{'-':>12}   {'-':<20}{'-':>10}"
        lines.append(f"{name:<12}{found}{row['n']:>10}{row['left_out']:>10}")
    return "\n".join(lines)
