"""A user's own lists as they come: delimiters, encodings, line ends, a data set of the hub; tables are not lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from comat.corpora.build import READERS
from comat.errors import UserError
from comat.params import PromptSource
from comat.storage.prompt_text import Prompt
from tests.test_readers import read, texts
from tests.tiny_hub import COMMIT, Hub, serving

TABLES = {
    "semicolon.csv": "id;prompt;source\n1;a teal kettle, on a stool;x\n2;two drums;x\n",
    "bar.csv": 'prompt|n\n"a teal kettle, on a stool"|1\ntwo drums|2\n',
    "tabs.csv": "Prompt\tNote\na teal kettle, on a stool\t\ntwo drums\tx\n",
    "tabs.tsv": "Prompt\tNote\na teal kettle, on a stool\t\ntwo drums\tx\n",
    "mac.csv": 'n,prompt\r1,"a teal kettle, on a stool"\r2,two drums\r',
    "LOUD.CSV": 'PROMPT\n"a teal kettle, on a stool"\ntwo drums\n',
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_divided_by_what_divides_its_first_line_most(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TABLES[name], encoding="utf-8", newline="")
    expected = ["a teal kettle, on a stool", "two drums"]
    assert texts("csv", tmp_path / name) == expected
    assert texts(name[-3:].lower(), tmp_path) == expected


def test_a_delimiter_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x^prompt,more\n1^a cup, a jar\n", encoding="utf-8")
    assert texts("csv", tmp_path, delimiter="^", column="prompt,more") == ["a cup, a jar"]
    with pytest.raises(ValueError, match="format tsv has no delimiter to choose"):
        read("tsv", tmp_path, delimiter=",")


def test_quotes_between_tabs_are_what_they_are(tmp_path: Path) -> None:
    """As Parti's prompts are published. Only a cell that stands in quotes as a whole loses them."""
    rows = ["Prompt\tNote", 'a "sign" that says hello, world\tx', '"Anubis" on a wall\tx', '"a ""big"" cup"\tx']
    (tmp_path / "a.tsv").write_text("\n".join(rows), encoding="utf-8")
    assert texts("tsv", tmp_path) == ['a "sign" that says hello, world', '"Anubis" on a wall', 'a "big" cup']
    (tmp_path / "a.tsv").write_text('Prompt\tNote\n"two\nlines\tand a tab"\tx\n', encoding="utf-8")
    assert texts("tsv", tmp_path) == ["two\nlines\tand a tab"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-8-sig"])
def test_text_with_a_byte_order_mark_is_read(tmp_path: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "a.TXT").write_bytes((mark + "a café\r\ntwo drums\r\n").encode(encoding))
    assert texts("txt", tmp_path) == ["a café", "two drums"]


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_lines_of_any_system(tmp_path: Path, end: str) -> None:
    (tmp_path / "a.txt").write_bytes(f"a teal kettle{end}two drums{end}{end}three flutes".encode())
    assert texts("txt", tmp_path) == ["a teal kettle", "two drums", "three flutes"]


def test_hidden_files_are_left_alone(tmp_path: Path) -> None:
    """What systems leave in folders: names with a dot, and folders of such names."""
    for name in ("._a.txt", ".ipynb_checkpoints/a.txt", "a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert texts("txt", tmp_path) == ["a.txt"]


def test_an_object_that_holds_an_array(tmp_path: Path) -> None:
    for text in ('{"prompts": ["a", {"prompt": "b"}]}', '{"version": 1, "prompt": ["a", "b"], "ids": [1, 2]}'):
        (tmp_path / "a.json").write_text(text)
        assert texts("json", tmp_path) == ["a", "b"]


def test_an_object_of_prompts_by_id(tmp_path: Path) -> None:
    """In the order of the file; an object that is itself a prompt is one."""
    for text in ('{"7": "a", "3": {"prompt": "b"}}', '{"version": 1, "prompt": {"7": "a", "3": "b"}}'):
        (tmp_path / "a.json").write_text(text)
        assert texts("json", tmp_path) == ["a", "b"]
    (tmp_path / "a.json").write_text('{"prompt": "a", "seed": "3"}')
    assert texts("json", tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"7": "a", "7": "b"}', "key '7' stands twice"),
        ('{"7": {"text": "a"}}', "key '7': no key 'prompt', there are"),
        ('{"7": 3}', "expected an array of prompts, an object of them by id"),
        ("{}", "expected an array of prompts, an object of them by id"),
        ("3", "or one that holds either: got int"),
    ],
)
def test_an_object_that_holds_no_prompts(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=message):
        texts("json", tmp_path)


