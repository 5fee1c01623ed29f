"""What came of an attack: the share of images that are of another class, with intervals over classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from comat.evaluation.statistics import enough_interval

KINDS = {"clean": "as it is", "random": "+ random words", "attack": "+ found words"}
"""The prompt as it is; random words behind it, which tell what the search adds; words that were searched for."""


def summary(rows: Sequence[Mapping], resamples: int, seed: int) -> dict[str, dict]:
    """Of each model: prompts, those attacked, and by kind the share of their images that are of another class.

    Intervals are over classes; `clean` is of the attacked prompts, as the others are.
    """
    found: dict[str, dict] = {}
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        hit = {_asked(row) for row in own if row["kind"] == "attack"}
        rates = {}
        for kind in KINDS:
            part = [row for row in own if row["kind"] == kind and _asked(row) in hit]
            if part:
                wrong, groups = [float(row["wrong"]) for row in part], [row["class"] for row in part]
                mean, low, high = enough_interval(wrong, groups, resamples, seed)
                rates[kind] = {"wrong": mean, "low": low, "high": high, "images": len(part)}
        found[model] = {"prompts": len(set(map(_asked, own))), "attacked": len(hit), "rates": rates}
    return found


def _asked(row: Mapping) -> tuple[str, str]:
    return row["class"], row["prompt"]


def attack_table(found: Mapping[str, dict]) -> str:
    """One line for each model and kind."""
    head = f"{'model':<8}{'attacked':>14}   {'prompt':<18}{'wrong':>8}   {'95% interval':<18}{'images':>8}"
    lines = [head, "-" * len(head)]
    for model, own in found.items():
        of = f"{own['attacked']} of {own['prompts']}"
        for kind, rate in own["rates"].items():
            interval = "none" if rate["low"] is None else f"[{rate['low']:.1%}, {rate['high']:.1%}]"
            lines.append(
                f"{model:<8}{of:>14}   {KINDS[kind]:<18}{rate['wrong']:>8.1%}   {interval:<18}{rate['images']:>8}"
            )
        if not own["rates"]:
            lines.append(f"{model:<8}{of:>14}   no class was drawn so that the classifier knew it")
    return "\n".join(lines)
