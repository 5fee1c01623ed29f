"""`comat estimate`: the tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from comat.corpora.pictures.read import choose
from comat.estimate.calls import measure
from comat.estimate.cost import matmul_rate
from comat.estimate.plan import Counts, disk, guard, iteration, memory, warmup_memory, work
from comat.models.names import judges
from comat.params import Params
from comat.running.device import DTYPES, choose_device
from comat.storage.tables import PROMPTS, read_table

SHARE = 0.5
"""Of the rate of a matrix product that a run reaches: 0.46 with the shapes preset on two idle CPU cores (3.3 s an
iteration). Other models, batches and devices differ, by a factor of two or more."""


def counts(params: Params, data: Path) -> Counts:
    """How many prompts and images there are, as far as their files are at hand."""
    table, section = data / "prompts/prompts.parquet", params.image_latents
    splits = [row["split"] for row in read_table(table, PROMPTS)] if table.is_file() else None
    there = section.images is not None and Path(section.images).exists()
    images = len(choose(section, params.seed).pictures) if there else None
    if splits is None:
        return Counts(None, None, images)
    return Counts(splits.count("train"), splits.count("test"), images)


def show_estimate(params: Params, data: Path, console: Console) -> None:
    """Measure the models' calls, calibrate by a matrix product, print memory, time and disk."""
    calls, known = measure(params), counts(params, data)
    device = choose_device(params.device)
    rate = SHARE * matmul_rate(device, DTYPES[params.precision])
    console.print(
        f"An estimate, by formula: operations counted without running the models, at {SHARE:.0%} of the rate of a "
        f"matrix product on this device ({device}, {params.precision}: {rate / SHARE / 1e9:,.0f} GFLOP/s when idle).\n",
        highlight=False,
    )
    held = memory(params, calls)
    used = [(part, decimal(int(size))) for part, size in held.items() if size]
    console.print(_table("memory of train", [*used, ("total", decimal(int(sum(held.values()))))]))
    parts = {part: cost.flops for part, cost in iteration(params, calls).items()}
    parts["total"] = sum(parts.values())
    looks = guard(params, calls)
    parts |= {"the guard, in the whole run": looks} if looks else {}
    costs = [(part, f"{flops / 1e9:,.0f} GFLOP", _time(flops / rate)) for part, flops in parts.items()]
    console.print(_table("one iteration of train", costs))
    left, done = disk(params, calls, known), work(params, calls, known)
    times = {stage: "unknown" if flops is None else _time(flops / rate) for stage, flops in done.items()}
    sizes = {stage: "unknown" if size is None else decimal(int(size)) for stage, size in left.items()}
    rows = [(stage, time, sizes[stage]) for stage, time in times.items()]
    console.print(_table("time and disk of every stage", rows))
    judging = list(dict.fromkeys(model.name for model in judges(params.evaluate)))
    limits = _limits(calls.uncounted, judging, warmup_memory(params, calls), None in left.values())
    console.print(limits, highlight=False)


def _limits(uncounted: list[str], judging: list[str], warmup: float, unknown: bool) -> str:
    lines = [
        f"The stage warmup trains in float32 and needs {decimal(int(warmup))}." if warmup else "",
        "Not in it: the program and its libraries (0.5 to 1 GB on a CPU), the allocator's reserve, loading, reading "
        "and writing, the stages prompts, entities and evaluate, downloads, and what DVC's cache holds besides.",
        f"Not counted: weights, operations and activations of {' and '.join(uncounted)}." if uncounted else "",
        f"Nor are the models that judge, in the stage evaluate: {', '.join(judging)}." if judging else "",
        "Unknown: how many prompts or images there are; `dvc repro prompts` tells, or the stage's count."
        if unknown
        else "",
    ]
    return "\n".join(line for line in lines if line)


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
