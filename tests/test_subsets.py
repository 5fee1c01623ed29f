"""Whatever takes some of a list draws them by seed, from each category its share, and keeps their order."""

from __future__ import annotations

import json
import random
from collections import Counter
from operator import itemgetter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comat.corpora.overview import examples
from comat.evaluation.captioned import captioned_images
from comat.params import GuardParams
from comat.preference.study import write_study
from comat.randomness import stratified
from comat.samples.draw import draw_base
from comat.storage.tables import IMAGE_INDEX, PROMPTS, read_legend, read_table, write_table
from comat.training.guard import set_apart

Rows = list[tuple[int, str]]


def rows_of(categories: list[str]) -> Rows:
    return list(enumerate(categories))


@given(st.lists(st.sampled_from("abcd"), max_size=40), st.integers(0, 50), st.integers(0, 2**32))
def test_each_category_gets_its_share_up_or_down_to_a_whole(categories: list[str], count: int, seed: int) -> None:
    rows = rows_of(categories)
    found = stratified(rows, count, itemgetter(1), random.Random(seed))
    assert len(found) == min(count, len(rows))
    assert found == sorted(found) and len(set(found)) == len(found) and set(found) <= set(rows)
    assert found == stratified(rows, count, itemgetter(1), random.Random(seed))
    taken = Counter(category for _, category in found)
    for category, own in Counter(categories).items():
        exact = own * len(found) / len(rows)
        assert int(exact) <= taken[category] <= -int(-exact // 1)


def test_the_whole_is_the_list_as_it_is() -> None:
    rows = rows_of(list("bababb"))
    assert stratified(rows, 6, itemgetter(1), random.Random(0)) == rows


def test_every_row_is_as_likely_as_any_other() -> None:
    """Nine of one category and one of another: 2 of 10, so each in a fifth of 4,000 draws, 800 ± 5 × 25.3."""
    counts = Counter[int]()
    for seed in range(4000):
        counts.update(
            place for place, _ in stratified(rows_of(list("aaaaaaaaab")), 2, itemgetter(1), random.Random(seed))
        )
    assert all(674 < counts[place] < 926 for place in range(10)), counts


def prompts(count: int) -> list[dict]:
    """As sources give them: sorted by category."""
    texts = [(f"a red ball {n}", "color") for n in range(count)] + [
        (f"a cube on a ball {n}", "spatial") for n in range(count)
    ]
    return [
        {"id": f"{n:04d}", "text": text, "source": "s", "category": category, "split": "train" if n % 2 else "test"}
        for n, (text, category) in enumerate(texts)
    ]


def categories(rows: list[dict]) -> set[str]:
    return {row["category"] for row in rows}


def test_the_guard_and_the_examples_see_every_category() -> None:
    section = {"every": 1, "prompts": 2, "metric": "oracle", "clip_model": None, "clip_revision": None}
    section |= {"feature_model": "x", "feature_revision": None, "keep": "best", "patience": 0}
    assert categories(set_apart(prompts(8), GuardParams.model_validate(section), 0)) == {"color", "spatial"}
    (texts,) = examples(prompts(8), 0).values()
    assert len(texts) == 3 and {text.split()[1] for text in texts} == {"red", "cube"}


def test_samples_and_their_attention_maps_are_of_every_category(make_params, tmp_path) -> None:
    """Of eight held-out prompts four are drawn, two of each category, and of those the maps of two, one of each."""
    params = make_params()
    section = params.samples.model_copy(update={"prompts": 4, "attention_prompts": 2, "seeds": 1})
    write_table(tmp_path / "prompts/prompts.parquet", prompts(8), PROMPTS)
    from comat.storage.tables import ENTITIES

    write_table(tmp_path / "entities/entities.parquet", [], ENTITIES)
    out = tmp_path / "out"
    draw_base(params, section, tmp_path / "prompts", tmp_path / "entities", None, out)
    rows = read_table(out / "index.parquet", IMAGE_INDEX)
    assert Counter(row["category"] for row in rows) == {"color": 2, "spatial": 2}
    assert [row["prompt_id"] for row in rows] == sorted(row["prompt_id"] for row in rows)
    of = {row["prompt_id"]: row["category"] for row in rows}
    assert {of[entry["prompt_id"]] for entry in read_legend(out)} == {"color", "spatial"}


def test_sensitivity_and_the_study_draw_from_every_category(tmp_path) -> None:
    from PIL import Image

    rows = [
        {"model": "m", "prompt_id": row["id"], "seed": 0, "path": f"{row['id']}.png"}
        | {key: row[key] for key in ("text", "source", "category")}
        for row in prompts(8)
    ]
    write_table(tmp_path / "index.parquet", rows, IMAGE_INDEX)
    for row in rows:
        Image.new("RGB", (8, 8)).save(tmp_path / row["path"])
    found = [one.caption.split()[1] for one in captioned_images(tmp_path, tmp_path, None, 4, seed=0, resolution=8)]
    assert Counter(found) == {"red": 2, "cube": 2}
    page = tmp_path / "page.html"
    assert write_study({"base": tmp_path, "tuned": tmp_path}, 4, 0, page, tmp_path / "key.json") == 4
    asked = [pair["text"].split()[1] for pair in json.loads((tmp_path / "key.json").read_text())["pairs"]]
    assert Counter(asked) == {"red": 2, "cube": 2}


@pytest.mark.parametrize("take", ["sample", "hold_out"])
def test_a_source_is_sampled_and_held_out_by_category(take: str, tmp_path) -> None:
    from comat.corpora.build import build_corpus
    from comat.params import PromptsParams
    from tests.tiny_models import clip_tokenizer

    (tmp_path / "l").mkdir()
    for name in "ab":
        (tmp_path / f"l/{name}.txt").write_text("".join(f"{name} thing number {n}\n" for n in range(10)))
    source = {"name": "l", "format": "txt", "path": str(tmp_path / "l"), take: 4 if take == "sample" else 0.2}
    values = {"sources": [source], "decontaminate": False, "evaluation": [], "syntax": "keep", "near_duplicate": 1.0}
    rows = build_corpus(PromptsParams.model_validate(values), 0, [clip_tokenizer()]).rows
    taken = [row for row in rows if take == "sample" or row["split"] == "test"]
    assert Counter(row["category"] for row in taken) == {"a": 2, "b": 2}
