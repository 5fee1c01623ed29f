"""The shapes world's captioners: what they are taught is what the pipeline asks of them, by the files they leave."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.testing import assert_close

from comat.captioners.load import load_captioner
from comat.shapes.recipe import captioner, git
from comat.shapes.recipe.__main__ import RUN
from comat.shapes.recipe.data import clean_examples
from comat.shapes.recipe.tokenizers import bert_tokenizer
from tests.tiny_models import one_captioner

PROMPTS = ["a red ball", "two green stars", "a small blue cross on the left of an orange ring"]


@pytest.mark.parametrize(("kind", "stage", "module"), [("blip", "captioner", captioner), ("git", "git", git)])
def test_a_captioner_is_taught_what_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, stage: str, module: ModuleType
) -> None:
    """The loss of the recipe is the captioner's, on the model as it is saved: in half precision."""
    few = lambda count, seed, weights: clean_examples(96, seed, weights)  # noqa: E731
    monkeypatch.setattr(captioner, "clean_examples", few)
    RUN[stage]({"steps": 2, "precision": "fp32"}, tmp_path, tmp_path / "work")
    asked = load_captioner(one_captioner(kind, tmp_path / stage), torch.device("cpu"), torch.float32)
    seen, own = torch.rand(3, 3, 64, 64), bert_tokenizer()
    with torch.no_grad():
        log_p, counts = asked.log_likelihood(seen, PROMPTS)
        ids = own(PROMPTS, padding=True, return_tensors="pt").input_ids
        patches, nll = module.read(asked.model, 2 * seen - 1, ids, own.pad_token_id)
    assert patches.shape == (3, 64, 128)
    assert_close(-nll[counts], log_p[counts], rtol=1e-4, atol=1e-5)
    assert not nll[~counts].any()
