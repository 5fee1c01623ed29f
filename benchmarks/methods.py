"""Table 1 in miniature: training-free methods beside what training brings, on the shapes world.

`draw` adds to a file what the methods reach with the models of experiments that have run (rows of
`benchmarks.miniature`), on their prompts and from their noise; `show` prints the table from that file and the one that
`benchmarks.miniature keep` wrote; `seconds` times an image of each in a finished run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median

import typer

from benchmarks.miniature import COLUMNS, EXPERIMENT, HEAD, by_seed, keep_runs, line, read, there
from comat.diffusion.load import load_backbone
from comat.diffusion.sampling import decoded, sample_latents
from comat.finished.experiments import FOLDERS, fetch
from comat.params import Params, load
from comat.samples.methods import METHODS
from comat.samples.peer_method import MethodRun, pictures_by_method
from comat.storage.tables import IMAGE_INDEX, read_table

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

NEEDED = (*FOLDERS, "entities", "base_samples", "evaluate")
WITH = {"base": tuple(METHODS), "tuned": ("attend_and_excite",)}
"""Model → the methods that draw with it."""
TRAINED = {
    "ca": "concept activation alone (a reward)",
    "denoised": "denoising of real images alone (Eq. 1)",
    "grounded": "TokenCompose",
    "default": "CoMat",
}
"""Rows of `benchmarks.miniature` that the table takes over."""
EXPERIMENTS = typer.Option(..., "--experiment", help="Such as default-s0; again for each further seed.")


@app.command()
def draw(file: Path, experiments: list[str] = EXPERIMENTS, work: Path = Path(".work/methods")) -> None:
    """Draw and judge, then add to the CSV FILE; what is in the folder WORK already is not drawn again."""
    for experiment in experiments:
        if not EXPERIMENT.fullmatch(experiment):
            raise typer.BadParameter(f"{experiment!r}: expected ROW-sSEED, as `benchmarks.miniature queue` calls them")
        run = work / experiment
        if not run.exists():
            with tempfile.TemporaryDirectory(dir=_made(work)) as passing:
                fetch(experiment, Path(passing) / "run", NEEDED)
                (Path(passing) / "run").rename(run)
        found: dict[str, dict] = {}
        for model, methods in WITH.items():
            for method in methods:
                metrics = _judged(run, method, model)
                row = found.setdefault(f"{method}-{experiment.rpartition('-')[2]}", {"oracle": {}, "frechet": {}})
                for column in COLUMNS:
                    row["oracle"].setdefault(column, {})[model] = metrics["oracle"][column]["value"]
                row["frechet"][model] = metrics["frechet"]["value"]
        keep_runs(file, found)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _judged(run: Path, method: str, model: str) -> dict:
    name = method if model == "base" else f"{method}-tuned"
    own = ["--tuned"] * (model == "tuned") + ["--name", name, "--out", str(run / "peers")]
    of = ["--params", str(run / "params.yaml"), "--data", str(run / "data")]
    subprocess.run([sys.executable, "-m", "comat.cli", "evaluate", "--method", method, *own, *of], check=True)
    return json.loads((run / "peers" / name / "metrics.json").read_text())


@app.command()
def show(methods: Path, parts: Path) -> None:
    """Print the table: means over seeds, the lowest and the highest."""
    drawn, trained = read(there(methods)), read(there(parts))
    rows = [("base", by_seed(trained, TRAINED), "base")]
    rows += [(method, _of(method, drawn, "base"), "base") for method in METHODS]
    rows += [(title, _of(row, trained, "tuned"), "tuned") for row, title in TRAINED.items()]
    rows += [(f"CoMat and {method}", _of(method, drawn, "tuned"), "tuned") for method in WITH["tuned"]]
    print("\n".join([*HEAD, *(line(*row) for row in rows if row[1])]))


def _of(row: str, runs: Mapping[str, dict], model: str) -> list[dict]:
    """The metrics of a row's seeds, where there are some of the model."""
    return [own for name, own in runs.items() if name.rpartition("-s")[0] == row and model in own["frechet"]]


@app.command()
def seconds(params: Path = Path("params.yaml"), data: Path = Path("data"), repeats: int = 3) -> None:
    """Print seconds an image by the base and by each method, in batches of 32: medians, in turn."""
    own = load(params)
    index = read_table(data / "base_samples/index.parquet", IMAGE_INDEX)[:32]
    drawing: dict[str, Iterator[object]] = {"base": _base(own, data, index)}
    for method in METHODS:
        drawing[method] = pictures_by_method(own, MethodRun(method, data), [index] * (repeats + 1))
    for pictures in drawing.values():
        next(pictures)  # the first one loads the models
    times: dict[str, list[float]] = {name: [] for name in drawing}
    for _ in range(repeats):
        for name, pictures in drawing.items():
            start = time.perf_counter()
            next(pictures)
            times[name].append((time.perf_counter() - start) / len(index))
    base = median(times["base"])
    for name, taken in times.items():
        print(f"{name}: {median(taken):.3f} s, {median(taken) / base:.1f} of the base's")


def _base(params: Params, data: Path, index: list[dict]) -> Iterator[object]:
    backbone = load_backbone(params, data / "warmup")
    texts, keys = [row["text"] for row in index], [(row["prompt_id"], row["seed"]) for row in index]
    while True:
        yield decoded(backbone, sample_latents(backbone, params, texts, keys, "sample", params.resolution))


if __name__ == "__main__":
    app()
