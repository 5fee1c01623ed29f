"""Whatever a file holds, a reader reads it or says in one line which file is wrong; nothing else escapes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from benchmarks.fuzz import FAMILIES, outcome
from benchmarks.fuzz import run as attempts
from comat.corpora.build import READERS
from comat.corpora.pictures.listed import Picture, Place
from comat.corpora.pictures.photos import read_photo
from comat.corpora.pictures.read import pictures_in
from comat.entities.filter import filtered_nouns
from comat.errors import UserError
from comat.models.files import check_complete
from comat.models.lock import FILE, pinned
from comat.models.names import ModelName
from comat.params import PromptSource, load
from comat.storage.images import read_rgb
from comat.storage.tables import ENTITIES, PROMPTS, read_safetensors, read_table, write_table
from comat.storage.tensor_store import TensorStore, TensorStoreWriter
from comat.training.checkpoint import read_state, write_state
from tests.imports import ROOT

FUZZ = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
PLACES = st.lists(st.integers(0, 10**6), min_size=1, max_size=4)


def accepted_or_refused(read: Callable[[], object], path: Path) -> None:
    """Run a reader on a file: it may accept it, or raise one line that names the file (or the folder of a store)."""
    try:
        read()
    except (UserError, OSError) as error:
        text = str(error)
        assert str(path) in text or str(path.parent) in text, text
        assert "\n" not in text and len(text) < 1000, text


def replaced(document: object, places: list[int], new: object) -> object:
    """A copy of a JSON document in which the node that is reached by `places` is another."""
    document = copy.deepcopy(document)
    node, last = document, None
    for place in places:
        if not isinstance(node, dict | list) or not node:
            break
        keys = list(node) if isinstance(node, dict) else range(len(node))
        last = (node, keys[place % len(keys)])
        node = node[last[1]]
    if last is None:
        return new
    last[0][last[1]] = new
    return document


def spoiled(data: bytes, places: list[int], cut: bool) -> bytes:
    """Some bytes replaced, or the end cut off."""
    if cut:
        return data[: places[0] % len(data)]
    changed = bytearray(data)
    for place in places:
        changed[place % len(data)] = place // 7 % 256
    return bytes(changed)


@FUZZ
@given(st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
def test_parameters_of_any_bytes(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(data)
    accepted_or_refused(lambda: load(path), path)


@settings(FUZZ, max_examples=40)
@given(PLACES, JSON)
def test_parameters_with_any_value_anywhere(tmp_path: Path, places: list[int], new: object) -> None:
    values = YAML(typ="safe").load((ROOT / "presets/sdxl.yaml").read_text())
    path = tmp_path / "params.yaml"
    path.write_text(json.dumps(replaced(values, places, new)))
    accepted_or_refused(lambda: load(path), path)


@settings(FUZZ, max_examples=40)
@given(st.binary(max_size=60) | (st.text("[]{}\",:\n\\x0 '", max_size=60) | JSON.map(json.dumps)).map(str.encode))
@pytest.mark.parametrize("format", sorted(set(READERS) - {"hub"}))
def test_corpora_of_any_bytes(tmp_path: Path, format: str, data: bytes) -> None:
    endings = {"t2i_compbench": "color_train.txt", "hrs": "list.csv", "abc6k": "list.txt"}
    path = tmp_path / endings.get(format, f"list.{format}")
    path.write_bytes(data)
    source = PromptSource(name="x", format=format, path=str(path))
    accepted_or_refused(lambda: list(READERS[format](source)), path)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole file of each kind."""
    folder = tmp_path_factory.mktemp("whole")
    row = {"text": "a red ball", "source": "s", "category": "c", "split": "train"}
    write_table(folder / "prompts.parquet", [{**row, "id": str(i)} for i in range(9)], PROMPTS)
    write_state(folder / "state.safetensors", {"a": torch.ones(3), "b": torch.zeros(2, 2)}, {"rows": [1, 2]})
    writer = TensorStoreWriter(folder / "store", 2)
    for id in "abc":
        writer.add(id, {"latents": torch.ones(1, 2, 2)}, "a caption")
    writer.close()
    return folder


@settings(FUZZ, max_examples=120)
@given(PLACES, st.booleans())
def test_tables_of_spoiled_bytes(whole: Path, tmp_path: Path, places: list[int], cut: bool) -> None:
    path = tmp_path / "prompts.parquet"
    path.write_bytes(spoiled((whole / "prompts.parquet").read_bytes(), places, cut))
    accepted_or_refused(lambda: read_table(path, PROMPTS), path)
    source = PromptSource(name="x", format="parquet", path=str(path), column="text")
    accepted_or_refused(lambda: list(READERS["parquet"](source)), path)


@settings(FUZZ, max_examples=120)
@given(PLACES, st.booleans())
def test_safetensors_of_spoiled_bytes(whole: Path, tmp_path: Path, places: list[int], cut: bool) -> None:
    path = tmp_path / "state.safetensors"
    before = (whole / "state.safetensors").read_bytes()
    path.write_bytes(spoiled(before, places, cut))
    accepted_or_refused(lambda: read_safetensors(path), path)
    if path.read_bytes() == before:
        read_state(path)
    else:
        with pytest.raises(UserError, match="this saved state is truncated or damaged"):
            read_state(path)


