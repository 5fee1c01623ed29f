"""The result table as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from comat.errors import clean
from comat.evaluation.distances import DISTANCES

TITLES = {
    "oracle": "everything right",
    "t2i_compbench": "T2I-CompBench",
    "tifa": "TIFA",
    "dpg": "DPG-Bench",
    "dsg": "DSG-1k",
    "geneval": "GenEval",
    "geneval2": "GenEval 2",
    "clip_score": "CLIPScore",
    "hps_v2": "HPS v2",
    "pick_score": "PickScore",
    "vqa_score": "VQAScore",
    "captioner": "captioner's score",
    "frechet": "Fréchet distance",
    "fid": "FID",
}
SUBSTITUTES = {
    "t2i_compbench": "Grounding DINO in the place of UniDet",
    "tifa": "BLIP in the place of mPLUG",
    "dpg": "BLIP in the place of mPLUG",
    "dsg": "BLIP in the place of PaLI",
    "geneval": "Grounding DINO in the place of Mask2Former",
    "vqa_score": "a model of the run's own in the place of CLIP-FlanT5-XXL",
}
"""Judges that are not those of the published numbers; docs/benchmarks.md."""
SCALES = {"clip_score": 1, "hps_v2": 1, "pick_score": 1, "captioner": 1}
"""Of what is shown; the other scores are shares, shown in per cent."""
NAMES = {
    "color": "attribute binding",
    "spatial": "spatial relation",
    "numeracy": "counting",
    "complex": "complex",
    "total": "total",
}
"""Categories of the embedded world in words; others are shown as they are."""
OF_THEIR_OWN = ("t2i_compbench", "tifa", "dpg", "dsg", "geneval", "geneval2")
"""Benchmarks with categories of their own, some of which are called as the world's."""
UNJUDGED = "nothing is judged: no benchmark is on in section evaluate"
PEER = 14  # characters of a peer's column at least


def judges(evaluators: Mapping[str, Mapping[str, str]]) -> list[str]:
    """A sentence for each benchmark of `evaluators.json` that a model judges."""
    found = []
    for name, models in evaluators.items():
        if models:
            said = ", ".join(f"{clean(model, 200)} ({role})" for role, model in models.items())
            if name in SUBSTITUTES:
                said += f": {SUBSTITUTES[name]}, so not to be compared with published numbers"
            found.append(f"{TITLES.get(name, name)} is judged by {said}.")
    return found


def names_of(benchmark: str) -> Mapping[str, str]:
    """A benchmark's categories in words, where they are to be called otherwise."""
    return {} if benchmark in OF_THEIR_OWN else NAMES


def result_table(metrics: dict, peers: Mapping[str, dict] | None = None) -> str:
    """Base beside tuned by benchmark and category, with the gain's 95% interval; distances last.

    `peers` are the metrics of other models by their names, as `comat evaluate` writes them: a column each.
    """
    peers = peers or {}
    lines: list[str] = [] if metrics else [UNJUDGED]
    for name in (name for name in metrics if name not in DISTANCES):
        lines += ["", *_benchmark(name, metrics[name], {peer: found.get(name, {}) for peer, found in peers.items()})]
    for name in (name for name in DISTANCES if name in metrics):
        row, own = metrics[name], [found.get(name) for found in peers.values()]
        ratio = f"tuned/base {row['ratio']:.2f}, lower is better"
        lines.append(f"{TITLES[name]:<20}{row['base']:>8.3f}{row['tuned']:>8.3f}   {ratio:<33}")
        lines[-1] += "".join(
            f"{found['value'] if found else float('nan'):>{_width(peer)}.3f}"
            for peer, found in zip(peers, own, strict=True)
        )
        if name == "fid" and "n_real" in row:
            lines.append(f"of {row['n']} images and {row['n_real']} photographs; {row['left_out']} were left out")
    return "\n".join(line.rstrip() for line in lines).lstrip("\n")


def _width(peer: str) -> int:
    return max(PEER, len(clean(peer, 60)) + 2)


def _benchmark(name: str, rows: Mapping[str, dict], peers: Mapping[str, dict[str, dict]]) -> Iterator[str]:
    """The lines of one benchmark; a peer that it did not judge has "nan"."""
    scale = SCALES.get(name, 100)
    unit, digits = ("%", 1) if scale == 100 else ("", 2)
    head = f"{TITLES.get(name, name):<20}{'base':>8}{'tuned':>8}{'gain':>8}   {'95% interval':<18}{'judged':>7}"
    head += "".join(f"{clean(peer, 60):>{_width(peer)}}" for peer in peers)
    yield from (head, "-" * len(head))
    for category, row in rows.items():
        base, tuned = (f"{row[model] * scale:.{digits}f}{unit}" for model in ("base", "tuned"))
        gain = f"{row['gain'] * scale:+.{digits}f}"
        ends = [row["gain_low"], row["gain_high"]]
        interval = "none" if None in ends else f"[{', '.join(f'{end * scale:+.{digits}f}' for end in ends)}]"
        own = {p: found[category]["value"] * scale if category in found else float("nan") for p, found in peers.items()}
        title = names_of(name).get(category, clean(category, 60))
        yield (
            f"{title:<20}{base:>8}{tuned:>8}{gain:>8}   {interval:<18}{row['n']:>7}"
            + "".join(f"{f'{value:.{digits}f}{unit}':>{_width(peer)}}" for peer, value in own.items())
        )
    if name in SUBSTITUTES:
        yield f"judged by {SUBSTITUTES[name]}: not to be compared with published numbers"
