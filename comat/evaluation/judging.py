"""What benchmarks judge by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from comat.models.names import VLM_JUDGES, ModelName, captioners, judges
from comat.models.record import identity
from comat.models.sums import sum_of_file
from comat.params import BenchmarkFiles, CaptionerParams, EvaluateParams
from comat.running.workdir import PACKAGE, fingerprint
from comat.storage.folders import files_below

JUDGING = (
    "captioners",
    "corpora/pictures",
    "entities",
    "evaluation/captioner.py",
    "evaluation/distances.py",
    "evaluation/dpg.py",
    "evaluation/featured.py",
    "evaluation/geneval.py",
    "evaluation/geneval2.py",
    "evaluation/questions.py",
    "evaluation/t2i_compbench.py",
    "evaluation/tifa.py",
    "judges",
    "models/loading.py",
    "models/preprocess.py",
    "randomness.py",
    "samples/formats",
    "segmenters",
    "shapes/world",
    "storage/images.py",
)
"""The code that scores come of: after a change to it everything is judged again."""
PACKAGES = ("numpy", "pillow", "scipy", "spacy", "torch", "torchvision", "transformers")
"""Whose versions, as well, scores may depend on."""


@dataclass(frozen=True)
class Judging:
    """Which benchmarks judge, by which models and files, and where. A benchmark that is on has its file."""

    section: EvaluateParams
    files: BenchmarkFiles
    spacy_model: str  # finds the nouns that T2I-CompBench asks about
    device: torch.device
    seed: int  # of clean renders, of the choice among photographs and of intervals
    resolution: int  # px, of the clean renders: that of the images
    captioner: CaptionerParams  # for `evaluate.captioner`
    precision: str  # of the captioner

    def judge(self, name: str, evaluators: Mapping[str, str]) -> dict[str, object]:
        """All that the scores of a benchmark depend on, but for the images: models by commit or contents, and so on.

        Raises:
            UserError: if a model or file cannot be had.
        """
        code = [file for part in JUDGING for file in _sources(PACKAGE / part)]
        return self.asked(name) | {
            "evaluators": dict(evaluators),
            "device": self.device.type,
            "files and code": fingerprint(name, self._inputs(name), code),
            "packages": {package: version(package) for package in PACKAGES},
        }

    def asked(self, name: str) -> dict[str, object]:
        """What a project can change of how a benchmark judges: whose scores differ in it stand on unequal ground.

        Raises:
            UserError: if a model or file cannot be had.
        """
        section, file = getattr(self.section, name), getattr(self.files, name, None)
        dialogue = getattr(section, "dialogue", None)  # how a vision-language model is asked
        return {
            "benchmark": name,
            "models": {model.role: identity(model) for model in self._models(name)},
            "parameters": section if isinstance(section, bool) else section.model_dump(),
            "asked": dialogue.model_dump() if dialogue else None,
            "captioner": self.captioner.model_dump(include=set(CaptionerParams.model_fields))
            if name == "captioner"
            else None,
            "precision": self.precision if name in ("captioner", *VLM_JUDGES) else "fp32",
            "parser": fingerprint("parser", [Path(self.spacy_model)], [])
            if name == "t2i_compbench" and Path(self.spacy_model).exists()
            else None,
            "file": sum_of_file(Path(file))[:12] if isinstance(file, str) and Path(file).is_file() else None,
            "photographs": self.files.coco.model_dump() if name == "fid" and self.files.coco else None,
            "drawn by": (self.seed, self.resolution) if name in ("fid", "frechet") else None,
        }

    def _inputs(self, name: str) -> list[Path]:
        paths = (getattr(self.files, name, None), self.spacy_model)
        return [Path(path) for path in paths if isinstance(path, str) and Path(path).exists()]

    def _models(self, name: str) -> Iterator[ModelName]:
        if name == "captioner":
            yield from captioners(self.captioner)
        yield from (model for model in judges(self.section) if model.key.startswith(f"evaluate.{name}."))


def _sources(place: Path) -> list[Path]:
    files = [place] if place.is_file() else files_below(place)
    return [file for file in files if "__pycache__" not in file.parts]
