"""`comat estimate`: the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from comat.errors import clean
from comat.estimate.calls import Calls, measure
from comat.estimate.card import Card, card_of, parse_rate, parse_size
from comat.estimate.cost import matmul_rate
from comat.estimate.counted import counts
from comat.estimate.judges import IMAGES
from comat.estimate.memory import Need, host, memory, needs
from comat.estimate.plan import apart, disk, guard, iteration, scratch, work
from comat.estimate.published import described
from comat.models.record import check_configurations
from comat.params import Params
from comat.running.device import DTYPES, choose_device

SHARE = 0.5
"""Of the rate of a matrix product that a run reaches: 0.46 with the shapes preset on two idle CPU cores (3.3 s an
iteration). Other models, batches and devices differ, by a factor of two or more."""
STATED = "a card as given"


def planned_card(params: Params, size: str | None, rate: str | None) -> Card:
    """The card that `--device-memory` and `--rate` describe; what they leave open is this machine's.

    Raises:
        UserError: if one of them is no such quantity, or this machine has not the device of the parameters.
    """
    given = {"memory": parse_size(size) if size else None, "rate": parse_rate(rate) if rate else None}
    if given["memory"] is not None and given["rate"] is not None:
        return Card(STATED, int(given["memory"]), given["rate"])
    device = choose_device(params.device)
    card = card_of(device)
    own = replace(card, rate=given["rate"])
    if own.rate is None:
        own = replace(own, rate=matmul_rate(device, DTYPES[params.precision]), measured_on=card.name)
    return own if given["memory"] is None else replace(own, name=STATED, memory=int(given["memory"]))


def show_estimate(params: Params, data: Path, card: Card, console: Console) -> bool:
    """Measure the models' calls, print memory, time and disk, and whether every stage fits the card, which is returned.

    Raises:
        UserError: if a model's configuration cannot be had, or is one that the stage `models` would refuse.
    """
    with described(params) as (own, stated):
        check_configurations(own)
        calls, known = measure(own), counts(params, data)
    assert card.rate is not None
    rate = SHARE * card.rate
    whence = f"measured just now on {card.measured_on}, beside what else runs there" if card.measured_on else "given"
    lines = [
        f"An estimate, by formula: operations counted without running the models, at {SHARE:.0%} of the rate of a "
        f"matrix product ({params.precision}: {card.rate / 1e9:,.0f} GFLOP/s, {whence})."
    ]
    if card.measured_on and card.name == STATED:
        lines.append("Times are therefore this machine's; --rate says how fast the other card is.")
    if stated:
        lines.append(f"By published configurations that stand in the project: {', '.join(stated)}.")
    console.print(Text("\n".join(map(clean, lines)) + "\n"))
    held = memory(params, calls)
    used = [(part, decimal(int(size))) for part, size in held.items() if size]
    console.print(_table("memory of train", [*used, ("total", decimal(int(sum(held.values()))))]))
    stages = needs(params, calls, known.judged)
    console.print(_memory_by_stage(stages, card))
    parts = {part: cost.flops for part, cost in iteration(params, calls).items()}
    parts["total"] = sum(parts.values())
    looks = {"the guard": guard(params, calls), "each term's own gradient": apart(params, calls)}
    parts |= {f"{what}, in the whole run": flops for what, flops in looks.items() if flops}
    costs = [(part, f"{flops / 1e9:,.0f} GFLOP", _time(flops / rate)) for part, flops in parts.items()]
    console.print(_table("one iteration of train", costs))
    console.print(_stages(work(params, calls, known), disk(params, calls, known), scratch(params, calls, known), rate))
    if known.judged and calls.judges:
        console.print(_judging(calls, known.judged, rate))
    unknown = None in disk(params, calls, known).values()
    console.print(Text(_limits(calls, params.precision, host(params, calls, known), unknown)))
    console.print(Text(verdict(stages, card)))
    return not _over(stages, card)


def _over(own: Sequence[Need], card: Card) -> list[Need]:
    return [need for need in own if need.total > card.memory]


def verdict(own: Sequence[Need], card: Card) -> str:
    """Whether every stage fits the card, in one line; where not, what to change."""
    over = _over(own, card)
    if not over:
        most = max(own, key=lambda need: need.total)
        return (
            f"It fits {decimal(card.memory)}: the most is {decimal(int(most.total))}, in {most.stage}. "
            "The program, its libraries and the allocator's reserve come on top, some 1 to 2 GB on a GPU."
        )
    lines = [f"{need.stage} needs {decimal(int(need.total))}: {need.remedy(card.memory)}" for need in over]
    return f"It does not fit {decimal(card.memory)}: {'; '.join(lines)}."


def _memory_by_stage(own: Sequence[Need], card: Card) -> Table:
    rows = [
        (need.stage, decimal(int(need.total)), "fits" if need.total <= card.memory else "does not fit") for need in own
    ]
    return _table(f"memory of every stage, of {decimal(card.memory)}", rows)


def _stages(
    done: Mapping[str, float | None], left: Mapping[str, float | None], passing: Mapping[str, float | None], rate: float
) -> Table:
    rows = [
        (
            stage,
            "unknown" if flops is None else _time(flops / rate),
            *("unknown" if size is None else decimal(int(size)) for size in (left[stage], passing[stage])),
        )
        for stage, flops in done.items()
    ]
    return _table("time and disk of every stage: left in data/, and in its working folder", rows)


def _judging(calls: Calls, judged: Mapping[str, Mapping[str, int]], rate: float) -> Table:
    """What every benchmark asks of its models, and how long they take, base and tuned model together."""
    rows = []
    for name, judge in calls.judges.items():
        own = judged[name]
        rows.append((name, f"{own[IMAGES]:,} {IMAGES}", _time(judge.work(own) / rate)))
        rows += [("", f"{count:,} {what}", "") for what, count in own.items() if what != IMAGES]
    return _table("evaluate, base and tuned, at most: what was judged before is remembered", rows)


def _limits(calls: Calls, precision: str, on_host: Mapping[str, float], unknown: bool) -> str:
    said, looks = on_host["warmup"], on_host["train"]
    lines = [
        "DVC's cache holds what is left once more, where the file system cannot share blocks (reflinks).",
        f"The stage warmup trains in float32; its prompts' embeddings take {decimal(int(said))} of the host's memory."
        if said
        else "",
        f"Where train looks at each term's gradient, they take {decimal(int(looks))} of each process's host memory."
        if looks
        else "",
        "Not in it: the program and its libraries (0.5 to 1 GB on a CPU), the allocator's reserve, loading, reading "
        "and writing, the stages prompts and entities, and downloads.",
        "Judges but vision-language models compute in float32, which takes longer than it says."
        if calls.judges and precision != "fp32"
        else "",
        f"Not counted: weights, operations and activations of {' and '.join(calls.uncounted)}."
        if calls.uncounted
        else "",
        "Unknown: how many prompts or images there are; `dvc repro prompts` tells, or the stage's count."
        if unknown
        else "",
    ]
    return "\n".join(clean(line) for line in lines if line)


def _table(title: str, rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, show_header=False)
    for number in range(len(rows[0])):
        table.add_column(justify="right" if number else "left", min_width=12)
    for row in rows:
        table.add_row(*row)
    table.add_row()
    return table


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else str(timedelta(seconds=round(seconds)))
