"""Fixtures: tiny models, written once a session, and parameters that use them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from comat.params import Params, load
from tests import tiny_models

torch.set_num_threads(1)
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny models: sdxl, sd15, blip, clipseg."""
    root = tmp_path_factory.mktemp("models")
    tiny_models.save_sdxl(root / "sdxl")
    tiny_models.save_sd15(root / "sd15")
    tiny_models.save_blip(root / "blip")
    tiny_models.save_clipseg(root / "clipseg")
    return root


@pytest.fixture(scope="session")
def make_params(tiny: Path) -> Callable[..., Params]:
    """The committed parameters on tiny models, with some values changed."""

    def make(**changes: object) -> Params:
        values = load(ROOT / "params.yaml").model_dump()
        values |= {
            "base_model": str(tiny / "sdxl"),
            "discriminator_model": str(tiny / "sdxl"),
            "captioner_model": str(tiny / "blip"),
            "segmenter_model": str(tiny / "clipseg"),
            "resolution": 16,
            "native_resolution": 32,
            "sampling_steps": 6,
            "grad_steps": 3,
            "attribute_steps": 2,
            "lora_rank": 2,
            "global_batch": 3,
            "image_batch": 2,
        }
        return Params.model_validate({**values, **changes})

    return make
