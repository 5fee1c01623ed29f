"""A user's prompts and images into `data/own`, and the parameters that use them."""

from __future__ import annotations

import contextlib
import filecmp
import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text
from ruamel.yaml import YAML

from comat.corpora.build import Corpus, build_corpus, check_held_out
from comat.corpora.own.show import show_corpus
from comat.corpora.own.sources import own_sources
from comat.corpora.pictures.photos import Tally, read_photos
from comat.corpora.pictures.read import Pictures, pictures_in
from comat.errors import UserError
from comat.params import Params, PromptSource, load
from comat.running.stage import written_whole
from comat.shapes.world.captions import parse_prompt
from comat.storage.folders import files_below
from comat.storage.tables import atomic_path
from comat.tokenizers import load_tokenizers

OWN = Path("data/own")
EMBEDDED = Path("data/shapes")
WORDS = 1 << 16
"""Bytes up to which a file may be text that a person has edited to the same length."""


@dataclass(frozen=True)
class Given:
    """What a user gives: lists of prompts, and a folder or tar file of images, with its captions file if it has one."""

    prompts: Sequence[Path]
    images: Path | None
    captions: Path | None


def take_in(path: Path, given: Given, column: str | None, hold_out: float) -> None:
    """Look at everything, then copy it to `data/own` and write the parameters; what is there already is used in place.

    Raises:
        UserError: as the stages would, or where something else stands there by one of the names; nothing is written
            then.
    """
    if given.captions is not None and given.images is None:
        raise UserError(f"--captions {given.captions}: of which images? give --images as well, or leave it out")
    console = Console(highlight=False)
    params = load(path)
    targets = [target_of(source, OWN / "prompts") for source in given.prompts]
    for target, source in zip(targets, given.prompts, strict=True):
        if targets.count(target) > 1:
            raise UserError(
                f"{source}: two of the lists would stand at {target}; give each a name of its own, or each once"
            )
    moves = [*zip(given.prompts, targets, strict=True)]
    moves += [(path, target_of(path, OWN / "images")) for path in (given.images, given.captions) if path is not None]
    for source, target in moves:
        _check_same(source, target)
    sources = own_sources(given.prompts, column, hold_out)
    section = params.prompts.model_copy(update={"sources": sources})
    corpus = build_corpus(section, params.seed, load_tokenizers(params.base_model, params.base_revision))
    check_held_out(corpus.report, params.samples.benchmarks)
    show_corpus(corpus, params.seed, console)
    if given.images is not None:
        found = pictures_in(given.images, given.captions, params.seed)
        console.print(Text(_described(given.images, found, params.resolution)), soft_wrap=True)
    changes = _of_prompts(sources, targets) | _of_images(params, given) | _of_judges(params, corpus)
    text, lines = _changed(path, changes)
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")
        load(part)  # before anything is copied
        for source, target in moves:
            _copy(source, target)
    for line in [*lines, *_notes(params, corpus), f"{path} is written; `dvc repro` runs it"]:
        console.print(Text(line), soft_wrap=True)


def target_of(source: Path, folder: Path) -> Path:
    """Where a file or folder is to stand, relative to the project: where it is, or by its name in `folder`."""
    full, own = source.resolve(), OWN.resolve()  # a link may lead to another disk
    return OWN / full.relative_to(own) if full.is_relative_to(own) else folder / full.name


def _check_same(source: Path, target: Path) -> None:
    """Refuse to put what was given in the place of something else, as of a copy that was edited."""
    if OWN.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{source}: holds {OWN} itself, into which it would be copied; give the folder of your files")
    if source.exists() and target.exists() and not _equal(source, target):
        raise UserError(
            f"{target}: stands there and is not what {source} is, edited since perhaps; give {target} itself to use "
            "it, or move it away"
        )


def _equal(one: Path, other: Path) -> bool:
    if not (one.is_dir() and other.is_dir()):
        return one.is_file() and other.is_file() and _same_bytes(one, other)
    names = _names(one)
    return names == _names(other) and all(_same_bytes(one / name, other / name) for name in names)


def _names(folder: Path) -> set[Path]:
    """The files of a folder, without hidden ones, which nobody reads."""
    return {file.relative_to(folder) for file in files_below(folder, hidden=False)}


def _same_bytes(one: Path, other: Path) -> bool:
    """Of images a copy of equal size and time is the same."""
    return filecmp.cmp(one, other, shallow=one.stat().st_size > WORDS)


