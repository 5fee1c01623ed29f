"""The sensitivity of captioners as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


def sensitivity_table(result: Mapping) -> str:
    """One line for each corruption, the mean over all last, as Table 7 has it; of several captioners which is best."""
    if "captioners" not in result:
        return "\n".join(_captioner(result, result["images"]))
    lines: list[str] = []
    for own in result["captioners"].values():
        lines += [*_captioner(own, result["images"]), ""]
    return "\n".join([*lines, *_best(result["best"])])


def _captioner(result: Mapping, images: int) -> Iterator[str]:
    captioner = result["captioner"]
    head = f"{'corruption':<12}{'sensitivity':>12}   {'95% interval':<20}"
    head += f"{'true wins':>10}{'captions':>10}{'left out':>10}"
    yield f"{captioner['kind']} {captioner['model']}, {images} images"
    if "question" in captioner:
        yield f"asked {captioner['question']!r}, answer {captioner['answer']!r}"
    yield from (head, "-" * len(head))
    for name, row in result["corruptions"].items():
        if row["n"]:
            interval = _interval(row, "")
            found = f"{row['mean']:>12.4f}   {interval:<20}{row['true_wins']:>10.1%}"
        else:
            found = f"{'-':>12}   {'-':<20}{'-':>10}"
        yield f"{name:<12}{found}{row['n']:>10}{row['left_out']:>10}"


def _best(found: Mapping[str, Mapping]) -> Iterator[str]:
    """Who tells each corruption best, and how much more often than each other, on the same captions."""
    head = f"{'corruption':<12}{'best':<18}true wins more often than"
    yield from (head, "-" * 60)
    for name, row in found.items():
        gains = [f"{other} {gain['mean']:+.1%} {_interval(gain, '+', '.1%')}" for other, gain in row["over"].items()]
        unsure = "" if row["sure"] else "; not sure"
        yield f"{name:<12}{row['captioner']:<18}{', '.join(gains)}{unsure}"


def _interval(row: Mapping, sign: str, digits: str = ".4f") -> str:
    return "none" if row["low"] is None else f"[{row['low']:{sign}{digits}}, {row['high']:{sign}{digits}}]"
