"""The commands of `comat` that look at a finished run or take it elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from comat.errors import UserError, main_guard, say

app = typer.Typer()
PARAMS = Path("params.yaml")
DATA = Path("data")
SHORT = "a photo of {}"
SEEDS = typer.Option(4, min=1, help="Images of each prompt and model; the first are the same whatever their number.")
FORMAT = typer.Option("diffusers", "--format", help="diffusers, kohya (ComfyUI, A1111), or merged: a whole pipeline.")
GENERATED = typer.Option(Path("generated"), file_okay=False, help="Folder of the images.")
EXPORTED = typer.Option(Path("exported"), file_okay=False, help="Folder to make.")
ATTACKED = typer.Option(DATA / "attack", file_okay=False, help="Folder of the result.")
FOLDER = typer.Option(
    None, file_okay=False, help="Put everything there and keep it; by default it is gone when it is sent."
)
COMPARED, COMPOSED, ATTENTION, PAIRS = (
    typer.Option(Path(f"{name}.png"), dir_okay=False, help="The picture.")
    for name in ("compared", "composed", "attention", "pairs")
)
CLASSES = typer.Option(None, "--class", help="Again for each further class; by default all.")
EXPERIMENTS = typer.Option(
    None, "--experiment", help="One of `dvc exp list`, or a git revision; again for each further one (Fig. 6 and 7)."
)
LONG = typer.Option(None, help="Long ones: a CSV with the columns prompt and classname.")
RANK = typer.Option(None, min=1, help="Of one LoRA for the stock base, which holds the warm-up as well.")


def found_result(path: Path) -> Path:
    """The file of a finished run.

    Raises:
        UserError: if there is none.
    """
    if not path.is_file():
        raise UserError(f"{path}: no result here; run this in the project's root, after `dvc repro`")
    return path


def _without(option: str, others: dict[str, bool]) -> None:
    """What would not be read beside `option` is refused where it was given."""
    given = [other for other, there in others.items() if there]
    if given:
        raise UserError(f"{given[0]} is not read beside {option}: leave one of them out")


@app.command()
@main_guard
def generate(
    prompt: str,
    out: Path = GENERATED,
    seeds: int = SEEDS,
    seed: int = typer.Option(0, min=0, help="Number of the first image; images with equal numbers have equal noise."),
    base: bool = typer.Option(False, "--base", help="Draw with the base model."),
    steps: int | None = typer.Option(None, min=1, help="Sampling steps; by default sampling_steps."),
    guidance: float | None = typer.Option(None, min=1, help="By default guidance_scale; 1 is none."),
    size: int | None = typer.Option(None, min=8, help="Pixels of a side; by default resolution."),
    params: Path = PARAMS,
    data: Path = DATA,
) -> None:
    """Draw PROMPT with the tuned model: one PNG for each seed, into the folder OUT, with what it was drawn from."""
    from comat.finished.generate import Asked
    from comat.finished.generate import generate as draw
    from comat.params import load

    asked = Asked(prompt, "base" if base else "tuned", seeds, seed, steps, guidance, size)
    for path in draw(load(params), data, asked, out):
        say(str(path))


@app.command()
@main_guard
def compare(
    prompts: list[str],
    out: Path = COMPARED,
    seeds: int = SEEDS,
    experiments: list[str] | None = EXPERIMENTS,
    params: Path = PARAMS,
    data: Path = DATA,
) -> None:
    """Draw every prompt with the base and the tuned model, from the same noise, into one picture."""
    if experiments:
        _without("--experiment", {"--params": params != PARAMS, "--data": data != DATA})
        from comat.finished.experiments import compare_experiments

        compare_experiments(experiments, prompts, seeds, out)
        say(f"{out}: base above, then {', '.join(dict.fromkeys(experiments))}")
        return
    from comat.finished.generate import compare as draw
    from comat.params import load

    draw(load(params), data, prompts, seeds, out)
    say(f"{out}: base above, tuned below")


@app.command()
@main_guard
def compose(
    plan: Path,
    out: Path = COMPOSED,
    seeds: int = SEEDS,
    params: Path = PARAMS,
    data: Path = DATA,
) -> None:
    """Draw a PLAN of regions (JSON, docs/evaluation.md) with the base and the tuned model, into one picture."""
    from comat.finished.compose import compose as draw
    from comat.params import load

    draw(load(params), data, plan, seeds, out)
    say(f"{out}: base above, tuned below")


@app.command()
@main_guard
def attention(
    prompt: str,
    out: Path = ATTENTION,
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
def attack(
    classifier: str = typer.Option(..., help="An image classifier, the judge: hub id or folder."),
    revision: str | None = typer.Option(None, help="Its revision."),
    classes: list[str] | None = CLASSES,
    template: str = typer.Option(SHORT, help="Short prompts: {} is a class with its article."),
    prompts: Path | None = LONG,
    words: int = typer.Option(4, min=1, help="Words behind a prompt."),
    iterations: int = typer.Option(100, min=1, help="Steps of the search for them, for each class."),
    samples: int = typer.Option(20, min=1, help="Images of each class, model and kind."),
    out: Path = ATTACKED,
    params: Path = PARAMS,
    data: Path = DATA,
) -> None:
    """Search for words that break the image of a prompt, by base and tuned model (Table 6); how often they do."""
    from comat.finished.attack.run import attack as search
    from comat.finished.attack.search import Search
    from comat.finished.attack.targets import Target, read_targets, targets_of
    from comat.params import load

    if prompts:
        _without("--prompts", {"--template": template != SHORT})
    long = read_targets(prompts) if prompts else None
    judge, asked = (classifier, revision), Search(words=words, iterations=iterations)

    def targets(names: Sequence[str]) -> list[Target]:
        return targets_of(names, template) if long is None else long

    say(search(load(params), data, judge, targets, classes or [], asked, samples, out))
    say(f"{out}: rows.parquet, attack.json; attack.png: base and tuned beside each other")


@app.command()
@main_guard
def export(
    form: str = FORMAT,
    out: Path = EXPORTED,
    rank: int | None = RANK,
    params: Path = PARAMS,
    data: Path = DATA,
) -> None:
    """Write the LoRA for another program into the folder OUT, or a whole pipeline that holds it: docs/export.md."""
    from comat.finished.export import EXPORTED_BY, format_of
    from comat.finished.export import export as write
    from comat.finished.recorded import check_inputs, check_recorded
    from comat.params import load

    own = load(params)
    if (lock := data.parent / "dvc.lock").is_file():
        check_recorded(own, params, lock, ["train"], EXPORTED_BY)
        check_inputs(lock, ["train"])
    for line in write(own, data, format_of(form), rank, out):
        say(line)
    say(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")


@app.command()
@main_guard
def publish(
    name: str,
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would be sent, and send nothing."),
    folder: Path | None = FOLDER,
    private: bool = typer.Option(False, "--private", help="Make a repository that only you see."),
    params: Path = PARAMS,
    data: Path = DATA,
) -> None:
    """Publish the run on the hub as USER/NAME: LoRA, card with pairs, report, parameters, dvc.lock. docs/export.md."""
    import tempfile

    from rich.filesize import decimal

    from comat.finished.publish import assemble, check_name, logged_in, upload
    from comat.params import load

    check_name(name)
    if not dry_run:
        logged_in()
    with tempfile.TemporaryDirectory() as passing:
        out = folder or Path(passing)
        own = load(params)
        for path in assemble(own, params, data, name, out):
            say(f"{decimal(path.stat().st_size):>12}  {path.relative_to(out)}")
        if Path(own.base_model).is_dir():
            say(f"hint: the card names the base model {own.base_model}, a folder that others do not have")
        if dry_run:
            say(f"nothing was sent to {name}" + (f"; it is in {out}" if folder else ""))
        else:
            say(upload(name, out, private))


@app.command()
@main_guard
def pairs(
    out: Path = PAIRS,
    count: int = typer.Option(6, min=1, help="Pairs of the widest gain, by the main benchmark."),
    data: Path = DATA,
) -> None:
    """Draw pairs of the last run into one picture, base above, tuned below: those that open the report."""
    from comat.reporting.grid import pair_columns
    from comat.reporting.pairs import read_shown
    from comat.storage.images import write_image

    table = found_result(data / "evaluate/scores.parquet")
    found = read_shown(table, count, data).gains
    if not found:
        raise UserError(f"{table}: no pair got better by the main benchmark: there is nothing to draw")
    write_image(out, pair_columns(found))
    say(f"{out}: base above, tuned below, {len(found)} pairs")
