"""`comat`: presets, the result, pictures from any prompt. The pipeline itself is `dvc repro`."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import typer

from comat.errors import UserError, main_guard

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
PRESETS = Path("presets")
PARAMS = Path("params.yaml")
DATA = Path("data")
PEERS = DATA / "peers"
KEY = typer.Option(Path("preference-key.json"), help="Which side is whose: keep it from the voters.")
SEEDS = typer.Option(4, min=1, help="Images of each prompt and model; the first are the same whatever their number.")
IMAGES = typer.Option(None, help="Folder of images: with --captions COCO's, without as the stage `samples` leaves it.")
CAPTIONS = typer.Option(None, help="COCO captions file of the images.")


@app.command()
@main_guard
def preset(name: str) -> None:
    """Replace params.yaml by presets/NAME.yaml, comments and all."""
    source = PRESETS / f"{name}.yaml"
    if not source.is_file():
        known = ", ".join(sorted(path.stem for path in PRESETS.glob("*.yaml"))) or f"none in {PRESETS.resolve()}"
        raise UserError(f"no preset {name!r}; there are: {known}")
    from comat.params import load

    load(source)
    part = Path(".params.yaml.part")
    shutil.copyfile(source, part)
    os.replace(part, "params.yaml")
    print(f"params.yaml is now {source}; `dvc repro` runs it")


@app.command()
@main_guard
def doctor(params: Path = PARAMS) -> None:
    """Look whether this machine can run the parameters; exits with status 1 where it cannot."""
    from rich.console import Console

    from comat.estimate.doctor import examine, report
    from comat.params import load

    findings = list(examine(load(params)))
    report(findings, Console())
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)


@app.command()
@main_guard
def estimate(params: Path = PARAMS, data: Path = DATA) -> None:
    """Estimate memory, time and disk of a run with the parameters on this device."""
    from rich.console import Console

    from comat.estimate.show import show_estimate
    from comat.params import load

    show_estimate(load(params), data, Console())


@app.command()
@main_guard
def show(folder: Path = DATA / "evaluate", peers: Path = PEERS) -> None:
    """Print the result table of the last run, with the peers that were evaluated; and where report and pictures are."""
    print(_table(folder, peers))
    print(f"\nreport: {folder / 'report.html'}\npictures:")
    for picture in sorted((folder / "pictures").glob("*.png")):
        print(f"  {picture}")


@app.command()
@main_guard
def evaluate(
    model: str = typer.Option(None, help="Hub id or folder of a text-to-image pipeline; none: images are in OUT/NAME."),
    revision: str = typer.Option(None, help="Its commit, tag or branch."),
    unet: str = typer.Option(None, help="Folder of a UNet that takes the place of its own."),
    lora: str = typer.Option(None, help="Folder of a LoRA in safetensors."),
    name: str = typer.Option(None, help="What the table calls it; by default the model's."),
    out: Path = PEERS,
    params: Path = PARAMS,
    data: Path = DATA,
) -> None:
    """Judge another model by the same prompts, seeds and benchmarks, into OUT/NAME; print it beside base and tuned."""
    from comat.evaluation.peers import evaluate_peer
    from comat.models.lock import pinned
    from comat.models.names import judges
    from comat.params import load
    from comat.samples.peers import Peer

    if not (model or name):
        raise UserError("give --model, or the --name of a folder that holds images drawn elsewhere")
    own = load(params)
    own = pinned(own, data / "models", *(judge.role for judge in judges(own)))
    name = name or Path(model).name
    evaluate_peer(own, Peer(name, model, revision, unet, lora), data / "base_samples", out / name)
    print(_table(data / "evaluate", out))


def _table(folder: Path, peers: Path) -> str:
    """The result table of the run in `folder`, with a column for every peer."""
    path = folder / "metrics.json"
    if not path.is_file():
        raise UserError(f"{path}: no result yet; run `dvc repro` first")
    from comat.reporting.table import result_table

    found = {file.parent.name: _read(file) for file in sorted(peers.glob("*/metrics.json"))}
    return result_table(_read(path), found)


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


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
    from comat.generate import generate as draw
    from comat.params import load

    draw(load(params), data, prompt, seeds, "base" if base else "tuned", out)
    print(f"{out}: {seeds} images")


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
    from comat.generate import compare as draw
    from comat.params import load

    draw(load(params), data, prompts, seeds, out)
    print(f"{out}: base above, tuned below")


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
    from comat.generate import attention as draw
    from comat.params import load

    draw(load(params), data, prompt, seed, out)
    print(f"{out}: base above, tuned below, one scale for each token")


@app.command()
@main_guard
def entities(prompt: str, params: Path = PARAMS) -> None:
    """Print how PROMPT is parsed: entities, attributes, tokens, what is filtered and why.

    Of a file of prompts: how many, the most frequent nouns kept and dropped, and the prompts without entities.
    """
    from comat.corpora.texts import texts_in
    from comat.entities.show import show_all_entities, show_entities
    from comat.params import load

    if len(prompt) < 1000 and Path(prompt).is_file():
        show_all_entities(load(params), texts_in(Path(prompt)))
    else:
        show_entities(load(params), prompt)


@app.command()
@main_guard
def preference(
    out: Path = Path("preference.html"),
    key: Path = KEY,
    count: int = typer.Option(100, min=1, help="Pairs, of different prompts; the paper takes 100."),
    params: Path = PARAMS,
    data: Path = DATA,
) -> None:
    """Write a page of blind pairs for people to vote on, and its key (App. B.1 of the paper)."""
    from comat.params import load
    from comat.preference.study import write_study

    folders = {"base": data / "base_samples", "tuned": data / "samples"}
    pairs = write_study(folders, count, load(params).seed, out, key)
    print(f"{out}: {pairs} pairs\n{key}: the key, for `comat votes`")


@app.command()
@main_guard
def votes(files: list[Path], key: Path = KEY) -> None:
    """Summarise the votes that people saved from the page: who is preferred, with a binomial interval."""
    from rich.console import Console

    from comat.preference.votes import read_key, read_votes, show_votes, summary

    own = read_key(key)
    show_votes(summary(read_votes(files, own), own), Console())


@app.command()
@main_guard
def sensitivity(
    images: Path = IMAGES,
    captions: Path = CAPTIONS,
    count: int = typer.Option(0, min=0, help="Images to draw by seed; 0 takes all."),
    model: str = typer.Option(None, help="Another captioner_model than that of the parameters."),
    revision: str = typer.Option(None, help="Its revision."),
    batch_size: int = typer.Option(8, min=1, help="Images at once."),
    out: Path = Path("data/sensitivity"),
    params: Path = PARAMS,
    data: Path = DATA,
) -> None:
    """Measure how well the captioner tells true captions from corrupted ones (Eq. 7).

    The images are clean renders of the held-out prompts of the shapes world, unless --images names others.
    """
    from comat.evaluation.captioned import captioned_images
    from comat.evaluation.sensitivity import measure_sensitivity
    from comat.params import load
    from comat.reporting.sensitivity import sensitivity_table

    loaded = load(params)
    if model is not None:
        loaded = loaded.model_copy(update={"captioner_model": model, "captioner_revision": revision})
    found = captioned_images(loaded, data / "prompts", images, captions, count)
    print(sensitivity_table(measure_sensitivity(loaded, found, batch_size, out)))


if __name__ == "__main__":
    app()
