"""What a run reads of the user's: lists of prompts, images with captions, files of benchmarks, the parser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from spacy.language import Language

from comat.corpora.build import Corpus, build_corpus, check_held_out
from comat.corpora.pictures.read import choose
from comat.entities.filter import filtered_nouns
from comat.entities.parse import load_parser
from comat.errors import UserError
from comat.estimate.findings import Finding
from comat.estimate.published import stub_tokenizer
from comat.evaluation.t2i_compbench import CATEGORIES, Plan, plan_of
from comat.judges.oracle import in_world
from comat.params import EvaluateParams, Params
from comat.samples.prompt_files import benchmark_prompts
from comat.tokenizers import load_tokenizers
from comat.training.guard import set_apart

CORPORA = Path("data/corpora")
RENDERED = Path("data/shapes/coco")
FEWEST = 2
"""Images of which a Fréchet distance can be taken."""


def inputs(params: Params, reachable: bool, parser: Language | None) -> Iterator[Finding]:
    """Prompts, held-out ones and judges; images with captions; the filter of nouns."""
    yield from _read("image_latents.images", params.image_latents.images, lambda: _images(params))
    own = params.entities.own_filter
    yield from _read("entities.own_filter", own, lambda: f"{len(filtered_nouns(Path(own or '')))} nouns")
    awaited = _awaited(params, reachable)
    if awaited:
        yield Finding("prompts.sources", "warning", awaited, "run `dvc repro prompts`, then `comat doctor` again")
        return
    try:
        corpus = _corpus(params)
    except (UserError, OSError) as error:
        yield Finding("prompts.sources", "problem", str(error))
        return
    total = corpus.report["total"]
    yield Finding("prompts.sources", "ok", f"{total['train']} prompts to train on, {total['test']} held out")
    try:
        check_held_out(corpus.report, params.samples.benchmarks)
        drawn = [row for row in corpus.rows if row["split"] == "test"]
        drawn += benchmark_prompts(params.samples.benchmarks, params.seed)
    except (UserError, OSError) as error:
        yield Finding("samples", "problem", str(error))
        return
    yield from judged(params.evaluate, drawn, parser)
    yield from _guarded(params, corpus)


def _from(source: str, row: dict) -> bool:
    return row["source"] == source


def judged(section: EvaluateParams, drawn: Sequence[dict], parser: Language | None) -> Iterator[Finding]:
    """Whether every benchmark that is on has a prompt to judge among the rows of `PROMPTS` that are drawn."""
    covers: dict[str, Callable[[dict], bool]] = {
        "oracle": lambda row: in_world(row["text"]),
        "frechet": lambda row: in_world(row["text"]),
        "t2i_compbench": lambda row: _asks(row, parser),
        "fid": lambda row: row["source"] == "coco",
        **{name: partial(_from, name) for name in ("tifa", "dpg", "dsg", "geneval", "geneval2")},
    }
    on = [name for name in type(section).model_fields if getattr(section, name) and name in covers]
    if on and not section.any_prompt:
        unread = Counter(row["source"] for row in drawn if not any(covers[name](row) for name in on))
        if unread:
            found = f"no judge reads the images of {unread.total()} of {len(drawn)} prompts: {dict(unread)}"
            yield Finding(
                "samples", "warning", found, "switch their judge on (evaluate), or do not draw them (samples)"
            )
    for name in on:
        count = sum(map(covers[name], drawn))
        fewest = FEWEST if name in ("frechet", "fid") else 1
        found = f"judges {count} of {len(drawn)} prompts"
        if count < fewest:
            remedy = f"switch it off, or draw prompts of it (prompts.sources, samples.benchmarks): at least {fewest}"
            yield Finding(f"evaluate.{name}", "problem", found, remedy)
        else:
            yield Finding(f"evaluate.{name}", "ok", found)


def spacy_model(name: str) -> tuple[Finding, Language | None]:
    """The parser, loaded; it is one of spaCy's packages or a folder."""
    try:
        parser = load_parser(name)
        if "parser" not in parser.pipe_names:
            raise UserError(f"{name}: has no dependency parser, only {', '.join(parser.pipe_names) or 'a tokenizer'}")
    except UserError as error:
        return Finding("entities.spacy_model", "problem", str(error)), None
    meta = parser.meta
    return Finding("entities.spacy_model", "ok", f"{meta['lang']}_{meta['name']} {meta['version']}"), parser


def _read(name: str, asked: str | None, read: Callable[[], str]) -> Iterator[Finding]:
    """Nothing where nothing is asked for."""
    if asked is None:
        return
    try:
        yield Finding(name, "ok", f"{asked}: {read()}")
    except (UserError, OSError) as error:
        yield Finding(name, "problem", str(error))


def _images(params: Params) -> str:
    folder = Path(params.image_latents.images or "")
    if not folder.exists() and folder.resolve().is_relative_to(RENDERED.resolve()):
        return "rendered by `dvc repro`, on demand"
    found = choose(params.image_latents, params.seed)
    return f"{len(found.pictures)} images with captions, {found.layout}"


def _awaited(params: Params, reachable: bool) -> str:
    """Which lists are not there yet, because a stage is to fetch them; "" for none."""
    sources = (*params.prompts.sources, *params.prompts.evaluation)
    fetched = [s.name for s in sources if CORPORA in Path(s.path).parents and not Path(s.path).exists()]
    if fetched and params.corpora.fetch:
        return f"{', '.join(fetched)}: to be fetched by the stage corpora"
    distant = [source.name for source in sources if source.format == "hub"]
    return f"{', '.join(distant)}: on the hub, which cannot be reached" if distant and not reachable else ""


def _corpus(params: Params) -> Corpus:
    """What the stage `prompts` would make of the lists. Without the model's tokenizers its lengths are not known."""
    try:
        tokenizers = load_tokenizers(params.base_model, params.base_revision)
    except UserError:
        tokenizers = [stub_tokenizer()]
    return build_corpus(params.prompts, params.seed, tokenizers)


def _asks(row: dict, parser: Language | None) -> bool:
    if row["category"] not in CATEGORIES:
        return False
    return parser is None or plan_of(row["category"], parser(row["text"])) != Plan()


def _guarded(params: Params, corpus: Corpus) -> Iterator[Finding]:
    own = params.train.guard
    if not own.every:
        return
    prompts = set_apart(corpus.rows, own, params.seed)
    strange = next((row["text"] for row in prompts if own.metric == "oracle" and not in_world(row["text"])), None)
    if corpus.report["total"]["train"] <= own.prompts:
        found, remedy = f"sets {own.prompts} prompts apart, which leaves none to train on", "lower train.guard.prompts"
        yield Finding("train.guard", "problem", found, remedy)
    elif strange is not None:
        found = f"metric oracle cannot judge the training prompt {strange!r}"
        yield Finding("train.guard", "problem", found, "set train.guard.metric to clip_score")
    else:
        yield Finding("train.guard", "ok", f"{len(prompts)} training prompts set apart")