def _copy(source: Path, target: Path) -> None:
    """A copy of its own: what a person changes in one of the two stays as it is in the other."""
    if target.exists():
        return
    if source.is_file():
        with atomic_path(target) as part:
            shutil.copyfile(source, part)
        return
    with written_whole(target) as folder:
        for file in files_below(source, hidden=False):
            place = folder / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, place)


def _described(images: Path, found: Pictures, size: int) -> str:
    """What an image folder holds, by the headers of its files."""
    tally = Tally()
    names = {one.name for one in found.pictures}
    for _ in tally.wanted(read_photos(found.pictures, size, done=names)):
        pass
    counts = tally.report()
    odd = ", ".join(f"{n} {what}" for kind in ("skipped", "converted") for what, n in counts[kind].items()) or "none"
    return (
        f"{images}: {found.layout}, {counts['stored']} images with a caption, {found.without} without; "
        f"skipped or special: {odd}\n  {found.pictures[0].name}: {found.pictures[0].caption}"
    )


def _of_prompts(sources: Sequence[PromptSource], targets: Sequence[Path]) -> dict[str, object]:
    entries = [
        source.model_copy(update={"path": target.as_posix()}).model_dump(exclude_defaults=True)
        for source, target in zip(sources, targets, strict=True)
    ]
    return {"corpora.fetch": [], "prompts.sources": entries}


def _of_images(params: Params, given: Given) -> dict[str, object]:
    """The user's images; without any, none where the preset's own are not there and nothing makes them."""
    if given.images is not None:
        captions = given.captions and target_of(given.captions, OWN / "images").as_posix()
        images = target_of(given.images, OWN / "images").as_posix()
        changes: dict[str, object] = {"image_latents.images": images, "image_latents.captions": captions}
        return changes | ({"image_latents.split": None} if params.image_latents.split else {})
    there = params.image_latents.images and Path(params.image_latents.images)
    if not there or there.exists() or there.is_relative_to(EMBEDDED):
        return {}
    none: dict[str, object] = {"image_latents.images": None, "image_latents.captions": None, "image_batch": 0}
    return none | ({"discriminator_input": "generated"} if params.discriminator_input == "real_world" else {})


def _of_judges(params: Params, corpus: Corpus) -> dict[str, object]:
    """Judges that have something to say of these prompts: those of other prompts would end `evaluate` with an error."""
    changes: dict[str, object] = {"evaluate.t2i_compbench": None}  # its categories are those of its own files
    on = params.evaluate
    worldly = _worldly(corpus)
    if not worldly:
        changes |= {"evaluate.oracle": False, "evaluate.frechet": None}
        if params.train.guard.metric == "oracle" and params.train.guard.every:
            changes["train.guard.every"] = 0
    if not ((on.oracle and worldly) or on.any_prompt or on.tifa or on.dpg or on.dsg or on.geneval or on.geneval2):
        changes["evaluate.captioner"] = True
    return changes


def _worldly(corpus: Corpus) -> bool:
    """Whether any held-out prompt is of the shapes world."""
    for row in corpus.rows:
        with contextlib.suppress(ValueError):
            if row["split"] == "test" and parse_prompt(row["text"]):
                return True
    return False


def _notes(params: Params, corpus: Corpus) -> list[str]:
    notes = []
    if Path(params.base_model).is_relative_to(EMBEDDED) and not _worldly(corpus):
        notes.append(
            "note: the embedded base draws coloured shapes and nothing else, and no held-out prompt is of them; for "
            "pictures of the world take a preset of a real model first (`comat preset sd15`)"
        )
    return notes


def _changed(path: Path, changes: dict[str, object]) -> tuple[str, list[str]]:
    """The text of the parameter file with other values, comments kept; and a line for each value that is another."""
    yaml = YAML()  # as DVC writes it for `-S`
    values = yaml.load(path.read_text(encoding="utf-8"))
    lines = []
    for key, new in changes.items():
        *sections, last = key.split(".")
        section = values
        for name in sections:
            section = section[name]
        if section.get(last) != new:
            lines.append(f"{key}: {_short(section.get(last))} → {_short(new)}")
            section[last] = new
    text = io.StringIO()
    yaml.dump(values, text)
    return text.getvalue(), lines


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:100]}…"
