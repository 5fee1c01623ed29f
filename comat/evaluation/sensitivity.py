"""The sensitivity score (Eq. 7, App. B.3): does a captioner tell a true caption from one that is wrong in one way?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import torch
from spacy.language import Language
from spacy.tokens import Doc
from torch import Tensor
from tqdm import tqdm

from comat.captioners import Captioner
from comat.captioners.load import captioner_columns, load_captioners
from comat.entities.filter import filtered_nouns, reasons
from comat.entities.parse import entities_of, load_parser
from comat.errors import UserError
from comat.evaluation.captioned import Captioned
from comat.evaluation.corruptions import CORRUPTIONS
from comat.evaluation.statistics import enough_interval
from comat.models.names import ModelName
from comat.models.names import captioners as named_captioners
from comat.models.record import identity
from comat.params import CaptionerParams, Computing, EntitiesParams, OneCaptioner
from comat.running.device import DTYPES, choose_device
from comat.storage.tables import write_json, write_table

ROWS = pa.schema(
    {
        "captioner": pa.string(),
        "image": pa.string(),
        "corruption": pa.string(),
        "caption": pa.string(),
        # Null, with what follows from it, where the caption cannot be corrupted this way.
        "corrupted": pa.string(),
        "log_p": pa.float64(),
        "log_p_corrupted": pa.float64(),
        "sensitivity": pa.float64(),
    }
)
ALL = "all"
LEAST = 1e-6
"""Nats. A captioner that is surer of a caption than float32 can tell from certainty is not divided by less."""


def sensitivity(log_p: float, log_p_corrupted: float) -> float:
    """Eq. 7: how much likelier the true caption is than the corrupted one, relative to its own log-likelihood.

    Args:
        log_p: log-likelihood of the true caption given its image, below zero.
        log_p_corrupted: the same of the corrupted caption.
    """
    return (log_p - log_p_corrupted) / max(abs(log_p), LEAST)


def measure_sensitivity(
    own: CaptionerParams,
    computing: Computing,
    entities: EntitiesParams,
    images: Iterable[Captioned],
    out: Path,
    *,
    batch_size: int,
    resamples: int,
    seed: int,
) -> dict:
    """Measure the captioner of the parameters; write `rows.parquet` and `sensitivity.json`, and return the latter.

    Of several captioners each by itself, and for every corruption which tells it best.

    Raises:
        UserError: if a model cannot be had, or there is no image.
    """
    device, dtype = choose_device(computing.device), DTYPES[computing.precision]
    names = captioner_columns(own) or [own.captioners[0].column]
    captioners = dict(zip(names, load_captioners(own, device, dtype), strict=True))
    filtered = filtered_nouns(Path(entities.own_filter) if entities.own_filter else None)
    rows = list(_rows(captioners, load_parser(entities.spacy_model), filtered, images, batch_size, device))
    if not rows:
        raise UserError("no image with a caption; expected at least one")
    found = {
        name: {"captioner": _identified(one, model), "corruptions": summary(_of(rows, name), resamples, seed)}
        for name, one, model in zip(names, own.captioners, named_captioners(own), strict=True)
    }
    count = {"images": len({row["image"] for row in rows})}
    if len(found) == 1:
        result = {**found[names[0]], **count}
    else:
        result = {**count, "captioners": found, "best": best(rows, names, resamples, seed)}
    write_table(out / "rows.parquet", rows, ROWS)
    write_json(out / "sensitivity.json", result)
    return result


def _identified(own: OneCaptioner, model: ModelName) -> dict[str, str]:
    asked = {"question": own.captioner_question, "answer": own.captioner_answer} if own.captioner == "vlm" else {}
    return {"kind": own.captioner, "model": identity(model), "prefix": own.caption_prefix, **asked}


def _of(rows: Sequence[Mapping], captioner: str) -> list[Mapping]:
    return [row for row in rows if row["captioner"] == captioner]


def best(rows: Sequence[Mapping], names: Sequence[str], resamples: int, seed: int) -> dict[str, dict]:
    """For each corruption and all together, which captioner finds the true caption likelier most often.

    By that share, not by Eq. 7, whose scale is each captioner's own: it divides by how sure one is. With how much more
    often than each other.

    The differences are of the same images and captions, with their 95% intervals, null below ten images; `sure` where
    each is above zero.
    Nothing is said of a corruption that no caption allows.
    """
    found = {}
    for corruption in (*CORRUPTIONS, ALL):
        scores = {name: _scores(_of(rows, name), corruption) for name in names}
        if not scores[names[0]]:
            continue
        first = max(names, key=lambda name: sum(scores[name].values()))
        over = {}
        for other in (name for name in names if name != first):
            gains = [value - scores[other][place] for place, value in scores[first].items()]
            mean, low, high = enough_interval(gains, [image for image, _ in scores[first]], resamples, seed)
            over[other] = {"mean": mean, "low": low, "high": high}
        found[corruption] = {
            "captioner": first,
            "over": over,
            "sure": all(_above_zero(gain["low"]) for gain in over.values()),
        }
    return found


def _above_zero(low: float | None) -> bool:
    return low is not None and low > 0


def _scores(rows: Sequence[Mapping], corruption: str) -> dict[tuple[str, str], float]:
    """Whether the true caption wins, 1 or 0, by image and corruption, of captions that can be corrupted so."""
    return {
        (row["image"], row["corruption"]): float(row["log_p"] > row["log_p_corrupted"])
        for row in rows
        if row["corrupted"] is not None and corruption in (row["corruption"], ALL)
    }


def summary(rows: Sequence[Mapping], resamples: int, seed: int) -> dict[str, dict]:
    """For each corruption and all together: mean sensitivity and its 95% interval, how often the true caption wins.

    Images are resampled, for an image's corruptions share its true caption; below ten there is no interval. `left_out`
    counts the captions that could not be corrupted; a mean over none is null.
    """
    found = {name: [row for row in rows if row["corruption"] == name] for name in CORRUPTIONS}
    return {name: _summary(own, resamples, seed) for name, own in {**found, ALL: rows}.items()}


def _summary(rows: Sequence[Mapping], resamples: int, seed: int) -> dict:
    scored = [row for row in rows if row["corrupted"] is not None]
    counts = {"n": len(scored), "left_out": len(rows) - len(scored)}
    if not scored:
        return {"mean": None, "low": None, "high": None, "true_wins": None, **counts}
    mean, low, high = enough_interval(
        [row["sensitivity"] for row in scored], [row["image"] for row in scored], resamples, seed
    )
    wins = sum(_scores(rows, ALL).values()) / len(scored)
    return {"mean": mean, "low": low, "high": high, "true_wins": wins, **counts}


def corrupted_captions(doc: Doc, filtered: dict[str, str | None]) -> dict[str, str | None]:
    """A parsed caption corrupted in every way; None where it cannot be."""
    entities = entities_of(doc)
    kept = [e for e, reason in zip(entities, reasons(entities, filtered), strict=True) if reason is None]
    return {name: corrupt(doc, kept) for name, corrupt in CORRUPTIONS.items()}


def _rows(
    captioners: Mapping[str, Captioner],
    parser: Language,
    filtered: dict[str, str | None],
    images: Iterable[Captioned],
    batch_size: int,
    device: torch.device,
) -> Iterator[dict]:
    """One row for every captioner, image and corruption."""
    waiting = iter(tqdm(images, desc="sensitivity", unit=" images"))
    while part := list(islice(waiting, batch_size)):
        wrong = [corrupted_captions(doc, filtered) for doc in parser.pipe([one.caption for one in part])]
        pairs = [
            (one.image, text)
            for one, texts in zip(part, wrong, strict=True)
            for text in (one.caption, *texts.values())
            if text is not None
        ]
        for own, captioner in captioners.items():
            scores = iter(_log_likelihood(captioner, pairs, device))
            for one, texts in zip(part, wrong, strict=True):
                log_p = next(scores)
                row = {"captioner": own, "image": one.name, "caption": one.caption, "log_p": log_p}
                for name, text in texts.items():
                    against = _against(log_p, text, scores)
                    if not all(math.isfinite(value) for value in (log_p, against["log_p_corrupted"] or 0.0)):
                        raise UserError(
                            f"captioner {own}: what it says of image {one.name!r} with the caption {one.caption!r}, or "
                            f"{text!r}, is not a number: expected log-likelihoods; set precision to fp32, or leave the "
                            "image out"
                        )
                    yield {**row, "corruption": name, **against}


def _against(log_p: float, text: str | None, scores: Iterator[float]) -> dict:
    if text is None:
        return {"corrupted": None, "log_p_corrupted": None, "sensitivity": None}
    other = next(scores)
    return {"corrupted": text, "log_p_corrupted": other, "sensitivity": sensitivity(log_p, other)}


@torch.no_grad()
def _log_likelihood(captioner: Captioner, pairs: Sequence[tuple[Tensor, str]], device: torch.device) -> list[float]:
    """log p(caption | image) of each pair as Eq. 7 has it: the sum over the caption's tokens."""
    images, texts = zip(*pairs, strict=True)
    log_p, _ = captioner.log_likelihood(torch.stack(images).to(device), texts)
    return log_p.sum(1).tolist()
