"""models.lock.json: the used files of every model, their sha256 and commit; and what is bound to them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from comat.errors import UserError
from comat.models import sums
from comat.models.download import find_model
from comat.models.files import used_files
from comat.models.lock import TOKENIZERS, pinned
from comat.models.names import ModelName
from comat.models.record import write_lock
from comat.models.sums import PIECE, sum_of_file
from comat.params import Params
from comat.running.workdir import sum_of
from tests.tiny_hub import COMMIT, Hub, serving

UNUSED = ("unet/diffusion_pytorch_model.fp16.safetensors", "text_encoder/pytorch_model.bin", "all.safetensors", "a.md")


@pytest.fixture
def params(tiny: Path, make_params) -> Params:
    from comat.shapes.recipe import features
    from comat.shapes.recipe.__main__ import save

    if not (tiny / "features").is_dir():
        save(features.build(), tiny / "features", processor="ConvNextImageProcessor")
    values = make_params().model_dump()
    return Params.model_validate(
        {
            **values,
            "evaluate": values["evaluate"]
            | {"frechet": {"feature_model": str(tiny / "features"), "feature_revision": None}},
        }
    )


@pytest.fixture
def hub(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that serves an SDXL pipeline with more files than are used, and an empty cache."""
    shutil.copytree(tiny / "sdxl", tmp_path / "served/user/sdxl")
    for name in UNUSED:
        (tmp_path / "served/user/sdxl" / name).write_bytes(b"never read")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with serving(tmp_path / "served") as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server


def lock(params: Params, out: Path) -> dict:
    write_lock(params, out)
    return json.loads((out / "models.lock.json").read_text())


def test_a_folder_is_recorded_by_the_sha256_of_each_used_file(params: Params, tiny: Path, tmp_path: Path) -> None:
    entry = lock(params, tmp_path)["captioner_model"]
    weights = (tiny / "blip/model.safetensors").read_bytes()
    expected = {"sha256": hashlib.sha256(weights).hexdigest(), "bytes": len(weights)}
    assert entry["files"]["model.safetensors"] == expected
    assert list(entry["files"]) == sorted(entry["files"]) and "preprocessor_config.json" in entry["files"]
    assert (entry["id"], entry["commit"]) == (str(tiny / "blip"), None)
    # As `sha256sum FILE… | sha256sum` in the folder.
    lines = "".join(f"{file['sha256']}  {name}\n" for name, file in entry["files"].items())
    assert entry["sha256"] == hashlib.sha256(lines.encode()).hexdigest()


def test_equal_files_give_equal_bytes(params: Params, tmp_path: Path) -> None:
    for out in ("a", "b"):
        write_lock(params, tmp_path / out)
    assert (tmp_path / "a/models.lock.json").read_bytes() == (tmp_path / "b/models.lock.json").read_bytes()


def test_a_role_without_a_model_has_an_entry_of_nulls(params: Params, tmp_path: Path) -> None:
    expected = {"id": None, "revision": None, "commit": None, "sha256": None, "files": {}}
    assert lock(params, tmp_path)["vae"] == expected


def test_another_autoencoder_leaves_the_own_one_unused(params: Params, tiny: Path, tmp_path: Path) -> None:
    entries = lock(params.model_copy(update={"vae": str(tiny / "sd15/vae")}), tmp_path)
    assert list(entries["vae"]["files"]) == ["config.json", "diffusion_pytorch_model.safetensors"]
    assert not [name for name in entries["base_model"]["files"] if name.startswith("vae/")]


def test_only_the_used_files_are_downloaded_and_only_once(hub: Hub, tiny: Path) -> None:
    model = ModelName("base_model", "user/sdxl", None)
    folder, commit = find_model(model)
    assert commit == COMMIT
    assert used_files(folder) == used_files(tiny / "sdxl")
    assert "unet/diffusion_pytorch_model.safetensors" in hub.sent and set(hub.sent) <= set(used_files(folder))
    hub.sent.clear()
    assert find_model(model) == (folder, commit) and not hub.sent


