"""`python -m comat.shapes.recipe STAGE`: train one of the world's models, or measure them all."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from ruamel.yaml import YAML

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin


class Trained(Protocol):
    """A model of transformers or diffusers, or a pipeline."""

    @property
    def to(self) -> Callable[..., object]: ...

    def save_pretrained(self, folder: Path, /) -> object: ...


def run_autoencoder(section: dict, models: Path, work: Path) -> None:
    from comat.shapes.recipe import autoencoder

    save(autoencoder.train(section["steps"], work, section["precision"]), models / "autoencoder")


def run_captioner(
    section: dict,
    models: Path,
    work: Path,
    *,
    name: str,
    recipe: str = "captioner",
    processor: str = "BlipImageProcessor",
) -> None:
    """A captioner, by the function `train` of the module `recipe`."""
    from comat.shapes.recipe.tokenizers import bert_tokenizer

    tokenizer = bert_tokenizer()
    train = import_module(f"comat.shapes.recipe.{recipe}").train
    model = train(section["steps"], tokenizer, work, section["precision"])
    save(model, models / name, tokenizer=tokenizer, processor=processor)


def run_segmenter(section: dict, models: Path, work: Path) -> None:
    from comat.shapes.recipe import segmenter
    from comat.shapes.recipe.tokenizers import clip_tokenizer

    tokenizer = clip_tokenizer()
    model = segmenter.train(section["steps"], tokenizer, work, section["precision"])
    save(model, models / "segmenter", tokenizer=tokenizer, processor="ViTImageProcessor")


def run_features(section: dict, models: Path, work: Path) -> None:
    from comat.shapes.recipe import features

    model = features.train(section["steps"], work, section["precision"])
    save(model, models / "features", processor="ConvNextImageProcessor")


def run_dino(section: dict, models: Path, work: Path) -> None:
    from comat.shapes.recipe import dino

    model = dino.train(section["steps"], work, section["precision"])
    save(model, models / "dino", processor="ViTImageProcessor")


def run_vlm(section: dict, models: Path, work: Path) -> None:
    from comat.shapes.recipe import vlm

    tokenizer = vlm.tokenizer()
    model = vlm.train(section["steps"], tokenizer, work, section["precision"])
    save(model, models / "vlm_begun", tokenizer=vlm.processor(tokenizer))


def run_vlm_on(section: dict, models: Path, work: Path) -> None:
    from transformers import LlavaForConditionalGeneration

    from comat.shapes.recipe import vlm

    tokenizer = vlm.tokenizer()
    model = LlavaForConditionalGeneration.from_pretrained(models / "vlm_begun", dtype=torch.float32)
    vlm.go_on(model, section["steps"], tokenizer, work, section["precision"])
    save(model, models / "vlm", tokenizer=vlm.processor(tokenizer))


def run_pipeline(section: dict, models: Path, work: Path, *, recipe: str, train: str, name: str) -> None:
    """A whole pipeline, by the function `train` of the module `recipe`."""
    module = import_module(f"comat.shapes.recipe.{recipe}")
    save(getattr(module, train)(section, models, work), models / name)


def save(
    model: Trained,
    folder: Path,
    tokenizer: PreTrainedTokenizerBase | ProcessorMixin | None = None,
    processor: str | None = None,
) -> None:
    """Write a hub-layout folder, weights in half precision; appears whole or not at all."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    model.to(torch.float16)
    model.save_pretrained(part)
    for config in part.rglob("*.json"):  # where the parts were loaded from is nobody's business
        fields = json.loads(config.read_text())
        if isinstance(fields, dict) and fields.pop("_name_or_path", None):
            config.write_text(json.dumps(fields, indent=2) + "\n")
    if tokenizer is not None:
        tokenizer.save_pretrained(part)
    if processor:
        half = [0.5, 0.5, 0.5]
        fields = {"image_processor_type": processor, "do_resize": True, "size": {"height": 64, "width": 64}}
        fields |= {"do_rescale": True, "do_normalize": True, "image_mean": half, "image_std": half}
        (part / "preprocessor_config.json").write_text(json.dumps(fields, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


RUN: dict[str, Callable[[dict, Path, Path], None]] = {
    "autoencoder": run_autoencoder,
    "captioner": partial(run_captioner, name="captioner"),
    "captioner_medium": partial(run_captioner, name="captioner_medium"),
    "captioner_weak": partial(run_captioner, name="captioner_weak"),
    "git": partial(run_captioner, name="git", recipe="git", processor="CLIPImageProcessor"),
    "segmenter": run_segmenter,
    "features": run_features,
    "dino": run_dino,
    "vlm_begun": run_vlm,
    "vlm": run_vlm_on,
    "painter": partial(run_pipeline, recipe="base", train="train_painter", name="painter"),
    "refined": partial(run_pipeline, recipe="base", train="refine_painter", name="refined"),
    "base": partial(run_pipeline, recipe="base", train="train_base", name="base"),
    "apart": partial(run_pipeline, recipe="apart", train="train_apart", name="apart"),
    "flow_painter": partial(run_pipeline, recipe="flow", train="train_painter", name="flow_painter"),
    "flow_refined": partial(run_pipeline, recipe="flow", train="refine_painter", name="flow_refined"),
    "flow_base": partial(run_pipeline, recipe="flow", train="train_base", name="flow_base"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=RUN)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--work", type=Path, default=Path(".work"))
    options = parser.parse_args()
    section = YAML(typ="safe").load(options.params.read_text())[options.stage]
    work = options.work / options.stage
    RUN[options.stage](section, options.models, work)
    shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
