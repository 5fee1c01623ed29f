"""Files appear whole or not at all, and what is broken says so."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path, PurePosixPath, PureWindowsPath

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from comat.errors import UserError
from comat.models.files import check_complete
from comat.models.names import ModelName
from comat.running.distributed import ALONE
from comat.running.shared_store import SharedStore
from comat.storage import tables as store
from comat.storage.places import inside
from comat.storage.shard_progress import Row
from comat.storage.tables import (
    ENTITIES,
    IMAGE_INDEX,
    PROMPTS,
    read_legend,
    read_table,
    write_json,
    write_safetensors,
    write_table,
)
from comat.storage.tensor_store import LATENT_INDEX, TensorStore, TensorStoreWriter

ROW = {"id": "a", "text": "a red ball", "source": "s", "category": "c", "split": "train"}


def fill(folder, ids, shard_size=2, close=True) -> None:
    writer = TensorStoreWriter(folder, shard_size)
    for id in ids:
        if id not in writer:
            writer.add(id, {"latents": torch.full((1, 2, 2), float(ord(id)))}, f"caption {id}")
    if close:
        writer.close()


def test_tables_round_trip(tmp_path) -> None:
    write_table(tmp_path / "t.parquet", [ROW], PROMPTS)
    assert read_table(tmp_path / "t.parquet", PROMPTS) == [ROW]


def test_a_wrong_column_is_named(tmp_path) -> None:
    schema = pa.schema([pa.field("id", pa.int64()) if f.name == "id" else f for f in PROMPTS])
    write_table(tmp_path / "t.parquet", [{**ROW, "id": 1}], schema)
    with pytest.raises(ValueError, match="column 'id': expected string, found int64"):
        read_table(tmp_path / "t.parquet", PROMPTS)


def test_a_table_that_is_none_is_refused(tmp_path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"not parquet")
    with pytest.raises(ValueError, match="not a whole Parquet table"):
        read_table(tmp_path / "t.parquet", PROMPTS)
    with pytest.raises(FileNotFoundError, match="no such table"):
        read_table(tmp_path / "other.parquet", PROMPTS)


def test_a_table_with_one_bit_changed_is_refused(tmp_path) -> None:
    """In the last page of the texts by its checksum; in the footer Arrow raises an OSError that names no file."""
    path = tmp_path / "t.parquet"
    write_table(path, [ROW], PROMPTS)
    whole = path.read_bytes()
    texts = pq.ParquetFile(path).metadata.row_group(0).column(1)
    for place in (texts.dictionary_page_offset + texts.total_compressed_size - 1, len(whole) - 12):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"t\.parquet: not a whole Parquet table \(.*\); run its stage again"):
            read_table(path, PROMPTS)


def test_a_store_finds_rows_by_id(tmp_path) -> None:
    fill(tmp_path, "abcde")
    found = TensorStore(tmp_path)
    assert found.ids == list("abcde")
    assert found["d"]["latents"].tolist() == [[[100.0, 100.0], [100.0, 100.0]]]
    assert found.caption("d") == "caption d"
    assert "z" not in found


def test_an_interrupted_store_goes_on_to_the_same_bytes(tmp_path) -> None:
    fill(tmp_path / "whole", "abcde")
    fill(tmp_path / "resumed", "abc", close=False)  # c is lost: its shard was not full
    fill(tmp_path / "resumed", "abcde")
    for file in sorted((tmp_path / "whole").iterdir()):
        assert (tmp_path / "resumed" / file.name).read_bytes() == file.read_bytes(), file.name


def drawn(folder, ids, save_every: float) -> None:
    """What a writer that is killed after `ids` leaves: shards of four rows."""
    writer = TensorStoreWriter(folder, 4, save_every)
    for id in ids:
        if id not in writer:
            writer.add(id, {"latents": torch.full((2,), float(ord(id)))}, f"caption {id}")
            writer.save()


def test_a_slow_shard_is_not_lost(tmp_path) -> None:
    """Killed after six of seven rows, two of them in the second shard, and once more after the seventh."""
    for name, stops, every in (("whole", ["abcdefg"], 60.0), ("killed", ["abcdef", "abcdefg", "abcdefg"], 0.0)):
        for ids in stops:
            drawn(tmp_path / name, ids, every)
        assert all(id in TensorStoreWriter(tmp_path / name, 4) for id in ("abcd" if name == "whole" else ids))
        writer = TensorStoreWriter(tmp_path / name, 4)
        for id in "efg":
            if id not in writer:
                writer.add(id, {"latents": torch.full((2,), float(ord(id)))}, f"caption {id}")
        writer.close()
    files = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "killed").iterdir()} == files


@pytest.mark.parametrize("shard", [16, 8, 6])
def test_a_batch_that_took_longer_than_a_minute_is_not_lost(tmp_path, monkeypatch, shard: int) -> None:
    """Batches of four, 90 seconds each, killed within the third: two are done, wherever a shard ends."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def compute(batches):
        for number, batch in enumerate(batches):
            now[0] += 90
            if number == 2:
                raise KeyboardInterrupt
            yield [Row(id, {"latents": torch.zeros(2)}, "") for id in batch]

    def store() -> SharedStore[str]:
        return SharedStore(ALONE, tmp_path, shard, "abcdefghijklmnop", str, 4)

    with pytest.raises(KeyboardInterrupt):
        store().fill(compute, "drawing")
    assert store().done == 8