def test_a_model_of_the_hub_is_pinned_to_its_commit(hub: Hub, params: Params, tmp_path: Path) -> None:
    here = params.model_copy(update={"base_model": "user/sdxl"})
    entry = lock(here, tmp_path)["base_model"]
    assert (entry["id"], entry["revision"], entry["commit"]) == ("user/sdxl", None, COMMIT)
    assert entry["sha256"] == lock(params, tmp_path / "local")["base_model"]["sha256"]
    assert pinned(here, tmp_path, "base_model", "vae").base_revision == COMMIT
    assert pinned(here, tmp_path, "captioner_model").base_revision is None


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [
        ("gated/model", None, r"it is gated; accept its licence at http.*/gated/model, then `hf auth login`"),
        ("user/none", None, "no such repository, or a private one; check the id"),
        ("user/sdxl", "v9", "it has no such revision"),
        ("no/such/folder", None, "there is no such folder, and it is no hub id"),
    ],
)
def test_what_the_hub_refuses_has_a_remedy(hub: Hub, name: str, revision: str | None, message: str) -> None:
    with pytest.raises(UserError, match=f"model '{name}': cannot load captioner_model: {message}") as caught:
        find_model(ModelName("captioner_model", name, revision))
    assert "\n" not in str(caught.value)


def test_without_a_network_the_cache_is_used_and_then_the_remedy_named(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ModelName("base_model", "user/sdxl", None)
    before = find_model(model)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert find_model(model) == before
    with pytest.raises(UserError, match=r"the hub cannot be reached .*; run `hf download user/other`"):
        find_model(ModelName("base_model", "user/other", None))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="the hub cannot be reached"):
        find_model(ModelName("base_model", "user/other", None))


def test_a_part_without_safetensors_is_named(tiny: Path, tmp_path: Path) -> None:
    model = tmp_path / "sdxl"
    shutil.copytree(tiny / "sdxl", model)
    (model / "unet/diffusion_pytorch_model.safetensors").rename(model / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match=r"its part unet has no .*, only diffusion_pytorch_model.bin; save the weights"):
        find_model(ModelName("base_model", str(model), None))
    (model / "unet/diffusion_pytorch_model.bin").unlink()
    with pytest.raises(UserError, match="its part unet has no weights"):
        find_model(ModelName("base_model", str(model), None))
    with pytest.raises(UserError, match=r"it has no config\.json"):
        find_model(ModelName("base_model", str(tmp_path), None))


def test_a_missing_shard_is_named(tiny: Path, tmp_path: Path) -> None:
    model = tmp_path / "blip"
    shutil.copytree(tiny / "blip", model)
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(UserError, match="lacks 1 of 2 files of weights, model-00002-of-00002"):
        find_model(ModelName("captioner_model", str(model), None))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("model_index.json", "null", "not an index of a pipeline: Input should be an object"),
        ("model.safetensors.index.json", "{}", "not an index of weights: weight_map: Field required"),
        ("model.safetensors.index.json", '{"weight_map": [', "not an index of weights: Invalid JSON"),
    ],
)
def test_a_malformed_index_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=rf"{name}: {message}.*; download the model again"):
        find_model(ModelName("captioner_model", str(tmp_path), None))


