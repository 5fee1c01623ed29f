"""How many malformed inputs end in a traceback, or are taken without a word?

    python -m benchmarks.fuzz [--attempts 500] [--seed 0] [--families NAME …]

Every attempt spoils one input at a place drawn by the seed: a parameter file, a configuration in the folder of a model
of the shapes world, or a file that one stage leaves for another; then it is read as a stage reads it. Counted are, by
family: `refused` (one line that says what is wrong), `accepted` (the input was still of the right kind and the results
were finite), `traceback`, and `silent` (what must be refused was not, or results are not finite). Exit status 1 where
one of the last two is not 0; every such attempt is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import io
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from ruamel.yaml import YAML

from comat.errors import clean, explained
from comat.params import load

ROOT = Path(__file__).parent.parent
SHAPES = ROOT / "data/shapes"
STRANGE: list[object] = [None, 0, -1, 2**70, 0.5, float("nan"), "", "many", "\x1b[31m", [], [0], {}, {"a": 1}, True]
OUTCOMES = ("refused", "accepted", "traceback", "silent")
Attempt = Callable[[random.Random, Path], tuple[str, Callable[[], bool]]]
"""From randomness and an empty folder to what was spoiled, and what reads it: True where that may be accepted."""


def outcome(read: Callable[[], bool]) -> tuple[str, str]:
    """What became of an attempt, and how it was said."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            fine = read()
    except Exception as error:
        line = explained(error)
        if line is None or len(line) > 1000 or not line.strip():
            return "traceback", f"{type(error).__name__}: {clean(error, 150)}"
        return "refused", line
    return ("accepted", "") if fine else ("silent", "")


def spoil(rng: random.Random, document: object) -> tuple[str, object]:
    """A JSON document with another value somewhere, a key renamed, or one taken away; and where."""
    document = copy.deepcopy(document)
    places: list[tuple[str, Any, Any]] = []

    def walk(node: Any, above: str) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((f"{above}/{key}", node, key))
            walk(node[key], f"{above}/{key}")

    walk(document, "")
    if not places or rng.random() < 0.05:
        return "all", rng.choice(STRANGE)
    where, node, key = rng.choice(places)
    kind = rng.choice(("value", "value", "value", "gone", "renamed"))
    if kind == "value":
        value = rng.choice(STRANGE)
        node[key] = value
        return f"{where} = {value!r}", document
    value = node.pop(key)
    if kind == "renamed" and isinstance(node, dict):
        node[f"{key}_"] = value
    return f"{where} {kind}", document


