"""Cost of the segmenters of photos, random weights: the two Grounded-SAMs and SAM 3.

    python -m benchmarks.segmenters [--sam vit_b|vit_h] [--images 1] [--nouns 3] [--repeats 3]
    python -m benchmarks.segmenters --kind sam3 --size 336 --repeats 1

Swin-T Grounding DINO at 800 px and Segment Anything at 1024 px, as published, on images of 512 px. Each is saved,
loaded and measured in a process of its own: size of the weights, CPU time to load, and for detector and masker the
median CPU time of a call (user + system, all threads) and the peak of resident memory above the loaded model. The
masker fills one box for each noun. Of SAM 3 "detector" is what sees the image, once, and "masker" what finds all nouns
in what was seen. It is published at 1008 px; at a `--size` of 336 the same weights read a ninth of the patches. It is
tried on a grey image when it is loaded, which "load" counts.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.replay_memory import Peak

if TYPE_CHECKING:
    from transformers import Sam3Config

KINDS = ("grounded_sam", "grounded_sam_hf", "sam3")
SIZES, PATCH = (336, 672, 1008), 14  # px, of SAM 3: whole windows of 24 patches
ENCODERS = {"vit_b": (768, 12, 12, [2, 5, 8, 11]), "vit_h": (1280, 32, 16, [7, 15, 23, 31])}
BERT_IDS = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?", 3899: "dog"}


def save_text_encoder(folder: Path) -> None:
    """BERT base's configuration, and a tokenizer of its size with one noun."""
    from transformers import BertConfig, BertTokenizer

    config = BertConfig()
    vocab = {BERT_IDS.get(i, f"[unused{i}]"): i for i in range(config.vocab_size)}
    BertTokenizer(vocab=vocab, do_lower_case=True).save_pretrained(folder)
    config.save_pretrained(folder)


def save_packages(folder: Path, sam: str) -> None:
    import torch
    from segment_anything.build_sam import _build_sam

    from comat.segmenters.grounding_dino import build

    save_text_encoder(folder / "bert")
    detector = build("GroundingDINO_SwinT_OGC.py", str(folder / "bert"), None)
    torch.save({"model": detector.state_dict()}, folder / "detector.pth")
    torch.save(_build_sam(*ENCODERS[sam]).state_dict(), folder / "sam.pth")


def save_transformers(folder: Path, sam: str) -> None:
    from transformers import (
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        SamConfig,
        SamImageProcessor,
        SamModel,
    )

    backbone = {"model_type": "swin", "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7}
    backbone |= {"out_indices": [2, 3, 4]}
    GroundingDinoForObjectDetection(GroundingDinoConfig(backbone_config=backbone)).save_pretrained(folder / "dino")
    GroundingDinoImageProcessor().save_pretrained(folder / "dino")
    save_text_encoder(folder / "bert")
    for file in (folder / "bert").glob("tokenizer*"):
        file.rename(folder / "dino" / file.name)
    width, depth, heads, everywhere = ENCODERS[sam]
    vision = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads, "mlp_dim": 4 * width}
    config = SamConfig(vision_config=vision | {"global_attn_indexes": everywhere})
    SamModel(config).save_pretrained(folder / "sam")
    SamImageProcessor().save_pretrained(folder / "sam")


