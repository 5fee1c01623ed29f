"""What the votes of a preference study say, with exact binomial intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import krippendorff
import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.table import Table
from rich.text import Text
from scipy.stats import binomtest

from comat.errors import UserError, clean
from comat.preference.study import CRITERIA, Key
from comat.storage.json_files import read_json
from comat.storage.yaml_files import shown

Choice = Literal["left", "right", "tie"]
Checked = TypeVar("Checked", bound=BaseModel)


class Votes(BaseModel):
    """The file that the page saves: a voter's choices by criterion, then by the number of the pair."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    study: str
    voter: Annotated[str, Field(min_length=1)]
    votes: dict[str, dict[str, Choice]]


@dataclass(frozen=True)
class Tally:
    """How often each model was preferred; `share` is of those that chose, ties left out, with its 95% interval."""

    tuned: int
    base: int
    ties: int

    @property
    def share(self) -> float | None:
        return self.tuned / (self.tuned + self.base) if self.tuned + self.base else None

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper and Pearson 1934; (0, 1) where nobody chose."""
        if self.share is None:
            return 0.0, 1.0
        found = binomtest(self.tuned, self.tuned + self.base).proportion_ci(0.95, method="exact")
        return float(found.low), float(found.high)


def read_key(path: Path) -> Key:
    return _read(path, Key, "a key that `comat preference` wrote")


def read_votes(paths: Sequence[Path], key: Key) -> list[Votes]:
    """The votes of every file.

    Raises:
        UserError: if a file is no file of votes, is of another study or pair, or two are of one voter.
    """
    found: dict[str, Votes] = {}
    for path in paths:
        votes = _read(path, Votes, "a file that the study's page saved")
        if votes.study != key.study:
            raise UserError(f"{path}: votes of study {shown(votes.study)}, the key is of {key.study}; give its own key")
        if votes.voter in found:
            raise UserError(f"{path}: a second file of voter {shown(votes.voter)}; give one file for each voter")
        for criterion, choices in votes.votes.items():
            if criterion not in CRITERIA:
                raise UserError(f"{path}: criterion {shown(criterion)}, expected one of {', '.join(CRITERIA)}")
            known = {str(number) for number in range(len(key.pairs))}
            if wrong := sorted(choices.keys() - known):
                raise UserError(f"{path}: pair {shown(wrong[0])}, expected a number below {len(key.pairs)}")
        found[votes.voter] = votes
    return list(found.values())


def _read(path: Path, kind: type[Checked], what: str) -> Checked:
    if not path.exists():
        raise UserError(f"{path}: no such file; expected {what}")
    return read_json(path, kind, what, "give the file as it was saved")


def preferred(votes: Votes, key: Key, criterion: str) -> dict[int, str]:
    """Of each pair that was answered: "base", "tuned" or "tie"."""
    sides = {number: {"left": pair.left, "right": pair.right, "tie": "tie"} for number, pair in enumerate(key.pairs)}
    return {int(number): sides[int(number)][choice] for number, choice in votes.votes.get(criterion, {}).items()}


def tally(choices: Iterable[str]) -> Tally:
    counts = Counter(choices)
    return Tally(counts["tuned"], counts["base"], counts["tie"])


def majority(choices: Iterable[Mapping[int, str]]) -> dict[int, str]:
    """What most voters prefer in each pair; a tie where as many prefer the one as the other."""
    lead: Counter[int] = Counter()
    for own in choices:
        for number, choice in own.items():
            lead[number] += {"tuned": 1, "base": -1, "tie": 0}[choice]
    return {number: "tuned" if ahead > 0 else "base" if ahead < 0 else "tie" for number, ahead in lead.items()}


def agreement(choices: Sequence[Mapping[int, str]]) -> float | None:
    """Krippendorff's alpha of voters on the same pairs, base, tie and tuned in this order (ordinal).

    1 is perfect agreement, 0 that of chance; None where no pair has two votes, or all votes are the same.
    """
    pairs = sorted({number for own in choices for number in own})
    values = {"base": 0.0, "tie": 1.0, "tuned": 2.0}
    votes = np.array([[values[own[n]] if n in own else np.nan for n in pairs] for own in choices])
    shared = votes[:, (~np.isnan(votes)).sum(0) > 1] if votes.size else votes
    if not shared.size or len(np.unique(shared[~np.isnan(shared)])) < 2:
        return None
    return float(krippendorff.alpha(shared, level_of_measurement="ordinal"))


def agreements(voters: Sequence[Votes], key: Key) -> dict[str, float | None]:
    """Criterion → how far the voters agree."""
    return {criterion: agreement([preferred(one, key, criterion) for one in voters]) for criterion in CRITERIA}


def summary(voters: Sequence[Votes], key: Key) -> list[tuple[str, str, Tally]]:
    """(criterion, of whom, tally): by each voter; of several also all votes, and the majority of each pair.

    Votes of several people on one pair are not independent: the interval of the pairs' majorities is the one to quote.
    """
    rows = []
    for criterion in CRITERIA:
        chosen = {one.voter: preferred(one, key, criterion) for one in voters}
        # In quotes: a voter may be called "all votes".
        rows += [(criterion, f'"{clean(voter, 60)}"', tally(own.values())) for voter, own in chosen.items()]
        if len(voters) > 1:
            rows.append((criterion, "all votes", tally(choice for own in chosen.values() for choice in own.values())))
            rows.append((criterion, "majority of each pair", tally(majority(chosen.values()).values())))
    return rows


def show_votes(
    rows: Sequence[tuple[str, str, Tally]], console: Console, agreed: Mapping[str, float | None] | None = None
) -> None:
    """Print the summary as a table, and how far several voters agree."""
    table = Table(box=None, pad_edge=False)
    for title in ("criterion", "by", "tuned", "base", "ties", "prefer tuned", "95% interval"):
        table.add_column(title, justify="left" if title in ("criterion", "by") else "right")
    for criterion, who, own in rows:
        low, high = own.interval
        share = "nobody chose" if own.share is None else f"{own.share:.1%}"
        interval = "" if own.share is None else f"{low:.1%} to {high:.1%}"
        table.add_row(criterion, Text(who), str(own.tuned), str(own.base), str(own.ties), share, interval)
    console.print(table, highlight=False)
    if agreed:
        said = (f"{name} {'undefined' if alpha is None else f'{alpha:.2f}'}" for name, alpha in agreed.items())
        console.print(
            f"Krippendorff's alpha (1: the voters agree, 0: as by chance): {', '.join(said)}", highlight=False
        )
