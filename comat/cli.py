"""`comat`: presets, the result, pictures from any prompt. The pipeline itself is `dvc repro`."""

from __future__ import annotations

import itertools
import os
import shutil
from difflib import get_close_matches
from pathlib import Path

import typer

from comat.errors import UserError, clean, main_guard, say
from comat.finished.commands import DATA, PARAMS, found_result
from comat.finished.commands import app as finished

HELP = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, context_settings=HELP, help=__doc__)
app.add_typer(finished)
PRESETS = Path("presets")
PEERS = DATA / "peers"
PAGE = typer.Option(Path("preference.html"), dir_okay=False, help="The page.")
KEY = typer.Option(Path("preference-key.json"), dir_okay=False, help="Which side is whose: keep it from the voters.")
JUDGED = typer.Option(PEERS, file_okay=False, help="Folder of the models that were judged.")
SENSITIVITY = typer.Option(DATA / "sensitivity", file_okay=False, help="Folder of the result.")
IMAGES = typer.Option(None, help="Folder or tar file of images with captions, or a folder of samples.")
FILES = typer.Argument(None, help="Lists of prompts, or folders of them; none: prompts.sources of the parameters.")
COLUMN = typer.Option(
    None,
    help="Column or key that holds the prompt; by default prompt, caption or text, the first two also in the plural.",
)
OWN_PROMPTS = typer.Option(..., help="A list of prompts, or a folder of them; may be given again.")
OWN_IMAGES = typer.Option(None, help="Folder or tar file of images with captions, for mixed latents.")
HELD_OUT = "Share of the prompts to hold out for evaluation, drawn by seed."
A_TENTH = typer.Option(0.1, min=0, max=0.99, help=HELD_OUT)
HOLD_OUT = typer.Option(0.0, min=0, max=0.99, help=HELD_OUT)
CAPTIONS = typer.Option(None, help="File of captions, where they do not stand beside the images.")