def test_categorical_parquet(tmp_path: Path) -> None:
    """As pandas writes a column of few different values."""
    column = pa.array(["a cup", None, "a jar", "a cup"]).dictionary_encode()
    pq.write_table(pa.table({"prompt": column}), tmp_path / "a.parquet")
    assert texts("parquet", tmp_path) == ["a cup", "", "a jar", "a cup"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A data set of two Parquet files and a note, on a hub of our own; an empty cache."""
    folder = tmp_path / "served/people/prompts"
    for name, text in {"default/test/0000": "a jar", "default/train/0000": "a cup"}.items():
        (folder / name).parent.mkdir(parents=True)
        pq.write_table(pa.table({"Prompt": [text]}), folder / f"{name}.parquet")
    (folder / "README.md").write_text("a note")
    with serving(tmp_path / "served") as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server


def test_a_data_set_of_the_hub(hub: Hub) -> None:
    """Its Parquet files alone are fetched, and of them not those left out."""
    options = {"revision": COMMIT, "column": "Prompt"}
    source = {"name": "people", "format": "hub", "path": "people/prompts", **options}
    found = list(READERS["hub"](PromptSource.model_validate(source)))
    assert found == [Prompt("a jar", "people"), Prompt("a cup", "people")]
    left = PromptSource.model_validate({**source, "leave_out": ["*/test/*"]})
    assert [prompt.text for prompt in READERS["hub"](left)] == ["a cup"]
    assert sorted(hub.sent) == ["default/test/0000.parquet", "default/train/0000.parquet"]
    with pytest.raises(UserError, match=r"data set 'people/prompts': no Parquet file at revision"):
        list(READERS["hub"](PromptSource.model_validate({**source, "leave_out": ["*"]})))
    with pytest.raises(UserError, match="no such repository"):
        list(READERS["hub"](PromptSource.model_validate({**source, "path": "people/nothing"})))


def test_a_data_set_needs_a_revision(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="format hub needs a revision"):
        read("hub", tmp_path)
    with pytest.raises(ValueError, match="format csv has no revision"):
        read("csv", tmp_path, revision="main")


LIKE = {
    "table.csv": ("prompt\na dog\n", "csv by its name: set `format: csv`"),
    "tabs.txt": ("a dog\tAnimals\na cup\tThings\n", "a table of 2 columns: set `format: csv`"),
    "commas.txt": ("id,prompt\n1,a dog\n2,a cup\n", "a table of 2 columns: set `format: csv`"),
    "lines.txt": ('{"prompt": "a dog"}\n{"prompt": "a cup"}\n', "JSON Lines: set `format: jsonl`"),
    "array.txt": ('["a dog",\n"a cup"]\n', "JSON: set `format: json`"),
}


@pytest.mark.parametrize("name", LIKE)
def test_a_table_is_not_read_as_lines(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(LIKE[name][0])
    with pytest.raises(UserError, match=rf"{name}, line 1: this looks like {LIKE[name][1]}"):
        read("txt", tmp_path / name)


@pytest.mark.parametrize(
    "lines",
    [
        ["a dog, a cup", "text, a logo"],  # as many commas a line, and no header
        ["prompt engineering, a poster", "a cup"],  # commas and a word of a header, but not the same number
        ["{red|blue} ball", "[red:blue:0.5] ball"],  # the syntax of image tools
        ["a\ttab"],
        ["x" * 200_000, "a cup"],
    ],
)
def test_lines_with_marks_of_tables_are_lines(tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / "a.txt").write_text("\n".join(lines))
    assert texts("txt", tmp_path) == lines