def sam3_config(size: int) -> Sam3Config:
    """The published configuration, for images of `size` px a side, one of `SIZES`."""
    from transformers import Sam3Config

    features = [[scale * size // PATCH] * 2 for scale in (4, 2, 1)]
    backbone = {"model_type": "sam3_vit_model", "image_size": size}
    return Sam3Config(vision_config={"backbone_config": backbone, "backbone_feature_sizes": features})


def save_sam3(folder: Path, size: int) -> None:
    from transformers import Sam3ImageProcessor, Sam3Model, Sam3Processor

    from comat.shapes.recipe.tokenizers import clip_tokenizer

    Sam3Model(sam3_config(size)).save_pretrained(folder)
    image, mask = ({"height": side, "width": side} for side in (size, 4 * size // PATCH))
    Sam3Processor(Sam3ImageProcessor(size=image, mask_size=mask), clip_tokenizer()).save_pretrained(folder)


def load_sam3(folder: Path, count: int) -> tuple:
    """What sees images, and what finds `count` nouns in the first of them, with the model as an attribute of each."""
    import torch

    from comat.segmenters.sam3 import Limits, Sam3

    segmenter = Sam3(str(folder), None, Limits(0.3, 0.5, 0.8), torch.device("cpu"), torch.float32)
    kept: list = []
    nouns = ["ball", "cube", "star", "ring", "cross", "cone"][:count]

    def see(images: torch.Tensor, captions: list[str]) -> None:
        kept[:] = [segmenter._see(images)]

    def find(images: torch.Tensor, boxes: list[torch.Tensor]) -> None:
        for place in range(len(images)):
            segmenter._find(kept[0], place, nouns, images.shape[-2:])

    see.model = find.model = segmenter.model  # type: ignore[attr-defined]
    return see, find


def load(kind: str, folder: Path, nouns: int) -> tuple:
    """Detector and masker."""
    import torch

    if kind == "sam3":
        return load_sam3(folder, nouns)
    rest = (0.5, torch.device("cpu"), torch.float32)
    if kind == "grounded_sam":
        from comat.segmenters.grounding_dino import GroundingDino
        from comat.segmenters.sam import SegmentAnything

        files = ("detector.pth", "GroundingDINO_SwinT_OGC.py", str(folder / "bert"), None)
        detector = GroundingDino.load(str(folder), None, *files, torch.device("cpu"))
        return detector, SegmentAnything.load(str(folder), None, "sam.pth", *rest)
    from comat.segmenters.grounded_sam_hf import GroundingDinoHF, SegmentAnythingHF

    return GroundingDinoHF(str(folder / "dino"), None, rest[1]), SegmentAnythingHF(str(folder / "sam"), None, *rest)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """One kind: sizes in MB, CPU seconds a call."""
    import torch

    if options.kind == "sam3":
        save_sam3(folder, options.size)
    else:
        {"grounded_sam": save_packages, "grounded_sam_hf": save_transformers}[options.kind](folder, options.sam)
    weights = [file for suffix in ("pth", "safetensors") for file in folder.rglob(f"*.{suffix}")]
    found = {"weights": sum(file.stat().st_size for file in weights) / 1e6}
    start = time.process_time()
    detector, masker = load(options.kind, folder, options.nouns)
    found["load"] = time.process_time() - start
    for weight in (*detector.model.parameters(), *masker.model.parameters()):
        weight.sum()  # safetensors are mapped: they come into memory when they are first read
    images = torch.rand(options.images, 3, 512, 512)
    captions = ["dog . " * options.nouns] * options.images
    box = torch.tensor([[100.0, 100.0, 400.0, 400.0]])
    boxes = [box.repeat(options.nouns, 1)] * options.images
    for part, call in (("detector", lambda: detector(images, captions)), ("masker", lambda: masker(images, boxes))):
        times = []
        with torch.no_grad(), Peak() as peak:
            for _ in range(options.repeats):
                start = time.process_time()
                call()
                times.append(time.process_time() - start)
        found |= {f"{part} seconds": statistics.median(times), f"{part} peak": peak.megabytes}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sam", choices=ENCODERS, default="vit_b")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--nouns", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, choices=SIZES, default=SIZES[-1], help="px of the image that SAM 3 sees")
    parser.add_argument("--kind", choices=KINDS, help="one of them; none: all, one after the other")
    parser.add_argument("--json", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder of weights goes
    if options.json:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(options, Path(folder))))
        return
    print(f"{'segmenter':<17}{'weights MB':>11}{'load s':>8}{'detector s':>12}{'MB':>7}{'masker s':>10}{'MB':>7}")
    for kind in [options.kind] if options.kind else KINDS:
        command = [sys.executable, "-m", "benchmarks.segmenters", *sys.argv[1:], "--kind", kind, "--json"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        cells = (found[key] for key in ("weights", "load", "detector seconds", "detector peak"))
        print("{:<17}{:>11.0f}{:>8.1f}{:>12.1f}{:>7.0f}".format(kind, *cells), end="")
        print(f"{found['masker seconds']:>10.1f}{found['masker peak']:>7.0f}", flush=True)


if __name__ == "__main__":
    main()
