"""Prompt embeddings made beforehand: the same bytes as with the text encoders, which nobody loads then."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from ruamel.yaml import YAML

from comat.diffusion.backbones import load_base, load_encoders
from comat.diffusion.embeddings import NOT_STORED, as_tensors, embedding_id, stored_in
from comat.discriminators import load_discriminator
from comat.errors import UserError
from comat.estimate.calls import ENCODERS, measure
from comat.estimate.memory import held, needs
from comat.estimate.plan import Counts, disk, work
from comat.running.distributed import Processes
from comat.samples import prompt_files
from comat.storage.tensor_store import TensorStore, TensorStoreWriter
from tests.conftest import run, write_inputs
from tests.processes import finish, start
from tests.tiny_families import save_flux_dev, save_pixart_sigma, save_sd3

PROMPTS = ["", "a red ball and a blue cube", "two green stars"]
FAMILIES = {"sd3": save_sd3, "pixart": save_pixart_sigma, "flux": save_flux_dev}


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(params=[*FAMILIES, "sd15", "sdxl"])
def model(request: pytest.FixtureRequest, tmp_path: Path, tiny: Path) -> Path:
    save = FAMILIES.get(request.param)
    return save(tmp_path / "model") if save else tiny / request.param


def fill(folder: Path, model: Path) -> Path:
    encode, writer = load_encoders(str(model)), TensorStoreWriter(folder, 2)
    for prompt in PROMPTS:
        writer.add(embedding_id(prompt), as_tensors(encode([prompt])), prompt)
    writer.close()
    return folder


def test_a_stored_prompt_is_the_encoded_one(tmp_path: Path, model: Path) -> None:
    """Bit for bit, alone and among others, that of no prompt too, without the text encoders' files."""
    whole = load_base(str(model))
    store = fill(tmp_path / "store", model)
    without = shutil.copytree(model, tmp_path / "without")
    for weights in without.glob("text_encoder*/*.safetensors"):
        weights.unlink()
    light = load_base(str(without), stored=stored_in(store))
    assert light.text_encoders == []
    for found, expected in (
        (light.encode_prompts(PROMPTS[1:]), whole.encode_prompts(PROMPTS[1:])),
        (light.encode_prompts(PROMPTS[2:]), whole.encode_prompts(PROMPTS[1:])[1:]),
        (light.null, whole.null),
    ):
        for name in ("tokens", "pooled", "mask"):
            ours, theirs = getattr(found, name), getattr(expected, name)
            assert (ours is None) == (theirs is None) and (ours is None or torch.equal(ours, theirs)), name
    assert light.words(PROMPTS[1]) == whole.words(PROMPTS[1])


def test_a_prompt_that_is_not_there_is_one_line(tmp_path: Path, tiny: Path) -> None:
    light = load_base(str(tiny / "sd15"), stored=stored_in(fill(tmp_path / "store", tiny / "sd15")))
    with pytest.raises(UserError, match=r"no embeddings of the prompt 'a wet dog'.*dvc repro prompt_embeddings"):
        light.encode_prompts(["two green stars", "a wet dog"])


def test_a_discriminator_of_the_same_model_loads_no_encoders_either(tmp_path: Path, tiny: Path, make_params) -> None:
    stored = stored_in(fill(tmp_path / "store", tiny / "sd15"))
    light = load_base(str(tiny / "sd15"), stored=stored)
    p = make_params(discriminator_model=str(tiny / "sd15"))
    own = {"lora_rank": 2, "precision": "fp32", "checkpointed": False}
    z = torch.randn(2, 4, 8, 8)
    judged = [load_discriminator(p, light, torch.Generator(), **own, stored=one)(z) for one in (stored, None)]
    assert torch.equal(*judged)


