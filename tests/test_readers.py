"""Readers of the published formats and of a user's own lists; what is wrong is named with its file and line."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from comat.corpora.build import READERS
from comat.errors import UserError
from comat.params import PromptSource
from comat.storage.prompt_text import Prompt


def read(format: str, path: Path, **options: object) -> list[Prompt]:
    values = {"name": "x", "format": format, "path": str(path), **options}
    return list(READERS[format](PromptSource.model_validate(values)))


def texts(format: str, path: Path, **options: object) -> list[str]:
    return [prompt.text for prompt in read(format, path, **options)]


def test_validation_lists_are_held_out_and_their_repetitions_left_alone(tmp_path: Path) -> None:
    """As upstream: the lists end their lines with CR LF, and the last line with nothing."""
    for name in ("color_train", "color_val", "color_val_seen", "new_objects"):
        (tmp_path / f"{name}.txt").write_bytes(f"{name}\r\n\r\nsecond".encode())
    assert [(p.text.strip(), p.category, p.split) for p in read("t2i_compbench", tmp_path)] == [
        ("color_train", "color", "train"),
        ("second", "color", "train"),
        ("color_val", "color", "test"),
        ("second", "color", "test"),
    ]


def test_hrs_files_have_their_prompts_in_different_columns(tmp_path: Path) -> None:
    """Colours: the synthetic column is blank throughout. Counting: the meta prompt is an instruction, never a prompt.

    A row without a prompt is read as blank, so that the report counts it.
    """
    (tmp_path / "colors").mkdir()
    (tmp_path / "colors/a.csv").write_text("meta_prompt,color1,synthetic_prompt\na red dog.,red,\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("meta_prompt,synthetic_prompt\ndescribe,two cups\ndescribe,\n", encoding="utf-8")
    (tmp_path / "c.csv").write_text('original_prompts,min\n"a cup, a jar",1\n', encoding="utf-8")
    found = read("hrs", tmp_path)
    assert [(p.text, p.category) for p in found] == [
        ("two cups", "b"),
        ("", "b"),
        ("a cup, a jar", "c"),
        ("a red dog.", "colors"),
    ]


def test_hrs_lists_in_cells(tmp_path: Path) -> None:
    (tmp_path / "k4.csv").write_text(""",meta_prompt,synthetic_prompt\n0,x,"['one', ""two's""]"\n""", encoding="utf-8")
    assert texts("hrs", tmp_path) == ["one", "two's"]


@pytest.mark.parametrize("cell", ["['one', 'two'", "[1, 2]", "[open(__file__)]", "[" * 500])
def test_a_list_that_is_none_is_named_with_its_line(tmp_path: Path, cell: str) -> None:
    (tmp_path / "k4.csv").write_text(f'synthetic_prompt\nfine\n"{cell}"\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"k4\.csv, line 3: expected a Python list of strings"):
        read("hrs", tmp_path)


def test_files_can_be_left_out(tmp_path: Path) -> None:
    for name in ("a", "k4_b", "deep/c_6k"):
        (tmp_path / f"{name}.csv").parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.csv").write_text(f"synthetic_prompt\n{name}\n", encoding="utf-8")
    assert texts("hrs", tmp_path, leave_out=["k4_*", "*_6k.csv"]) == ["a"]
    with pytest.raises(UserError, match="all 3 are left out"):
        read("hrs", tmp_path, leave_out=["*"])


def test_wrong_columns_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("caption\na dog\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.csv.*caption.*synthetic_prompt"):
        read("hrs", tmp_path)


def test_abc6k_is_one_caption_a_line(tmp_path: Path) -> None:
    (tmp_path / "ABC-6K.txt").write_text("A red cup.\nA blue cup .\n", encoding="utf-8")
    assert read("abc6k", tmp_path / "ABC-6K.txt") == [Prompt("A red cup.", "abc6k"), Prompt("A blue cup .", "abc6k")]


FILES = {
    "txt": b"\xef\xbb\xbfone\n\ntwo\xe2\x80\xa8lines\n",
    "csv": b'id,prompt\n1,one\n2,"two\xe2\x80\xa8lines"\n',
    "json": b'["one", {"prompt": "two\\u2028lines"}]',
    "jsonl": b'"one"\n\n{"prompt": "two\xe2\x80\xa8lines"}\n',
}


@pytest.mark.parametrize("format", FILES)
def test_own_lists(tmp_path: Path, format: str) -> None:
    """U+2028 is no end of a line."""
    (tmp_path / f"mine.{format}").write_bytes(FILES[format])
    expected = [Prompt("one", "mine"), Prompt("two\u2028lines", "mine")]
    assert read(format, tmp_path / f"mine.{format}") == read(format, tmp_path) == expected


def test_own_parquet(tmp_path: Path) -> None:
    for kind in (pa.string(), pa.large_string()):
        pq.write_table(pa.table({"text": pa.array(["one", None], kind), "n": [1, 2]}), tmp_path / "mine.parquet")
        assert texts("parquet", tmp_path, column="text") == ["one", ""]


def test_quoted_cells_may_hold_line_ends(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text('prompt\n"two\nlines"\n', encoding="utf-8", newline="")
    assert texts("csv", tmp_path) == ["two\nlines"]


@pytest.mark.parametrize(
    ("format", "data", "message"),
    [
        ("txt", None, "no such corpus file"),
        ("txt", b" \n", "empty"),
        ("txt", b"a dog\n\xff\n", "line 2: byte 0xff is not UTF-8"),
        ("csv", b"prompt\na dog, a cat\n", r"line 2: 2 cells, but 1 columns"),
        ("csv", b'prompt\n"a dog\n', "row from line 2 on: .*quote"),
        ("csv", b"text\na dog\n", r"no column 'prompt', there are \['text'\]"),
        ("json", b"{}", "expected an array"),
        ("json", b'["a", 3]', "item 2: expected a string, got 3"),
        ("jsonl", b'"a"\n{"text": 1}\n', r"line 2: no key 'prompt', there are \['text'\]"),
        ("jsonl", b'"a"\n{"prompt": null}\n', "line 2: expected a string, got None"),
        ("jsonl", b'"a"\n{"prompt"\n', "line 2: not JSON"),
        ("parquet", b"PAR1 and no more", "not a whole Parquet file"),
        ("txt", "a dog\na cup\n".encode("utf-16-le"), "line 1: a NUL character: .*UTF-16 without its byte-order mark"),
        ("txt", b"a dog\rb\0\r", "line 2: a NUL character"),
        ("txt", b"\xff\xfea\x00\n\x00\x00\xdc", "line 2: byte 0x00 is not UTF-16"),
        ("csv", b"prompt,prompt\na,b\n", "line 1: column 'prompt' stands twice"),
        ("csv", b"Prompt,PROMPT\na,b\n", "line 1: no column 'prompt'"),
        ("tsv", b"a,b\n1,2\n", r"line 1: no column 'prompt', there are \['a,b'\]"),
        ("json", b'{"a": ["x"], "b": ["y"]}', r"expected an array .* an object of \['a', 'b'\]"),
        ("json", b'["a", "\\ud83d"]', r"item 2: \\ud83d is half of a character"),
        ("jsonl", b'"a"\n{"prompt": "a \\udc00"}\n', r"line 2: \\udc00 is half of a character"),
        ("jsonl", b'{"prompt": "a", "prompt": "b"}', "line 1: not JSON .key 'prompt' stands twice"),
    ],
)
def test_bad_files(tmp_path: Path, format: str, data: bytes | None, message: str) -> None:
    file = tmp_path / f"list.{format}"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        read(format, file)
    assert f"list.{format}" in str(error.value)


def test_half_characters_in_lists_in_cells_are_named(tmp_path: Path) -> None:
    (tmp_path / "k4.csv").write_text("synthetic_prompt\n\"['a \\ud83d']\"\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"k4\.csv, line 2: \\ud83d is half of a character"):
        read("hrs", tmp_path)


def test_a_column_that_stands_twice_in_parquet_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["prompt", "prompt"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet: column 'prompt' stands twice"):
        read("parquet", tmp_path)


def test_parquet_columns_are_checked(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1]}), tmp_path / "mine.parquet")
    with pytest.raises(UserError, match=r"no column 'prompt', there are \['n'\]"):
        read("parquet", tmp_path)
    with pytest.raises(UserError, match="column 'n' is int64: expected strings"):
        read("parquet", tmp_path, column="n")


def test_a_folder_without_such_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected files named \*\.txt; there are none"):
        read("txt", tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match="no <category>_train"):
        read("t2i_compbench", tmp_path)
