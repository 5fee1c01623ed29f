"""What real sizes waste, before and after: seconds of CPU or memory, both ways in one run.

    python -m benchmarks.waste [--only lora boxes hash state publish]

`lora`: loading a LoRA of rank 128 onto SDXL's UNet, drawing weights first (twice: by peft, then its A) and not.
`boxes`: Segment Anything's decoder at its published size filling 235 boxes of an image of 512 px, at once and in
chunks. `hash`: a file of 1 GB, read whole and in pieces, then remembered. `state`: a state of 1 GB written from one
copy in memory, and streamed. `publish`: a folder of 1 GB copied into place, and linked.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from peft import LoraConfig
from torch import nn

from benchmarks.replay_memory import Peak
from comat.diffusion import lora
from comat.diffusion.backbones import Backbone
from comat.estimate import architectures
from comat.models import sums
from comat.running.stage import publish
from comat.storage.tables import write_safetensors
from comat.tokenizers import load_tokenizers
from comat.training.checkpoint import write_state

COUNT = 235
"""Boxes of a noun that were found in one image."""


def seconds(call: Callable[[], object]) -> float:
    """CPU time, all threads."""
    start = time.process_time()
    call()
    return time.process_time() - start


def peak(call: Callable[[], object]) -> float:
    """GB of resident memory above what was there."""
    with Peak() as found:
        call()
    return found.megabytes / 1e3


def sdxl() -> Backbone:
    """Its UNet in memory, the rest on the meta device."""
    (tokenizer, *_) = load_tokenizers("data/shapes/models/base")
    model = architectures.meta(architectures.build_backbone, "sdxl", tokenizer)
    model.denoiser.to_empty(device="cpu").requires_grad_(False)  # pages that nobody touches take no memory
    return model


def measure_lora(folder: Path) -> None:
    first = sdxl()
    weights = lora._put_lora(first, 128)
    for _, weight in weights:
        weight.data.zero_()
    lora.export_lora(first, folder)

    def drawn(model: Backbone, rank: int) -> list[tuple[str, nn.Parameter]]:
        targets = list(model.LORA_TARGETS)
        model.denoiser.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets))
        found = [(name, weight) for name, weight in model.denoiser.named_parameters() if "lora_" in name]
        for name, weight in found:
            weight.data = torch.randn(weight.shape) / rank if "lora_A" in name else torch.zeros(weight.shape)
        return found

    with mock.patch.object(lora, "_put_lora", drawn):
        model = sdxl()
        before = seconds(lambda: lora.load_lora(model, folder))
    model = sdxl()
    after = seconds(lambda: lora.load_lora(model, folder))
    print(f"loading a LoRA onto SDXL's UNet: {before:.1f} s, {after:.1f} s of CPU ({after / before:.2f})")


def measure_boxes(folder: Path) -> None:
    from transformers import SamConfig, SamImageProcessor, SamModel

    from comat.segmenters import grounded_sam_hf

    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 32}
    SamModel(SamConfig(vision_config=vision | {"global_attn_indexes": []})).save_pretrained(folder)
    SamImageProcessor().save_pretrained(folder)
    masker = grounded_sam_hf.SegmentAnythingHF(str(folder), None, 0.5, torch.device("cpu"), torch.float32)
    corners = torch.rand(COUNT, 2) * 256
    boxes, image = torch.cat([corners, corners + 200], 1), torch.rand(1, 3, 512, 512)
    found = {}
    for count in (grounded_sam_hf.BOXES, COUNT):  # the smaller first: what was freed is not given back to the system
        with mock.patch.object(grounded_sam_hf, "BOXES", count), torch.no_grad():
            found[count] = peak(lambda: masker(image, [boxes]))
    after, before = found.values()
    print(f"filling {COUNT} boxes: {before:.2f} GB, {after:.2f} GB ({after / before:.2f})")


def big_file(path: Path) -> Path:
    with path.open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(1 << 24))
    return path


def measure_hash(folder: Path) -> None:
    path = big_file(folder / "weights")
    time.sleep(2 * sums.SETTLED)
    with mock.patch.dict(os.environ, {"COMAT_WORK_DIR": str(folder / "work")}):
        held = peak(lambda: sums.sum_of_file(path))
        whole = peak(lambda: hashlib.sha256(path.read_bytes()))
        shutil.rmtree(folder / "work")
        before, after = seconds(lambda: sums.sum_of_file(path)), seconds(lambda: sums.sum_of_file(path))
    print(f"the sha256 of 1 GB: {before:.2f} s, then {after:.4f} s; {whole:.2f} GB held, {held:.2f} GB in pieces")


def measure_state(folder: Path) -> None:
    tensors = {f"w{i}": torch.randn(16, 1024, 1024) for i in range(16)}
    sha = hashlib.sha256().hexdigest()
    after = peak(lambda: write_state(folder / "after", tensors, {"step": 1}))
    before = peak(lambda: write_safetensors(folder / "before", tensors, {"sha256": sha}))
    print(f"writing a state of 1.07 GB: {before:.2f} GB, {after:.2f} GB beside it")


def measure_publish(folder: Path) -> None:
    (folder / "work").mkdir()
    big_file(folder / "work/weights")

    def elapsed(call: Callable[[], object]) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    before = elapsed(lambda: shutil.copytree(folder / "work", folder / "copied"))
    after = elapsed(lambda: publish(folder / "work", folder / "linked"))
    print(f"putting 1.07 GB in place: {before:.2f} s, {after:.4f} s")


MEASURES = {
    "lora": measure_lora,
    "boxes": measure_boxes,
    "hash": measure_hash,
    "state": measure_state,
    "publish": measure_publish,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=tuple(MEASURES), default=tuple(MEASURES))
    for part in parser.parse_args().only:
        with tempfile.TemporaryDirectory() as folder:
            MEASURES[part](Path(folder))


if __name__ == "__main__":
    main()