@pytest.fixture(scope="module")
def stored_and_not(tmp_path_factory: pytest.TempPathFactory, tiny: Path, make_params) -> dict[bool, Path]:
    """Two projects on Stable Diffusion 3 that differ in `prompt_embeddings.store` alone, up to the trained LoRA's
    samples."""
    from tests.conftest import STAGES, small

    roots = {}
    base = save_sd3(tmp_path_factory.mktemp("sd3"))
    for store in (False, True):
        root = roots[store] = tmp_path_factory.mktemp("project")
        write_inputs(root, tiny)
        same = {"base_model": str(base), "discriminator_model": str(base), "scheduler": "model"}
        values = small(make_params(**same, train_steps=2).model_dump(), tiny)
        values["warmup"] |= {"steps": 0}
        values["prompt_embeddings"] |= {"store": store, "shard_size": 4}
        values["train"]["preview"] |= {"prompts": ["two green stars", "a ball that is in no list"]}
        YAML().dump(values, root / "params.yaml")
        for stage in STAGES[:-1]:
            run(stage, root)
    return roots


def test_every_stage_leaves_the_same_bytes_with_and_without(stored_and_not: dict[bool, Path]) -> None:
    without, stored = (stored_and_not[kind] for kind in (False, True))
    assert files(without / "data/prompt_embeddings").keys() == {NOT_STORED}
    found = TensorStore(stored / "data/prompt_embeddings")
    captions = [found.caption(id) for id in found.ids]
    assert captions[0] == "" and len(captions) == len(set(captions)) and "two green stars" in captions
    pictures = TensorStore(stored / "data/image_latents")
    assert {pictures.caption(id) for id in pictures.ids} <= set(captions)
    for out in ("reference_latents", "base_samples", "train/lora", "train/discriminator", "samples"):
        assert files(without / "data" / out) == files(stored / "data" / out), out
    for file in ("curves.csv", "preview.html"):  # of which a prompt is of no list
        assert (without / "data/train" / file).read_bytes() == (stored / "data/train" / file).read_bytes(), file
    assert "a ball that is in no list" in captions


def test_two_processes_store_the_same_bytes(stored_and_not: dict[bool, Path], tmp_path: Path) -> None:
    root = tmp_path / "p"
    shutil.copytree(stored_and_not[True], root, ignore=shutil.ignore_patterns(".work"))
    shutil.rmtree(root / "data/prompt_embeddings")
    assert finish(start(2, run, "prompt_embeddings", root)) == [0, 0]
    assert files(root / "data/prompt_embeddings") == files(stored_and_not[True] / "data/prompt_embeddings")


def test_the_estimate_counts_the_store(stored_and_not: dict[bool, Path]) -> None:
    """Its bytes are those of the tensors; no stage but its own holds the encoders."""
    from comat.params import load

    root = stored_and_not[True]
    p = load(root / "params.yaml")
    calls = measure(p)
    store = TensorStore(root / "data/prompt_embeddings")
    bytes_there = sum(part.nbytes for id in store.ids for part in store[id].values())
    assert calls.embedding * len(store) == bytes_there
    known = Counts(train=4, test=2, images=5)
    assert disk(p, calls, known)["prompt_embeddings"] == (1 + 4 + 2 + 5) * calls.embedding
    assert (work(p, calls, known)["prompt_embeddings"] or 0) > 0
    assert ENCODERS not in held(p, calls)
    holding = [need.stage for need in needs(p, calls) if ENCODERS in need.parts]
    assert holding == ["prompt_embeddings"]
    plain = load(stored_and_not[False] / "params.yaml")
    assert ENCODERS in held(plain, calls) and disk(plain, calls, known)["prompt_embeddings"] == 0


@pytest.mark.parametrize("stage", ["prompt_embeddings", "base_samples"])
def test_prompts_of_benchmarks_are_part_of_what_goes_on(
    stored_and_not: dict[bool, Path], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """A run that was ended goes on with the same prompts only, whichever file they are from."""
    seen: list[Mapping[str, object]] = []

    def directory(self: Processes, name: str, values: Mapping[str, object], *rest: object) -> NoReturn:
        seen.append(values)
        raise UserError("enough")

    monkeypatch.setattr(Processes, "directory", directory)
    row = {"source": "geneval", "category": "c", "split": "test"}
    for text in ("one", "another"):
        rows = [{"id": text, "text": text, **row}]
        monkeypatch.setattr(prompt_files, "benchmark_prompts", lambda *args, rows=rows: rows)
        with pytest.raises(SystemExit):
            run(stage, stored_and_not[True])
    assert seen[0] != seen[1] and "'another'" in str(seen[1]) and "'another'" not in str(seen[0])