@pytest.mark.parametrize("damage", ["bit", "truncated", "earlier shard"])
def test_damaged_progress_is_drawn_again(tmp_path, damage: str) -> None:
    """Of an earlier shard that is missing too: the rows keep their order."""
    drawn(tmp_path, "abcdef", 0.0)
    path = tmp_path / "unfinished.safetensors"
    data = path.read_bytes()
    if damage == "earlier shard":
        (tmp_path / "00000.safetensors").unlink()
    else:
        path.write_bytes(data[:-1] + (bytes([data[-1] ^ 1]) if damage == "bit" else b""))
    again = TensorStoreWriter(tmp_path, 4)
    assert [id for id in "abcdef" if id in again] == ([] if damage == "earlier shard" else list("abcd"))


def test_a_closed_store_is_whole_and_stays_so(tmp_path) -> None:
    """A run killed after `close` but before its folder is published draws nothing again."""
    fill(tmp_path, "abcde")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert all(id in TensorStoreWriter(tmp_path, 2) for id in "abcde")
    fill(tmp_path, "abcde")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_truncated_shard_is_refused_with_the_remedy(tmp_path) -> None:
    fill(tmp_path, "abc")
    shard = tmp_path / "00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"00000\.safetensors: this shard is truncated .* run its stage again"):
        TensorStore(tmp_path)["a"]
    assert TensorStore(tmp_path)["c"]["latents"].shape == (1, 2, 2)
    shard.unlink()
    with pytest.raises(ValueError, match="this shard is missing"):
        TensorStore(tmp_path)["a"]


@pytest.mark.parametrize("damage", ["changed", "truncated", "missing"])
def test_a_damaged_shard_of_an_unfinished_store_is_written_again(tmp_path, damage: str) -> None:
    """With all after it, so that the rows keep their order; "a" and "b" in the first shard are taken as they are."""
    fill(tmp_path / "whole", "abcdefg")
    fill(tmp_path / "resumed", "abcdef", close=False)
    shard = tmp_path / "resumed/00001.safetensors"
    data = shard.read_bytes()
    shard.unlink()
    if damage != "missing":
        shard.write_bytes(data[:-1] + (b"" if damage == "truncated" else bytes([data[-1] ^ 1])))
    assert [id for id in "abcdef" if id in TensorStoreWriter(tmp_path / "resumed", 2)] == ["a", "b"]
    fill(tmp_path / "resumed", "abcdefg")
    for file in sorted((tmp_path / "whole").iterdir()):
        assert (tmp_path / "resumed" / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.parametrize("text", ["{", "[]", '{"ids": ["a", "b"]}'])
def test_a_note_that_is_none_is_refused_by_readers_and_writers(tmp_path, text: str) -> None:
    fill(tmp_path, "abc")
    (tmp_path / "00000.json").write_text(text)
    for use in (lambda folder: TensorStore(folder)["a"], lambda folder: TensorStoreWriter(folder, 2)):
        with pytest.raises(UserError, match=r"00000\.json: not the note of a shard: .*; remove its folder"):
            use(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch) -> None:
    """A full disk, as fsync reports it."""
    path = tmp_path / "a.json"
    write_json(path, 1)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device; nothing was changed at: '.*a\.json'"):
        write_json(path, 2)
    assert path.read_text() == "1\n"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_truncated_safetensors_are_refused(tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"x": torch.ones(3)})
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        store.read_safetensors(path)