@FUZZ
@given(PLACES, JSON)
def test_the_note_of_a_shard_with_any_value(whole: Path, tmp_path: Path, places: list[int], new: object) -> None:
    path = tmp_path / "00000.json"
    for file in (whole / "store").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path.write_text(json.dumps(replaced(json.loads(path.read_text()), places, new)))
    accepted_or_refused(lambda: [TensorStore(tmp_path)[id] for id in "abc"], path)
    accepted_or_refused(lambda: TensorStoreWriter(tmp_path, 2), path)


COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
    "annotations": [{"image_id": 1, "caption": "a ball"}, {"image_id": 2, "caption": "a cube"}],
}


@settings(FUZZ, max_examples=80)
@given(PLACES, JSON)
def test_coco_captions_with_any_value(tmp_path: Path, places: list[int], new: object) -> None:
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(replaced(COCO, places, new)))
    accepted_or_refused(lambda: pictures_in(tmp_path, path, 0), path)


@settings(FUZZ, max_examples=80)
@given(st.binary(max_size=60) | (st.text('{}",:\n\\x0 ', max_size=60) | JSON.map(json.dumps)).map(str.encode))
@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "a.txt", "a.tar"])
def test_captions_beside_images_of_any_bytes(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / "set" / name
    path.parent.mkdir(exist_ok=True)
    (path.parent / "a.png").touch()
    path.write_bytes(data)
    accepted_or_refused(lambda: pictures_in(path.parent, None, 0), path)


@settings(FUZZ, max_examples=80)
@given(PLACES, JSON)
def test_metadata_with_any_value(tmp_path: Path, places: list[int], new: object) -> None:
    path = tmp_path / "metadata.jsonl"
    path.write_text(json.dumps(replaced({"file_name": "a.png", "text": ["a ball", "a cube"]}, places, new)))
    accepted_or_refused(lambda: pictures_in(tmp_path, None, 0), path)


@settings(FUZZ, max_examples=80)
@given(PLACES, JSON)
def test_the_lock_of_models_with_any_value(project: Path, tmp_path: Path, places: list[int], new: object) -> None:
    params = load(project / "params.yaml")
    path = tmp_path / FILE
    path.write_text(json.dumps(replaced(json.loads((project / "data/models" / FILE).read_text()), places, new)))
    accepted_or_refused(lambda: pinned(params, tmp_path, "captioner_model"), path)


@FUZZ
@given(JSON, st.sampled_from(["model_index.json", "model.safetensors.index.json"]))
def test_indexes_of_models_with_any_value(tmp_path: Path, document: object, name: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    (folder / "config.json").write_text("{}")
    (folder / name).write_text(json.dumps(document))
    accepted_or_refused(lambda: check_complete(folder, ModelName("base_model", str(folder), None)), folder)


@FUZZ
@given(PLACES, st.booleans())
def test_images_of_spoiled_bytes(project: Path, tmp_path: Path, places: list[int], cut: bool) -> None:
    path = tmp_path / "a.png"
    whole = next((project / "data/base_samples/images").iterdir())
    path.write_bytes(spoiled(whole.read_bytes(), places, cut))
    accepted_or_refused(lambda: read_rgb(path), path)
    read_photo(Picture("a.png", "a caption", Place(path)), 8)  # counted, never an error


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_no_family_ends_in_a_traceback_or_without_a_word(name: str) -> None:
    """Some of the attempts that `benchmarks/fuzz.py` counts."""
    found = list(attempts(60, 7, [name]))
    assert len(found) >= 6
    assert not [one for one in found if one[2] in ("traceback", "silent")]


def test_the_count_of_attempts_sees_tracebacks_and_silence() -> None:
    def bug() -> bool:
        raise AttributeError("x")

    def refusal() -> bool:
        raise UserError("a.txt: expected b")

    assert [outcome(read)[0] for read in (bug, refusal, lambda: True, lambda: False)] == [
        "traceback",
        "refused",
        "accepted",
        "silent",
    ]


@pytest.mark.parametrize("column", ["text", "tokens"])
def test_a_null_that_an_editor_left_is_counted(tmp_path: Path, column: str) -> None:
    """In a column, or in the lists of one."""
    schema = PROMPTS if column == "text" else ENTITIES
    row = {"text": None} if column == "text" else {"tokens": [[1, None]], "noun_tokens": [[1]], "attributes": []}
    filled = {name: row.get(name, _filled(schema.field(name).type)) for name in schema.names}
    write_table(tmp_path / "t.parquet", [filled], schema)
    with pytest.raises(UserError, match=rf"t.parquet: column '{column}': 1 nulls, expected none"):
        read_table(tmp_path / "t.parquet", schema)
    whole = {name: value if name != column else _filled(schema.field(name).type) for name, value in filled.items()}
    write_table(tmp_path / "t.parquet", [{**whole, "reason": None} if "reason" in whole else whole], schema)
    assert len(read_table(tmp_path / "t.parquet", schema)) == 1


def _filled(kind: pa.DataType) -> object:
    if pa.types.is_list(kind):
        return [_filled(kind.value_type)]
    return "a" if pa.types.is_string(kind) else True if pa.types.is_boolean(kind) else 1


@settings(FUZZ, max_examples=15)  # the project's own list is read each time
@given(JSON.map(json.dumps) | st.text(max_size=60))
def test_filters_of_nouns_of_any_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "filter.yaml"
    path.write_text(text, encoding="utf-8")
    accepted_or_refused(lambda: filtered_nouns(path), path)