def _print_version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        say(f"comat {metadata.version('comat')}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """Presets, the result, pictures from any prompt. The pipeline itself is `dvc repro`."""


@app.command()
@main_guard
def preset(
    name: str,
    force: bool = typer.Option(False, "--force", help="Also where params.yaml was edited; a copy of it is kept."),
) -> None:
    """Replace params.yaml by presets/NAME.yaml, comments and all."""
    presets = {path.stem: path for path in sorted(PRESETS.glob("*.yaml"))}
    if name not in presets:
        known = ", ".join(presets) or f"none in {PRESETS.resolve()}"
        like = "".join(f"; did you mean {one}?" for one in get_close_matches(name, presets, 1))
        raise UserError(f"no preset {name!r}; there are: {known}{like}")
    from comat.params import load

    load(presets[name])
    if PARAMS.is_file() and all(PARAMS.read_bytes() != path.read_bytes() for path in presets.values()):
        if not force:
            raise UserError(
                f"{PARAMS} was edited: it is none of the presets; --force replaces it and keeps a copy ({_unused()})"
            )
        copy = _unused()
        shutil.copyfile(PARAMS, copy)
        say(f"what stood in {PARAMS} is kept in {copy}")
    part = Path(".params.yaml.part")
    shutil.copyfile(presets[name], part)
    os.replace(part, PARAMS)
    say(f"{PARAMS} is now {presets[name]}; `dvc repro` runs it")


def _unused() -> Path:
    """A name for a copy of the parameters that none has yet."""
    numbered = (Path(f"params.{number}.yaml") for number in itertools.count(1))
    return next(path for path in numbered if not path.exists())


@app.command()
@main_guard
def init(
    prompts: list[Path] = OWN_PROMPTS,
    images: Path = OWN_IMAGES,
    captions: Path = CAPTIONS,
    column: str = COLUMN,
    hold_out: float = A_TENTH,
    params: Path = PARAMS,
) -> None:
    """Take your own prompts and images into data/own and write params.yaml for them, from what stands there now."""
    from comat.corpora.own.init import Given, take_in

    take_in(params, Given(prompts, images, captions), column, hold_out)


@app.command()
@main_guard
def doctor(params: Path = PARAMS, data: Path = DATA) -> None:
    """Will the parameters run to their end on this machine? Exits with status 1 where something will fail."""
    from rich.console import Console

    from comat.estimate.doctor import examine
    from comat.estimate.findings import report
    from comat.params import load

    findings = report(examine(load(params), data, params), Console())
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)


@app.command()
@main_guard
def estimate(
    device_memory: str | None = typer.Option(
        None, help="Plan for a card of this memory, such as 24GB; none: this one."
    ),
    rate: str | None = typer.Option(None, help="Of its matrix products in `precision`, such as 125TFLOP/s."),
    params: Path = PARAMS,
    data: Path = DATA,
) -> None:
    """Estimate memory, time and disk of a run, on this device or another card. Exits with 1 where it does not fit."""
    from rich.console import Console

    from comat.estimate.show import planned_card, show_estimate
    from comat.params import load

    own = load(params)
    if not show_estimate(own, data, planned_card(own, device_memory, rate), Console()):
        raise typer.Exit(1)


@app.command()
@main_guard
def show(folder: Path = DATA / "evaluate", peers: Path = PEERS) -> None:
    """Print the result table of the last run, with the peers that were evaluated; and where report and pictures are."""
    say(_table(folder, peers))
    say(f"\nreport: {folder / 'report.html'}\npictures:")
    for picture in sorted((folder / "pictures").glob("*.png")):
        say(f"  {picture}")


@app.command()
@main_guard
def evaluate(
    model: str | None = typer.Option(
        None, help="Hub id or folder of a text-to-image pipeline; none: images are in OUT/NAME."
    ),
    revision: str | None = typer.Option(None, help="Its commit, tag or branch."),
    unet: str | None = typer.Option(
        None, help="Folder of a denoiser (UNet or transformer) that takes the place of its own."
    ),
    lora: str | None = typer.Option(None, help="Folder of a LoRA in safetensors."),
    method: str | None = typer.Option(None, help="The run's own model by composable, structured or attend_and_excite."),
    tuned: bool = typer.Option(False, "--tuned", help="With --method: the tuned model, not the base."),
    name: str | None = typer.Option(None, help="What the table calls it; by default the model's or method's."),
    out: Path = JUDGED,
    params: Path = PARAMS,
    data: Path = DATA,
) -> None:
    """Judge another model or way of sampling as the run was judged, into OUT/NAME; print it beside base and tuned."""
    from comat.evaluation.judging import Judging
    from comat.evaluation.peers import evaluate_peer
    from comat.finished.recorded import check_inputs, check_recorded
    from comat.models.lock import pinned
    from comat.models.names import captioners, judges
    from comat.params import DRAWN_BY, DRAWN_BY_THE_RUN, load
    from comat.running.device import choose_device
    from comat.running.distributed import join
    from comat.running.launch import launch_where_asked
    from comat.samples.peer_method import MethodRun
    from comat.samples.peers import Peer, Weights, check_name

    if model and method:
        raise UserError("--method draws with the run's own model: give it or --model, not both")
    if tuned and not method:
        raise UserError("--tuned goes with --method")
    run = MethodRun(method, data, tuned) if method else None
    if run:
        run.check()
        name = name or f"{run.method}{'-tuned' if tuned else ''}"
    if model and not name:
        name = Path(os.path.abspath(model)).name
    if not name:
        raise UserError("give --model, or the --name of a folder that holds images drawn elsewhere")
    check_name(name)
    found_result(data / "evaluate" / "metrics.json")
    if not model and (revision or unet or lora):
        raise UserError("--revision, --unet and --lora say how --model draws: give it, or remove them")
    own = load(params)
    if (model or run) and (lock := data.parent / "dvc.lock").is_file():
        # Else the new images would stand beside a base that was drawn otherwise.
        stages, keys = ["base_samples", *["samples"] * tuned], set(DRAWN_BY)
        if run:
            keys |= {*DRAWN_BY_THE_RUN, "base_model", "base_revision", "vae_revision"}
            check_inputs(lock, stages)
        check_recorded(own, params, lock, stages, keys)
    base = ("base_model", "vae") if run else ()
    asked = [*judges(own.evaluate), *(captioners(own) if own.evaluate.captioner else ())]
    own = pinned(own, data / "models", *base, *(judge.role for judge in asked))
    launch_where_asked("comat.cli")
    files, parser = own.samples.benchmarks, own.entities.spacy_model
    peer = Peer(name, Weights(model, revision, unet, lora) if model else None, run)
    with join(own.device) as processes:
        device = choose_device(own.device)
        judging = Judging(own.evaluate, files, parser, device, own.seed, own.resolution, own, own.precision)
        evaluate_peer(own, own.samples.batch_size, judging, peer, data / "base_samples", out / name, processes)
        if processes.main:
            say(_table(data / "evaluate", out))


def _table(folder: Path, peers: Path) -> str:
    """The result table of the run in `folder`, with a column for every peer."""
    from comat.reporting.peers import read_peers
    from comat.reporting.results import read_metrics
    from comat.reporting.table import result_table

    path = found_result(folder / "metrics.json")
    found, notes = read_peers(folder, folder.parent / "base_samples", peers)
    return "\n\n".join([result_table(read_metrics(path), found), *notes])


@app.command()
@main_guard
def entities(prompt: str, params: Path = PARAMS) -> None:
    """Print how PROMPT is parsed: entities, attributes, tokens, what is filtered and why.

    Of a file of prompts: how many, the most frequent nouns kept and dropped, and the prompts without entities.
    """
    from comat.corpora.texts import is_file_name, texts_in
    from comat.entities.show import show_all_entities, show_entities
    from comat.params import load

    own = load(params)
    if not prompt.strip():
        raise UserError("the prompt is empty; give a prompt, or a file of prompts")
    if is_file_name(prompt):
        if not Path(prompt).is_file():
            raise UserError(f"{clean(prompt)}: no such file; give a file of prompts, or a prompt")
        show_all_entities(own.entities, own, texts_in(Path(prompt)))
    else:
        show_entities(own.entities, own, prompt)


@app.command()
@main_guard
def prompts(
    files: list[Path] = FILES,
    column: str = COLUMN,
    hold_out: float = HOLD_OUT,
    as_json: bool = typer.Option(False, "--json", help="Print what data/prompts/report.json will hold."),
    params: Path = PARAMS,
) -> None:
    """Print what the stage `prompts` makes of FILES, and write nothing: counts, lengths, duplicates, examples."""
    from comat.corpora.own.show import show_prompts
    from comat.params import load

    show_prompts(load(params), files or [], column, hold_out, as_json)


@app.command()
@main_guard
def preference(
    out: Path = PAGE,
    key: Path = KEY,
    count: int = typer.Option(100, min=1, help="Pairs, of different prompts; the paper takes 100."),
    source: str | None = typer.Option(None, help="Prompts of this source alone: dsg, as the paper; none: of all."),
    params: Path = PARAMS,
    data: Path = DATA,
) -> None:
    """Write a page of blind pairs for people to vote on, and its key (App. B.1 of the paper)."""
    from comat.params import load
    from comat.preference.study import Model, write_study

    folders: dict[Model, Path] = {"base": data / "base_samples", "tuned": data / "samples"}
    pairs = write_study(folders, count, load(params).seed, out, key, source)
    say(f"{out}: {pairs} pairs\n{key}: the key, for `comat votes`")


@app.command()
@main_guard
def votes(files: list[Path], key: Path = KEY) -> None:
    """Summarise the votes that people saved from the page: who is preferred, and how far several voters agree."""
    from rich.console import Console

    from comat.preference.votes import agreements, read_key, read_votes, show_votes, summary

    own = read_key(key)
    voters = read_votes(files, own)
    show_votes(summary(voters, own), Console(), agreements(voters, own) if len(voters) > 1 else None)


@app.command()
@main_guard
def sensitivity(
    images: Path | None = IMAGES,
    captions: Path | None = CAPTIONS,
    count: int = typer.Option(0, min=0, help="Images to draw by seed; 0 takes all."),
    model: str | None = typer.Option(None, help="Another captioner_model than that of the parameters."),
    revision: str | None = typer.Option(None, help="Its revision."),
    batch_size: int = typer.Option(8, min=1, help="Images at once."),
    out: Path = SENSITIVITY,
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

    if revision and model is None:
        raise UserError("--revision is of --model: give both, or set captioner_revision in the parameters")
    loaded = load(params)
    if model is not None:
        if isinstance(loaded.captioner, list):
            raise UserError("--model takes the place of one captioner, but captioner lists several in the parameters")
        loaded = loaded.model_copy(update={"captioner_model": model, "captioner_revision": revision})
    seed = loaded.seed
    found = captioned_images(data / "prompts", images, captions, count, seed=seed, resolution=loaded.resolution)
    resamples = loaded.evaluate.bootstrap
    result = measure_sensitivity(
        loaded, loaded, loaded.entities, found, out, batch_size=batch_size, resamples=resamples, seed=seed
    )
    say(sensitivity_table(result))


if __name__ == "__main__":
    app()
