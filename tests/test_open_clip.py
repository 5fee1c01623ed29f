"""The conversion of HPS v2.1 in docs/benchmarks.md: a state of open_clip becomes the same CLIP of transformers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import CLIPConfig, CLIPModel

from comat.randomness import generator
from tests.conftest import ROOT

LAYERS, WIDTH, HEADS, PATCH, SIDE, D, LENGTH, WORDS = 2, 16, 2, 4, 8, 12, 10, 64


class Block(nn.Module):
    """Of open_clip's names: a layer of a tower."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(WIDTH, 3 * WIDTH), "c_proj": nn.Linear(3 * WIDTH, WIDTH)})

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))


def tower() -> nn.ModuleDict:
    return nn.ModuleDict({"resblocks": nn.ModuleList(Block() for _ in range(LAYERS))})


class Visual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(WIDTH))
        self.positional_embedding = nn.Parameter(torch.empty((SIDE // PATCH) ** 2 + 1, WIDTH))
        self.ln_pre, self.ln_post, self.transformer = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), tower()
        self.proj = nn.Parameter(torch.empty(WIDTH, D))

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.conv1(pixels).flatten(2).mT
        first = self.class_embedding.expand(len(pixels), 1, WIDTH)
        x = self.ln_pre(torch.cat([first, patches], 1) + self.positional_embedding)
        for block in self.transformer["resblocks"]:
            x = block(x, None)
        return self.ln_post(x[:, 0]) @ self.proj


class OpenClip(nn.Module):
    """A CLIP as open_clip names and computes it (its `CLIP` with the configuration of ViT-H-14, made small)."""

    def __init__(self) -> None:
        super().__init__()
        self.visual, self.transformer, self.ln_final = Visual(), tower(), nn.LayerNorm(WIDTH)
        self.token_embedding = nn.Embedding(WORDS, WIDTH)
        self.positional_embedding = nn.Parameter(torch.empty(LENGTH, WIDTH))
        self.text_projection = nn.Parameter(torch.empty(WIDTH, D))
        self.logit_scale = nn.Parameter(torch.empty(()))

    def texts(self, ids: Tensor) -> Tensor:
        """Of each text what stands at its end, whose number is the highest."""
        x = self.token_embedding(ids) + self.positional_embedding
        mask = torch.full((LENGTH, LENGTH), float("-inf")).triu(1)
        for block in self.transformer["resblocks"]:
            x = block(x, mask)
        return self.ln_final(x)[torch.arange(len(ids)), ids.argmax(1)] @ self.text_projection


@torch.no_grad()
def test_the_conversion_in_the_documentation_gives_the_same_cosines(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, random = OpenClip().eval(), generator(0, "weights")
    for weight in original.parameters():
        weight.copy_(torch.randn(weight.shape, generator=random) / 2)
    torch.save({"state_dict": original.state_dict()}, tmp_path / "HPS_v2.1_compressed.pt")
    own = {"hidden_size": WIDTH, "intermediate_size": 3 * WIDTH, "num_hidden_layers": LAYERS}
    own |= {"num_attention_heads": HEADS, "hidden_act": "gelu"}
    text = own | {"vocab_size": WORDS, "max_position_embeddings": LENGTH, "eos_token_id": 2}
    vision = own | {"image_size": SIDE, "patch_size": PATCH}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=D)
    for path in (tiny / "clip").iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    config.save_pretrained(tmp_path)
    recipe = next(block for block in _blocks() if "HPS_v2.1" in block)
    monkeypatch.chdir(tmp_path)
    exec(recipe.replace("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", str(tmp_path)), {})
    converted = CLIPModel.from_pretrained("models/hps-v2.1").eval()
    pixels = torch.randn(3, 3, SIDE, SIDE, generator=random)
    ids = torch.randint(3, WORDS - 1, (4, LENGTH), generator=random)
    ids[torch.arange(4), torch.tensor([9, 4, 6, 2])] = WORDS - 1
    seen, read = original.visual(pixels), original.texts(ids)
    cosines = F.normalize(seen, dim=1) @ F.normalize(read, dim=1).T
    found = converted(pixel_values=pixels, input_ids=ids)
    assert_close(found.image_embeds @ found.text_embeds.T, cosines, atol=1e-5, rtol=0)
    assert cosines.std() > 0.05
    assert_close(converted.logit_scale, original.logit_scale)


def _blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs/benchmarks.md").read_text(), re.DOTALL)