def test_a_changed_folder_is_not_what_was_recorded(params: Params, tiny: Path, tmp_path: Path) -> None:
    model = tmp_path / "blip"
    shutil.copytree(tiny / "blip", model)
    here = params.model_copy(update={"captioner_model": str(model)})
    write_lock(here, tmp_path)
    assert pinned(here, tmp_path, "captioner_model") == here
    data = bytearray((model / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (model / "model.safetensors").write_bytes(data)
    with pytest.raises(UserError, match=r"model\.safetensors: not the file that .* recorded; if it should be, run"):
        pinned(here, tmp_path, "captioner_model")
    assert pinned(here, tmp_path, "base_model") == here


def test_what_reads_tokenizers_alone_looks_at_nothing_else(params: Params, tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny / "sdxl", tmp_path / "base")
    here = params.model_copy(update={"base_model": str(folder)})
    write_lock(here, tmp_path)
    weights, vocabulary = folder / "unet/diffusion_pytorch_model.safetensors", folder / "tokenizer/tokenizer.json"
    weights.write_bytes(weights.read_bytes()[::-1])
    assert pinned(here, tmp_path, "base_model", within=TOKENIZERS) == here
    with pytest.raises(UserError, match="diffusion_pytorch_model"):
        pinned(here, tmp_path, "base_model")
    vocabulary.write_text(vocabulary.read_text() + " ")
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        pinned(here, tmp_path, "base_model", within=TOKENIZERS)


def test_a_large_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until its size or its times change; a memory that is damaged costs a reading, no more."""
    monkeypatch.setenv("COMAT_WORK_DIR", str(tmp_path / "work"))
    path = tmp_path / "weights"
    reads: list[int] = []

    def summed(expected: bytes, pieces: int) -> None:
        reads.clear()
        assert sum_of_file(path, reads.append) == hashlib.sha256(expected).hexdigest()
        assert len(reads) == pieces and sum(reads) == len(expected)

    data = bytes(PIECE) + b"a"
    path.write_bytes(data)
    summed(data, 2)
    summed(data, 2)  # written just now: it may change within the same tick of the clock
    monkeypatch.setattr(sums, "SETTLED", 0.05)
    time.sleep(0.1)
    summed(data, 2)
    summed(data, 1)
    (memory,) = (tmp_path / "work/sums").iterdir()
    memory.write_text("{")
    summed(data, 2)
    summed(data, 1)
    changed, times = data[:-1] + b"b", path.stat()
    path.write_bytes(changed)
    os.utime(path, (times.st_atime, times.st_mtime))  # of the same size and, as it says, time
    time.sleep(0.1)
    summed(changed, 2)
    summed(changed, 1)


def test_an_experiment_remembers_in_the_project_of_whose_copy_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sums, "SETTLED", -1.0)
    (tmp_path / "weights").write_bytes(bytes(PIECE) + b"a")
    reads: list[int] = []
    for number in range(2):
        copy = tmp_path / f"project/.dvc/tmp/exps/tmp{number}"
        copy.mkdir(parents=True)
        monkeypatch.chdir(copy)
        sum_of_file(tmp_path / "weights", reads.append)
    assert reads == [PIECE, 1, PIECE + 1]
    assert len(list((tmp_path / "project/.work/sums").iterdir())) == 1


def test_where_nothing_can_be_remembered_the_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").write_text("a file where a folder should be")
    monkeypatch.setenv("COMAT_WORK_DIR", str(tmp_path / "work"))
    monkeypatch.setattr(sums, "SETTLED", -1.0)
    (tmp_path / "weights").write_bytes(bytes(PIECE))
    assert sum_of_file(tmp_path / "weights") == hashlib.sha256(bytes(PIECE)).hexdigest()


def test_a_lock_of_other_models_and_a_missing_lock_are_errors(params: Params, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"models\.lock\.json: missing; run `dvc repro models`"):
        pinned(params, tmp_path, "base_model")
    write_lock(params, tmp_path)
    file = tmp_path / "models.lock.json"
    whole = file.read_text()
    for text in (whole[:-9], "[]", whole.replace('"files"', '"file"')):
        file.write_text(text)
        with pytest.raises(UserError, match=r"models\.lock\.json: not a record of models: .*; run `dvc repro --force"):
            pinned(params, tmp_path, "base_model")
    file.write_text(whole)
    other = params.model_copy(update={"base_model": str(tiny / "sd15")})
    with pytest.raises(UserError, match=r"base_model is .*sd15.*, recorded is .*sdxl.*; run `dvc repro --force"):
        pinned(other, tmp_path, "base_model")


def test_linked_parts_of_a_model_are_used_and_hashed(base: Path, tmp_path: Path) -> None:
    """A part on another disk: its weights were in no checksum, and in no merged pipeline."""
    before = used_files(base), sum_of(base)
    (base / "unet").rename(tmp_path / "elsewhere")
    (base / "unet").symlink_to(tmp_path / "elsewhere")
    (base / "unet/up").symlink_to(base)  # leads to where it stands
    (base / "itself").symlink_to("itself")
    assert (used_files(base), sum_of(base)) == before
    weights = tmp_path / "elsewhere/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    assert sum_of(base) != before[1]
