"""The model card beside a LoRA, as the hub and diffusers read it: whence, how good, how to load, under what licence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
from diffusers import DDPMScheduler
from diffusers.loaders.peft import PeftAdapterMixin
from huggingface_hub import EvalResult, ModelCardData
from ruamel.yaml import YAML

from comat.diffusion.backbones import backbone_class
from comat.diffusion.schedulers import SCHEDULERS, own_schedule
from comat.diffusion.stock import stock_options
from comat.errors import clean
from comat.models.families import Family, family_of, left_out, texts_of
from comat.models.loading import loaded, pipeline_index
from comat.models.names import ModelName
from comat.params import CAPTIONERS, DrawingParams
from comat.reporting.html import difference, render, score, unit_of
from comat.reporting.results import read_evaluators
from comat.reporting.table import DISTANCES, TITLES, judges, names_of
from comat.running.device import DTYPES
from comat.storage.tables import write_bytes
from comat.tokenizers import load_tokenizers

HERE = Path(__file__).parent
UNKNOWN = "unknown"
CAPTIONERS_MODELS = ("captioner_model", *(f"captioner_{place}_model" for place in range(CAPTIONERS)))
ROLES = ("base_model", "vae", *CAPTIONERS_MODELS, "segmenter_model", "sam_model", "discriminator_model")
"""Of the models that the LoRA is made from or with; the evaluation's judge it only."""


@dataclass(frozen=True)
class Home:
    """Where the card's code finds LoRA and warm-up's denoiser, and what a published card shows beside."""

    lora: str = "data/train/lora"
    warmup: str = "data/warmup"
    published: bool = False
    gallery: Sequence[tuple[str, str, str]] = ()  # prompt, picture, what it shows
    trained_on: Sequence[str] = ()


def write_card(
    drawing: DrawingParams, parameters: Mapping[str, object], models: Iterable[ModelName], metrics: Mapping, out: Path
) -> None:
    """Write `model_card/README.md` into `out`; arguments as of `card`."""
    name = f"CoMat LoRA of {Path(drawing.base_model).name}"
    evaluators = read_evaluators(out / "evaluators.json")
    text = card(drawing, parameters, models, metrics, evaluators, name, Home())
    write_bytes(out / "model_card/README.md", text.encode())


def card(
    drawing: DrawingParams,
    parameters: Mapping[str, object],
    models: Iterable[ModelName],
    metrics: Mapping,
    evaluators: Mapping[str, Mapping[str, str]],
    name: str,
    home: Home,
) -> str:
    """The card: metadata that the hub indexes, and a text.

    Args:
        drawing: by what the LoRA draws.
        parameters: all of them, by sections, for the text tells how the LoRA was made.
        models: that the parameters name.
        metrics: benchmark → category → numbers, as `metrics.json` holds them.
        evaluators: benchmark → role → model, as `evaluators.json` holds them.
    """
    values = {
        "metadata": card_data(drawing.base_model, metrics, name).to_yaml(),
        "name": name,
        "home": home,
        "gallery": [(_cell(prompt), picture, _cell(said)) for prompt, picture, said in home.gallery],
        "trained_on": [_cell(line) for line in home.trained_on],
        "params": parameters,
        "models": [(m, licence(m.name)) for m in models if m.role in ROLES],
        "dtype": str(DTYPES[drawing.precision]).removeprefix("torch."),
        **_denoiser(drawing),
        "tables": [table(benchmark, rows) for benchmark, rows in metrics.items() if benchmark not in DISTANCES],
        "judges": [_cell(line) for line in judges(evaluators)],
        "distances": {TITLES[one]: metrics[one] for one in DISTANCES if one in metrics},
    }
    return render("comat.reporting", "card.md.j2", values)


