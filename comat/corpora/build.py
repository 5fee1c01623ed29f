"""The corpus: normalised, without duplicates, decontaminated against evaluation prompts, with a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from tqdm import tqdm
from transformers import CLIPTokenizer

from comat.corpora.contamination import Contamination, Match
from comat.corpora.lists import read_csv, read_json, read_jsonl, read_parquet, read_txt
from comat.corpora.readers import read_abc6k, read_hrs, read_t2i_compbench
from comat.corpora.text import Spelling, folded, prompt_id
from comat.errors import UserError
from comat.params import PromptList, PromptSource, PromptsParams
from comat.randomness import python_random
from comat.storage.prompt_text import Prompt
from comat.tokenizers import too_long

READERS: dict[str, Callable[[PromptList], Iterator[Prompt]]] = {
    "t2i_compbench": read_t2i_compbench,
    "hrs": read_hrs,
    "abc6k": read_abc6k,
    "txt": read_txt,
    "csv": read_csv,
    "json": read_json,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
}
"""Format → reader."""

REASONS = {"exact": "in the evaluation", "near": "near an evaluation prompt"}


@dataclass(frozen=True)
class Corpus:
    """Rows of `prompts.parquet` and of `dropped.parquet`, and the report: read, kept, dropped by reason and source."""

    rows: list[dict]
    dropped: list[dict]
    report: dict


@dataclass(frozen=True)
class _Found:
    source: str
    category: str
    split: str
    text: str


def build_corpus(params: PromptsParams, seed: int, tokenizers: Sequence[CLIPTokenizer]) -> Corpus:
    """Read, normalise and sift all sources.

    Held-out prompts come first. A training prompt that is held out as well is dropped by decontamination alone.

    Raises:
        UserError: if a list is wrong, or no training prompt is left.
    """
    sources = {source.name: {"read": 0, "kept": 0, "dropped": Counter()} for source in params.sources}
    spelling = Spelling(params.syntax)
    found = [prompt for source in params.sources for prompt in _drawn(source, seed, sources[source.name], spelling)]
    found.sort(key=lambda prompt: prompt.split != "test")
    lists = _evaluation(params, found, Spelling(params.syntax))
    rows, dropped = _sift(found, Contamination(lists, params.near_duplicate))
    if not any(row["split"] == "train" for row in rows):
        raise UserError("no training prompt is left: see prompts.sources and prompts.decontaminate in params.yaml")
    for row in rows:
        sources[row["source"]]["kept"] += 1
    for row in dropped:
        sources[row["source"]]["dropped"][row["reason"]] += 1
    long = Counter(row["source"] for row in _too_long(rows, tokenizers))
    for name, entry in sources.items():
        entry |= {"dropped": dict(sorted(entry["dropped"].items())), "too_long": long[name]}
    splits = Counter(row["split"] for row in rows)
    total = {"train": splits["train"], "test": splits["test"], "too_long": long.total()}
    evaluation = {name: {"prompts": len(texts), **_matches(dropped, name)} for name, texts in lists.items()}
    report = {"total": total, "sources": sources, "evaluation": evaluation, "syntax": spelling.report()}
    return Corpus(rows, dropped, report)


def _drawn(source: PromptSource, seed: int, entry: dict, spelling: Spelling) -> Iterator[_Found]:
    """The prompts of a source, or as many as the parameters draw by seed, in the order of the files."""
    prompts = list(READERS[source.format](source))
    entry["read"] = len(prompts)
    if 0 < source.sample < len(prompts):
        picked = python_random(seed, "sample", source.name).sample(range(len(prompts)), source.sample)
        entry["dropped"]["not drawn"] = len(prompts) - source.sample
        prompts = [prompts[i] for i in sorted(picked)]
    for prompt in prompts:
        yield _Found(source.name, prompt.category, prompt.split or source.split, spelling(prompt.text))


def _evaluation(params: PromptsParams, found: Iterable[_Found], spelling: Spelling) -> dict[str, list[str]]:
    """Evaluation prompts by list: those that the sources hold out, and the lists that the parameters name."""
    lists: dict[str, list[str]] = {}
    if params.decontaminate:
        for prompt in found:
            if prompt.split == "test":
                lists.setdefault(prompt.source, []).append(prompt.text)
        for entry in params.evaluation:
            lists[entry.name] = [spelling(prompt.text) for prompt in READERS[entry.format](entry)]
    return lists


def _sift(found: Iterable[_Found], contamination: Contamination) -> tuple[list[dict], list[dict]]:
    """What is kept and what is dropped, with its reason and the evaluation prompt that it came too near to."""
    rows, dropped, seen = [], [], set()
    for prompt in tqdm(found, desc="prompts"):
        key, match = (prompt.split, folded(prompt.text)), None
        reason = "no words" if not key[1] else "duplicate" if key in seen else None
        if reason is None and prompt.split == "train" and (match := contamination.match(prompt.text)):
            reason = REASONS[match.kind]
        row = {"text": prompt.text, "source": prompt.source, "category": prompt.category, "split": prompt.split}
        if reason is None:
            seen.add(key)
            rows.append({"id": prompt_id(prompt.text, prompt.split), **row})
        else:
            match = match or Match("", "", "")
            dropped.append({**row, "reason": reason, "evaluation": match.list or None, "match": match.text or None})
    return rows, dropped


def _too_long(rows: Sequence[dict], tokenizers: Sequence[CLIPTokenizer]) -> list[dict]:
    """The rows whose ends the text encoder does not read."""
    long = too_long(tokenizers, [row["text"] for row in rows])
    return [row for row, is_long in zip(rows, long, strict=True) if is_long]


def _matches(dropped: Iterable[dict], name: str) -> dict[str, int]:
    """How many training prompts an evaluation list has removed."""
    reasons = Counter(row["reason"] for row in dropped if row["evaluation"] == name)
    return {kind: reasons[reason] for kind, reason in REASONS.items()}