AWAY = ["../a", "/etc/a", "a/../../b", "C:\\a", "..\\a", "\\a", "", " ", "..", "a\0"]
"""Out of any folder, as POSIX or Windows would read it."""
IMAGE = {
    "model": "base",
    "prompt_id": "a",
    "text": "t",
    "source": "s",
    "category": "c",
    "seed": 0,
    "path": "images/a.png",
}


@pytest.mark.parametrize("name", AWAY)
@pytest.mark.parametrize(
    ("schema", "row", "column"), [(IMAGE_INDEX, IMAGE, "path"), (IMAGE_INDEX, IMAGE, "prompt_id"), (PROMPTS, ROW, "id")]
)
def test_no_table_leads_out_of_its_folder(tmp_path, schema, row, column: str, name: str) -> None:
    """`images/../../x-0.png` was written by a prompt whose id was `../../x`."""
    write_table(tmp_path / "t.parquet", [row, {**row, column: name}], schema)
    with pytest.raises(UserError, match=rf"t\.parquet: column '{column}': .* leads out of its folder"):
        read_table(tmp_path / "t.parquet", schema)
    assert len(read_table(tmp_path / "t.parquet", schema, anywhere=[column])) == 2
    with pytest.raises(UserError, match="expected a path inside"):
        inside(tmp_path, name, "here")


@given(st.text("ab./\\:", min_size=1, max_size=12).filter(lambda name: not name.isspace()))
def test_what_is_inside_stays_there(name: str) -> None:
    """Whatever is not refused leads into the folder, and what leads out of it is refused."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    away = posix.is_absolute() or windows.drive or windows.root or ".." in (*posix.parts, *windows.parts)
    try:
        path = inside(Path("/folder"), name, "here")
    except UserError:
        assert away
    else:
        assert not away and Path(os.path.normpath(path)).is_relative_to("/folder")


@pytest.mark.parametrize(("column", "value"), [("noun_tokens", [[2], [-1]]), ("tokens", [[-1, 3]]), ("entity", -1)])
def test_a_negative_position_is_refused(tmp_path, column: str, value: object) -> None:
    """Token -1 would be the last of the maps."""
    row = {"prompt_id": "a", "entity": 0, "noun": "ball", "lemma": "ball", "attributes": [], "numerals": []}
    row |= {"noun_tokens": [[2], [2]], "tokens": [[1, 2], [1, 2]], "kept": True, "reason": None}
    write_table(tmp_path / "t.parquet", [row, {**row, "noun_tokens": [[]], "tokens": []}], ENTITIES)
    assert len(read_table(tmp_path / "t.parquet", ENTITIES)) == 2
    write_table(tmp_path / "t.parquet", [row, {**row, column: value}], ENTITIES)
    with pytest.raises(UserError, match=rf"column '{column}': -1 is no position"):
        read_table(tmp_path / "t.parquet", ENTITIES)


@pytest.mark.parametrize(("column", "value"), [("row", -1), ("shard", "../00000.safetensors")])
def test_a_store_reads_its_own_rows_alone(tmp_path, column: str, value: object) -> None:
    fill(tmp_path, "ab")
    rows = read_table(tmp_path / "index.parquet", LATENT_INDEX)
    write_table(tmp_path / "index.parquet", [{**rows[0], column: value}, rows[1]], LATENT_INDEX)
    with pytest.raises(UserError, match=rf"index\.parquet: column '{column}'"):
        TensorStore(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt_id": "../a"}, r"expected a path inside"),
        ({"entities": [[1], [-1]]}, r"attention\.json: token -1: expected 0 to 2"),
        ({"entities": [[3]]}, r"token 3: expected 0 to 2"),
    ],
)
def test_a_legend_names_its_own_tokens(tmp_path, change: dict, message: str) -> None:
    entry = {"prompt_id": "a", "text": "t", "tokens": ["<", "t", ">"], "entities": [[1]]}
    write_json(tmp_path / "attention.json", [entry])
    assert read_legend(tmp_path) == [entry]
    write_json(tmp_path / "attention.json", [entry | change])
    with pytest.raises(UserError, match=message):
        read_legend(tmp_path)


def test_an_index_of_weights_names_files_beside_it(tiny, tmp_path) -> None:
    shutil.copytree(tiny / "blip", tmp_path / "blip")
    (tmp_path / "blip/model.safetensors").rename(tmp_path / "other.safetensors")
    (tmp_path / "blip/model.safetensors.index.json").write_text('{"weight_map": {"a": "../other.safetensors"}}')
    with pytest.raises(UserError, match="expected a path inside"):
        check_complete(tmp_path / "blip", ModelName("captioner_model", str(tmp_path / "blip"), None))