def _denoiser(drawing: DrawingParams) -> dict[str, object]:
    """What the card's code says in diffusers' words: the part that LoRA sits on and its class, whether diffusers loads
    LoRA for it, the autoencoder's class, the run's sampler where it is not the model's, and the options of the call."""
    index = pipeline_index(drawing.base_model, drawing.base_revision)
    family = family_of(drawing.base_model, index)
    kind = backbone_class(family).DENOISER
    options = stock_options(getattr(diffusers, index["_class_name"]), drawing.guidance_scale)
    if read := _fewer_tokens(drawing.base_model, drawing.base_revision, family):
        options["max_sequence_length"] = read
    return {
        "denoiser": family.denoiser,
        "denoiser_class": kind.__name__,
        "mixin": issubclass(kind, PeftAdapterMixin),
        "vae_class": family.vae,
        "left_out": left_out(family, index),
        "options": options,
        **_sampler(drawing),
    }


def _sampler(drawing: DrawingParams) -> dict[str, object]:
    """Class and configuration of the run's sampler; no class where it is the model's own."""
    if drawing.scheduler == "model":
        return {"scheduler": None}
    where = {"subfolder": "scheduler", "revision": drawing.base_revision}
    config = loaded(drawing.base_model, "scheduler", lambda: DDPMScheduler.load_config(drawing.base_model, **where))
    return {
        "scheduler": SCHEDULERS[drawing.scheduler].__name__,
        "schedule": own_schedule(drawing.scheduler, config),
    }


def _fewer_tokens(model: str, revision: str | None, family: Family) -> int | None:
    """The tokens that the stock pipeline must be told to read, where a tokenizer of the model is made for fewer.

    Unasked it pads to `Text.length`, with columns that the LoRA was not trained beside.
    """
    texts = texts_of(model, family, pipeline_index(model, revision))
    found = zip(texts, load_tokenizers(model, revision), strict=True)
    return next((own.model_max_length for text, own in found if own.model_max_length < (text.length or 0)), None)


def card_data(base_model: str, metrics: Mapping, name: str) -> ModelCardData:
    """The card's metadata; a base model that is a folder has no id on the hub, and is left out."""
    own = licence(base_model)
    return ModelCardData(
        model_name=name,
        base_model=None if Path(base_model).is_dir() else base_model,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=["text-to-image", "lora", "comat"],
        license="other" if own == UNKNOWN else own,
        license_name="see-base-model" if own == UNKNOWN else None,
        eval_results=list(_results(metrics)),
    )


def _results(metrics: Mapping) -> Iterator[EvalResult]:
    for benchmark, rows in metrics.items():
        named = {"total": rows} if benchmark in DISTANCES else rows
        for category, row in named.items():
            yield EvalResult(
                task_type="text-to-image",
                dataset_type=f"{benchmark}-{category}",
                dataset_name=f"{TITLES[benchmark]}: {names_of(benchmark).get(category, category)}",
                metric_type=benchmark,
                metric_name=f"{TITLES[benchmark]} (the base model: {row['base']:.4g})",
                metric_value=round(row["tuned"], 4),
            )


def licence(model: str) -> str:
    """The hub's identifier of a model's licence, as far as this project knows it."""
    return YAML(typ="safe").load((HERE / "licences.yaml").read_text(encoding="utf-8")).get(model, UNKNOWN)


def _cell(text: str) -> str:
    """Text of others in a cell: Markdown's own characters stand for themselves."""
    return re.sub(r"([\\`*_{}\[\]<>|~])", r"\\\1", clean(text, 200))


def table(benchmark: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """A benchmark's result as a table in Markdown."""
    unit, names = unit_of(benchmark), names_of(benchmark)
    lines = [f"| {TITLES[benchmark]} | base | this LoRA | gain | 95% interval | judged |", "|---|---|---|---|---|---|"]
    for category, row in rows.items():
        ends = [row["gain_low"], row["gain_high"]]
        interval = "none" if None in ends else f"[{', '.join(difference(end, unit) for end in ends)}]"
        cells = [_cell(names.get(category, category)), score(row["base"], unit), score(row["tuned"], unit)]
        lines.append("| " + " | ".join([*cells, difference(row["gain"], unit), interval, str(row["n"])]) + " |")
    return "\n".join(lines)