def bytes_of(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    """A file cut, empty, of another kind, or with bytes changed."""
    kind = rng.choice(("cut", "empty", "text", "flipped"))
    if kind == "cut":
        return kind, data[: rng.randrange(max(1, len(data)))]
    if kind == "flipped":
        changed = bytearray(data)
        for _ in range(3):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return kind, bytes(changed)
    return kind, b"" if kind == "empty" else b"not what you think\n"


def params(rng: random.Random, folder: Path) -> tuple[str, Callable[[], bool]]:
    """A preset with another value somewhere, or a spoiled text."""
    preset, path = rng.choice(sorted((ROOT / "presets").glob("*.yaml"))), folder / "params.yaml"
    text = preset.read_text(encoding="utf-8")
    if rng.random() < 0.2:
        what, data = bytes_of(rng, text.encode())
        path.write_bytes(data)
    else:
        what, values = spoil(rng, YAML(typ="safe").load(text))
        path.write_text(json.dumps(values))
    return f"{preset.stem} {what}", lambda: bool(load(path))


LEVELS = list(zip("abcdefg", "bcdefgh", strict=True))
BOMBS = {
    "aliases": "a: &a [x, x]\n" + "".join(f"{n}: &{n} [{', '.join(['*' + m] * 9)}]\n" for m, n in LEVELS),
    "merges": "a: &a {x: 1}\n" + "".join(f"{n}: &{n}\n  <<: [{', '.join(['*' + m] * 9)}]\n" for m, n in LEVELS),
    "itself": "a: &a [*a]",
    "depth": "a: " + "[" * 5000,
    "braces": "{a: " * 400,
    "digits": "seed: " + "9" * 5000,
    "date": "seed: 2024-13-45",
    "tag": "seed: !!python/object/apply:os.system [ls]",
    "float": "seed: !!float x",
    "escape": '"lambda\\e[31m_adv": 1',
}
CONTRADICTIONS: list[dict[str, object]] = [
    {"warmup_images.count": 0},
    {"vae": ""},
    {"base_revision": " "},
    {"captioner_model": "a\0b"},
    {"entities.spacy_model": ""},
    {"concept_activation": False, "attribute_steps": 0, "lambda_adv": 0.0},
    {"reference_latents.count": 2, "train.guard.every": 5},
    {"train_steps": 10**12},
    {"image_latents.images": None, "image_latents.captions": None},
    {"grad_steps": 900},
]


def refused_params(rng: random.Random, folder: Path) -> tuple[str, Callable[[], bool]]:
    """Text that grows without bound, and values that contradict each other: never accepted."""
    path = folder / "params.yaml"
    if rng.random() < 0.5:
        what = rng.choice(sorted(BOMBS))
        path.write_text(BOMBS[what])
    else:
        changes = rng.choice(CONTRADICTIONS)
        what, values = str(changes), YAML(typ="safe").load((ROOT / "presets/shapes.yaml").read_text())
        for key, value in changes.items():
            *sections, name = key.split(".")
            functools.reduce(dict.__getitem__, sections, values)[name] = value
        path.write_text(json.dumps(values))
    return what, lambda: not load(path)


def model(rng: random.Random, folder: Path) -> tuple[str, Callable[[], bool]]:
    """A model of the shapes world with a spoiled configuration, loaded and used as the stages do."""
    own = load(ROOT / "presets/shapes.yaml")
    role, use = rng.choice([("base_model", _draw), ("captioner_model", _caption), ("segmenter_model", _segment)])
    source, copied = ROOT / getattr(own, role), folder / "model"
    shutil.copytree(source, copied, copy_function=os.symlink)
    configurations = [p for p in sorted(copied.rglob("*.json")) if p.stat().st_size < 20_000]
    path = rng.choice(configurations)
    data = path.read_bytes()
    path.unlink()
    if rng.random() < 0.15:
        what, data = bytes_of(rng, data)
    else:
        what, document = spoil(rng, json.loads(data))
        data = json.dumps(document).encode()
    path.write_bytes(data)
    return f"{role} {path.relative_to(copied)} {what}", lambda: use(str(copied))


@torch.no_grad()
def _draw(folder: str) -> bool:
    from comat.diffusion.backbones import load_base
    from comat.diffusion.sampling import sample_latents
    from comat.tokenizers import load_tokenizers

    own = load(ROOT / "presets/shapes.yaml").model_copy(update={"sampling_steps": 2})
    load_tokenizers(folder)
    backbone = load_base(folder)
    z = sample_latents(backbone, own, ["a red ball"], [("0", 0)], "fuzz", 64)
    return bool(backbone.decode(z).isfinite().all())


@torch.no_grad()
def _caption(folder: str) -> bool:
    from comat.captioners.load import load_captioner

    own = load(ROOT / "presets/shapes.yaml")
    captioner = load_captioner(
        own.captioners[0].model_copy(update={"captioner_model": folder}), torch.device("cpu"), torch.float32
    )
    log_p, counted = captioner.log_likelihood(torch.rand(1, 3, 64, 64), ["a red ball"])
    return bool(log_p[counted.bool()].isfinite().all())


def _segment(folder: str) -> bool:
    from comat.segmenters.clipseg import ClipSeg

    masks = ClipSeg(folder, None, 0.5, torch.device("cpu"), torch.float32).masks(torch.rand(1, 3, 64, 64), [["ball"]])
    return masks[0].shape == (1, 64, 64)


def table(rng: random.Random, folder: Path) -> tuple[str, Callable[[], bool]]:
    """A table that one stage leaves for another, edited in a way that must be refused."""
    from comat.storage.tables import ENTITIES, IMAGE_INDEX, PROMPTS, read_table
    from comat.storage.tensor_store import LATENT_INDEX

    schema = rng.choice([PROMPTS, ENTITIES, IMAGE_INDEX, LATENT_INDEX])
    path, column = folder / "table.parquet", rng.choice([name for name in schema.names if name != "reason"])
    whole = pa.table([pa.array([_example(field.type)] * 3, field.type) for field in schema], schema=schema)
    place = schema.names.index(column)
    edits = {
        "null": lambda: whole.set_column(place, column, pa.array([None] * 3, schema.field(column).type)),
        "gone": lambda: whole.drop_columns([column]),
        "renamed": lambda: whole.rename_columns([f"{n}_" if n == column else n for n in whole.column_names]),
        "another type": lambda: whole.set_column(place, column, pa.array([0.5] * 3)),
    }
    wrong = {"path": "../x.png", "prompt_id": "/x", "shard": "../x", "row": -1, "entity": -1, "tokens": [[-1]]}
    wrong |= {"id": "../x"} if schema is PROMPTS else {}
    if known := sorted(wrong.keys() & set(schema.names)):
        named = rng.choice(known)
        field, at = schema.field(named), schema.names.index(named)
        edits["away"] = lambda: whole.set_column(at, field, pa.array([wrong[named]] * 3, field.type))
    what = rng.choice([*edits, "bytes", "folder"])
    if what == "folder":
        path.mkdir()
    elif what == "bytes":
        pq.write_table(whole, path, write_page_checksum=True)
        data = path.read_bytes()
        path.write_bytes(data[: rng.randrange(len(data))])
    else:
        pq.write_table(edits[what](), path)
    return f"{schema.names[:2]} {column} {what}", lambda: not read_table(path, schema)


def _example(kind: pa.DataType) -> object:
    if pa.types.is_list(kind):
        return [_example(kind.value_type)]
    return "a" if pa.types.is_string(kind) else True if pa.types.is_boolean(kind) else 1


ROW = {"base": 0.5, "tuned": 0.5, "gain": 0.0, "gain_low": 0.0, "gain_high": 0.0, "n": 3}
STUDY = {"study": "s", "pairs": [{"prompt_id": "1", "text": "a", "seed": 0, "left": "base", "right": "tuned"}]}
NOTES: dict[str, object] = {
    "metrics.json": {"oracle": {"color": ROW, "total": ROW}, "frechet": {"base": 2.0, "tuned": 1.0, "ratio": 0.5}},
    "report.json": {
        "total": {"train": 1, "test": 1, "too_long": 0},
        "sources": {"s": {"read": 2, "kept": 2, "dropped": {"empty": 1}, "too_long": 0}},
        "evaluation": {"e": {"prompts": 1, "exact": 0, "near": 0}},
    },
    "attention.json": [{"prompt_id": "1", "text": "a ball", "tokens": ["a", "ball"], "entities": [[1]]}],
    "key.json": STUDY,
    "votes.json": {"study": "s", "voter": "[/b] \x1b[31m", "votes": {"alignment": {"0": "left"}}},
    "curves.csv": "iteration,loss,i2t,attribute,adversarial,discriminator,grad_norm,learning_rate,skipped\n"
    "0,1,1,1,1,1,1,1e-3,0\n",
}


def note(rng: random.Random, folder: Path) -> tuple[str, Callable[[], bool]]:
    """A JSON or CSV file that is shown, edited."""
    name = rng.choice(sorted(NOTES))
    for own, value in NOTES.items():
        (folder / own).write_text(value if isinstance(value, str) else json.dumps(value))
    path = folder / name
    if name.endswith(".csv") or rng.random() < 0.2:
        what, data = bytes_of(rng, path.read_bytes())
        path.write_bytes(data)
    else:
        what, value = spoil(rng, NOTES[name])
        path.write_text(json.dumps(value))
    return f"{name} {what}", lambda: _show(name, folder)


def _show(name: str, folder: Path) -> bool:
    from rich.console import Console

    from comat.preference.votes import read_key, read_votes, show_votes, summary
    from comat.reporting.report import training_charts
    from comat.reporting.results import read_metrics, read_prompts_report
    from comat.reporting.table import result_table
    from comat.storage.tables import read_legend

    if name == "metrics.json":
        return bool(result_table(read_metrics(folder / name)))
    if name == "report.json":
        return bool(read_prompts_report(folder))
    if name == "attention.json":
        return isinstance(read_legend(folder), list)
    if name == "curves.csv":
        return isinstance(training_charts(folder / name), list)
    key, shown = read_key(folder / "key.json"), io.StringIO()
    show_votes(summary(read_votes([folder / "votes.json"], key), key), Console(file=shown, width=200))
    return "\x1b" not in shown.getvalue()


FAMILIES: dict[str, tuple[Attempt, float]] = {
    "params": (params, 0.3),
    "contradictions and bombs": (refused_params, 0.1),
    "models": (model, 0.2),
    "tables": (table, 0.2),
    "notes": (note, 0.2),
}
"""Name → how it spoils, and its share of the attempts."""


def run(attempts: int, seed: int, names: list[str]) -> Iterator[tuple[str, str, str, str]]:
    """(family, what was spoiled, outcome, what was said) of every attempt."""
    for name in names:
        spoiled, share = FAMILIES[name]
        for number in range(max(1, round(attempts * share))):
            with tempfile.TemporaryDirectory() as folder:
                what, read = spoiled(random.Random(f"{seed} {name} {number}"), Path(folder))
                found, said = outcome(read)
            yield name, what, found, said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--families", nargs="*", default=list(FAMILIES), choices=list(FAMILIES))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    counts = {name: Counter[str]() for name in args.families}
    for name, what, found, said in run(args.attempts, args.seed, args.families):
        counts[name][found] += 1
        if found in ("traceback", "silent"):
            print(f"{found}: {name}: {clean(what, 150)}: {said}", flush=True)
    print(f"{'family':<28}" + "".join(f"{kind:>12}" for kind in OUTCOMES))
    total = sum(counts.values(), Counter[str]())
    for name, own in [*counts.items(), ("all", total)]:
        print(f"{name:<28}" + "".join(f"{own[kind]:>12}" for kind in OUTCOMES))
    sys.exit(1 if total["traceback"] + total["silent"] else 0)


if __name__ == "__main__":
    main()
