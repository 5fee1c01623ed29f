"""What was looked at, how it is shown, and the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from comat.errors import clean

State = Literal["ok", "warning", "problem"]
COLOURS: dict[State, str] = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; a problem makes `dvc repro` fail, a warning may."""

    name: str
    state: State
    found: str
    remedy: str = ""


def report(findings: Iterable[Finding], console: Console) -> list[Finding]:
    """Print each finding as it comes, and the verdict: for terminals of 80 columns as well."""
    seen = []
    for one in findings:
        seen.append(one)
        head = Text(f"{one.state:<8} ", COLOURS[one.state]) + Text(clean(one.name), "bold")
        body = clean(one.found) + (f"; {clean(one.remedy)}" if one.remedy else "")
        if len(head) + len(body) + 2 <= console.width:
            console.print(head + Text(f"  {body}"), highlight=False)
        else:
            console.print(head, highlight=False)
            console.print(Padding(Text(body, overflow="fold"), (0, 0, 0, 9)), highlight=False)
    console.print(Text(f"\n{verdict(seen)}", "bold"), highlight=False)
    return seen


def verdict(findings: Sequence[Finding]) -> str:
    """Whether a run gets to its end, in one line."""
    problems, warnings = ([one.name for one in findings if one.state == state] for state in ("problem", "warning"))
    if problems:
        return f"This will fail: {', '.join(dict.fromkeys(map(clean, problems)))}."
    if warnings:
        return f"This should run to its end; look at {', '.join(dict.fromkeys(map(clean, warnings)))}."
    return "This will run to its end."
