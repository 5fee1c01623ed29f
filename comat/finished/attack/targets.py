"""Whom an attack is on: classes, and the prompts that ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import inflect

from comat.errors import UserError
from comat.storage.prompt_text import csv_rows


@dataclass(frozen=True)
class Target:
    """A class of the classifier, and the prompt that asks for it."""

    name: str
    prompt: str


def targets_of(names: Sequence[str], template: str) -> list[Target]:
    """Short prompts: every class in `template`, its {} filled with the name behind its article.

    Raises:
        UserError: if the template has no {}.
    """
    if "{}" not in template:
        raise UserError(f"the template {template!r} has no {{}}: that is where the class goes, as in 'a photo of {{}}'")
    article = inflect.engine().a
    return [Target(name, template.replace("{}", article(name))) for name in dict.fromkeys(names)]


def read_targets(file: Path) -> list[Target]:
    """Prompts of a CSV with the columns `prompt` and `classname`, such as the long ones of the published attack.

    Raises:
        UserError: if there is no such file, column or text.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file: expected a CSV with the columns prompt and classname")
    _, rows = csv_rows(file, ",")
    found = []
    for number, row in rows:
        name, prompt = (str(row.get(column) or "").strip() for column in ("classname", "prompt"))
        if not name or not prompt:
            raise UserError(f"{file}: line {number}: expected a prompt and a classname, found {prompt!r} and {name!r}")
        found.append(Target(name, prompt))
    if not found:
        raise UserError(f"{file}: no line below the header: expected a CSV with the columns prompt and classname")
    return found
