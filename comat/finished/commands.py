"""The commands of `comat` that look at a finished run or take it elsewhere."""

from __future__ import annotations

from pathlib import Path

import typer

from comat.errors import main_guard, say

app = typer.Typer()
PARAMS = Path("params.yaml")
DATA = Path("data")
SEEDS = typer.Option(4, min=1, help="Images of each prompt and model; the first are the same whatever their number.")
FORMAT = typer.Option("diffusers", "--format", help="diffusers, kohya (ComfyUI, A1111), or merged: a whole pipeline.")
RANK = typer.Option(None, min=1, help="Of one LoRA for the stock base, which holds the warm-up as well.")


@app.command()
@main_guard
def generate(
    prompt: str,
    out: Path = Path("generated"),
    seeds: int = SEEDS,
    base: bool = typer.Option(False, "--base", help="Draw with the base model."),
    params: Path = PARAMS,
    data: Path = DATA,
) -> None:
    """Draw PROMPT with the tuned model: one PNG for each seed, into the folder OUT."""
    from comat.finished.generate import generate as draw
    from comat.params import load

    draw(load(params), data, prompt, seeds, "base" if base else "tuned", out)
    say(f"{out}: {seeds} images")


@app.command()
@main_guard
def compare(
    prompts: list[str],
    out: Path = Path("compared.png"),
    seeds: int = SEEDS,
    params: Path = PARAMS,
    data: Path = DATA,
) -> None:
    """Draw every prompt with the base and the tuned model, from the same noise, into one picture."""
    from comat.finished.generate import compare as draw
    from comat.params import load

    draw(load(params), data, prompts, seeds, out)
    say(f"{out}: base above, tuned below")


@app.command()
@main_guard
def attention(
    prompt: str,
    out: Path = Path("attention.png"),
    seed: int = typer.Option(0, min=0, help="Which of the images that `generate` draws."),
    params: Path = PARAMS,
    data: Path = DATA,
) -> None:
    """Draw where each token of PROMPT looks, before and after: the cross-attention maps that Eq. 4 and 5 train."""
    from comat.finished.generate import attention as draw
    from comat.params import load

    draw(load(params), data, prompt, seed, out)
    say(f"{out}: base above, tuned below, one scale for each token")


@app.command()
@main_guard
def export(
    form: str = FORMAT,
    out: Path = Path("exported"),
    rank: int | None = RANK,
    params: Path = PARAMS,
    data: Path = DATA,
) -> None:
    """Write the LoRA for another program into the folder OUT, or a whole pipeline that holds it: docs/export.md."""
    from comat.finished.export import export as write
    from comat.finished.export import format_of
    from comat.params import load

    for line in write(load(params), data, format_of(form), rank, out):
        say(line)
    say(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
