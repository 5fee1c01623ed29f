"""Models that cannot be had: one line that says which part, why, and what to do; by the errors of the hub's own client.

A local server answers as the hub does, so that nothing leaves the machine and nothing is mocked.
"""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BlipForConditionalGeneration, CLIPTextModelWithProjection

from comat.captioners.load import load_captioner
from comat.diffusion.backbones import Backbone, load_base
from comat.diffusion.backbones.autoencoder import encode_images, load_vae
from comat.errors import UserError
from comat.estimate.meta import meta_backbone
from comat.models.loading import INDEX, load_model, loaded
from comat.randomness import generator
from tests.tiny_models import one_captioner

ANSWERS = {
    "gated": (403, "GatedRepo"),
    "missing": (401, "RepoNotFound"),
    "revised": (404, "RevisionNotFound"),
}


class Hub(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, code = next(answer for name, answer in ANSWERS.items() if name in self.path)
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The client's endpoint is a server of our own."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    yield
    server.shutdown()
    server.server_close()


REMEDIES = {
    "gated": r"it is gated; accept its licence at https://huggingface.co/user/gated, then `hf auth login`",
    "missing": "no such repository, or a private one; check the id, or `hf auth login`",
    "revised": "it has no such revision; check the revision",
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_the_hub_refuses_is_named_with_a_remedy(hub: None, answer: str, tmp_path: Path) -> None:
    model, cache = f"user/{answer}", str(tmp_path / "cache")
    with pytest.raises(UserError, match=REMEDIES[answer]) as caught:
        loaded(model, "unet", lambda: UNet2DConditionModel.load_config(model, subfolder="unet", cache_dir=cache))
    assert str(caught.value).startswith(f"model '{model}': cannot load unet: ")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=REMEDIES[answer]):
        loaded(model, "tokenizer", lambda: AutoTokenizer.from_pretrained(model, cache_dir=cache))


def test_without_a_network_the_cache_is_asked_and_then_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="the hub cannot be reached and the files are not in its cache; run `hf down"):
        load_base("user/offline")
    with pytest.raises(UserError, match="hub cannot be reached"):
        load_captioner(one_captioner("blip", "user/offline"), torch.device("cpu"), torch.float32)


def test_a_folder_that_is_not_there_is_no_hub_id(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder, and it is no hub id"):
        load_base(str(tmp_path / "nothing" / "here"))


@pytest.mark.parametrize(
    ("kind", "model", "found"),
    [("blip", "clipseg", "expected blip, found clipseg"), ("git", "blip", "expected git, found blip")],
)
def test_a_model_of_another_class_is_an_error(tiny: Path, kind: str, model: str, found: str) -> None:
    with pytest.raises(UserError, match=f"is of another architecture: {found}"):
        load_captioner(one_captioner(kind, tiny / model), torch.device("cpu"), torch.float32)


def test_a_unet_in_the_place_of_the_autoencoder_is_an_error(tiny: Path) -> None:
    with pytest.raises(UserError, match="vae is of another architecture: expected AutoencoderKL, found UNet2DCond"):
        load_base(str(tiny / "sdxl"), vae=str(tiny / "sdxl" / "unet"))


@pytest.mark.parametrize("load", [load_base, lambda model: meta_backbone(model, None, None, None, "fp32")])
def test_an_sdxl_without_its_second_text_encoder_is_an_error(
    tiny: Path, tmp_path: Path, load: Callable[[str], Backbone]
) -> None:
    shutil.copytree(tiny / "sdxl", tmp_path / "half")
    path = tmp_path / "half" / INDEX
    path.write_text(json.dumps(json.loads(path.read_text()) | {"text_encoder_2": None}))
    with pytest.raises(UserError, match=r"half': its unet reads what text_encoder_2 says: expected it in model_index"):
        load(str(tmp_path / "half"))


def test_weights_that_are_missing_are_never_random(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "blip", tmp_path / "blip")
    path = tmp_path / "blip" / "model.safetensors"
    weights = load_file(path)
    save_file({k: v for k, v in weights.items() if "text_decoder" not in k}, path, {"format": "pt"})
    with pytest.raises(UserError, match=r"BLIP lacks \d+ weights of a BlipForConditionalGeneration, text_decoder"):
        load_model(BlipForConditionalGeneration, str(tmp_path / "blip"), part="BLIP", dtype=torch.float32)


def test_a_text_encoder_without_its_projection_is_an_error(tiny: Path) -> None:
    with pytest.raises(UserError, match=r"text_encoder lacks 1 weights of a CLIPTextModelWithProjection"):
        load_model(
            CLIPTextModelWithProjection,
            str(tiny / "sdxl"),
            part="text_encoder",
            subfolder="text_encoder",
            dtype=torch.float32,
        )


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_another_autoencoder_takes_the_place_of_the_models_own(tiny: Path, precision: str) -> None:
    backbone = load_base(str(tiny / "sdxl"), vae=str(tiny / "sd15" / "vae"), precision=precision)
    own = load_file(tiny / "sd15" / "vae" / "diffusion_pytorch_model.safetensors")
    weights = backbone.vae.state_dict()
    assert {w.dtype for w in (*weights.values(), *backbone.denoiser.parameters())} == {backbone.dtype}
    assert all(torch.equal(weights[name], value.to(backbone.dtype)) for name, value in own.items())


def test_the_autoencoder_alone_needs_no_other_part(tiny: Path, tmp_path: Path) -> None:
    """A folder that holds nothing else; images are encoded as the whole model encodes them."""
    shutil.copytree(tiny / "sdxl" / "vae", tmp_path / "vae")
    images = torch.rand(2, 3, 16, 16, generator=generator(0, "images"))
    vae = load_vae(str(tmp_path), None, None, None, "fp32", "cpu")
    assert torch.equal(encode_images(vae, images), load_base(str(tiny / "sdxl")).encode_images(images))
    other = load_vae("nobody/nothing", None, str(tmp_path / "vae"), None, "bf16", "cpu")
    assert other.dtype == torch.bfloat16
