"""docs/method.md points to what is there."""

from __future__ import annotations

import re

from tests.conftest import ROOT

POINTER = re.compile(r"\[(?P<name>[\w/.]+)\]\(\.\./(?P<path>[\w/.]+)\) `(?P<text>[^`]+)` \|$")


def test_every_row_points_to_a_line_that_is_there() -> None:
    rows = [line for line in (ROOT / "docs/method.md").read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 26
    for row in rows:
        found = POINTER.search(row)
        assert found and found["name"] == found["path"], row
        assert found["text"] in (ROOT / found["path"]).read_text(), row
