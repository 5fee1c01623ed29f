"""The paper's tables in miniature, as DVC experiments on the shapes world; docs/results.md shows what came out.

`queue` queues rows, one experiment for each seed; `dvc exp run --run-all` runs them; `keep` notes in a file what
those that have run have measured; `show` prints the tables, as Markdown.
"""

from __future__ import annotations

import csv
import json
import re
import statistics
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import typer

from comat.params import SHOWS
from comat.storage.tables import write_csv

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

NO_CONCENTRATION = {"alpha": "0", "beta": "0"}
NO_FIDELITY = {"lambda_adv": "0"}
NO_MIXED = {"image_batch": "0"}
# Experiments run in copies of the project, which lack what git ignores: hence the absolute path.
TRAINED = Path("data/shapes/trained").resolve()
KEPT_MODELS = Path("data/shapes/models")
DINO = {"discriminator": "dino", "discriminator_model": str(TRAINED / "dino")}
VLM = {"captioner": "vlm", "captioner_model": str(KEPT_MODELS / "vlm")}
WEAK = {"captioner_model": str(TRAINED / "captioner_weak")}
APART = {"base_model": str(TRAINED / "apart"), "discriminator_model": str(TRAINED / "apart")}
# TokenCompose trains by 1e-3 and 5e-5 on SD1.4: 10 layers and 4 sizes of maps; here they are 5 and 2.
TOKENCOMPOSE = {
    "concept_activation": "false",
    "lambda_adv": "0",
    "denoising_weight": "1",
    "attribute_images": "real",
    "attribute_tokens": "noun",
    "attribute_loss": "tokencompose",
    "alpha": "2.0e-3",
    "beta": "1.0e-4",
}
TABLES: dict[str, dict[str, dict[str, str]]] = {
    "parts": {
        "ca": NO_CONCENTRATION | NO_FIDELITY | NO_MIXED,
        "ca-ac": NO_FIDELITY | NO_MIXED,
        "ca-ac-fp": NO_MIXED,
        "default": {},
        "ac": {"concept_activation": "false"} | NO_FIDELITY | NO_MIXED,
    },
    # A base whose text encoders say each word by itself: what the parts do where a colour is read at its own word.
    "apart": {
        "apart-ca": APART | NO_CONCENTRATION | NO_FIDELITY | NO_MIXED,
        "apart-ca-ac": APART | NO_FIDELITY | NO_MIXED,
        "apart-all": APART,
    },
    # The learning rate as published, and twice the iterations.
    "schedules": {
        "default": {},
        "constant": {"learning_rate_schedule": "constant"},
        "long": {"train_steps": "140"},
    },
    "fidelity": {
        "real-world": {"discriminator_input": "real_world"} | NO_MIXED,
        "dino": DINO | NO_MIXED,
    },
    # Table 7: captioners of less quality.
    "captioners": {
        "default": {},
        "captioner-medium": {"captioner_model": str(TRAINED / "captioner_medium")},
        "captioner-weak": WEAK,
        "captioner-weak-alone": WEAK | NO_CONCENTRATION,  # what of it attribute concentration does
    },
    # Table 5: captioners of other kinds.
    "kinds": {
        "default": {},
        "git": {"captioner": "git", "captioner_model": str(KEPT_MODELS / "git")},
        "vlm": VLM,
        "vqa": VLM | {"captioner_question": f"'{SHOWS}'", "captioner_answer": "'Yes'"},
    },
    "sweeps": {
        "default": {},
        "k1": {"grad_steps": "1", "attribute_steps": "1"},
        "k10": {"grad_steps": "10"},
        "r5": {"attribute_steps": "5"},
        # Table 8's weights as they stand, and means over layers and steps
        "mean": {"attribute_reduction": "mean", "alpha": "1.0e-3", "beta": "5.0e-5"},
        "without": NO_CONCENTRATION,  # the default run without attribute concentration
        "region": {"beta": "0"},  # the region level of Eq. 4 and 5 alone
        "pixel": {"alpha": "0"},  # their pixel level alone
        "tokencompose": {"attribute_loss": "tokencompose"},
        "t-low": {"mixed_latent_t1": "0", "mixed_latent_t2": "200"},
        "t-high": {"mixed_latent_t1": "600", "mixed_latent_t2": "999"},
    },
    # What TokenCompose's denoising alone brings, and so what its attention maps add.
    "methods": {"grounded": TOKENCOMPOSE, "denoised": TOKENCOMPOSE | NO_CONCENTRATION},
}
"""Table → row → parameters that differ from `params.yaml`, the default run."""
EXPERIMENT = re.compile(r"[a-z0-9-]+-s\d+")
REFERENCE = re.compile(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/[^/]+")
ROWS = {row: values for rows in TABLES.values() for row, values in rows.items()}
KEPT = typer.Argument(None, help="What `keep` has written.")
SEEDS = typer.Option([0], "--seed", help="Again for each further seed.")
SETS = typer.Option([], "--set", "-S", help="KEY=VALUE for all ROWS, but for what a row sets itself; again for each.")
COLUMNS = ("color", "spatial", "numeracy", "complex", "total")
HEAD = (f"| row | seeds | {' | '.join(COLUMNS)} | Fréchet distance |", "|---" * (len(COLUMNS) + 3) + "|")
MODELS = ("base", "tuned")
HEADER = ("run", "model", *COLUMNS, "frechet")


@app.command()
def queue(rows: list[str], seeds: list[int] = SEEDS, sets: list[str] = SETS) -> None:
    """Queue ROWS, or whole tables by their names, once for each seed."""
    names = [name for row in rows for name in TABLES.get(row, [row])]
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise typer.BadParameter(f"no row or table {unknown[0]!r}; there are {', '.join([*TABLES, *ROWS])}")
    for seed in seeds:
        for name in names:
            own = [f"{key}={value}" for key, value in ROWS[name].items()]
            values = [part for value in (*sets, f"seed={seed}", *own) for part in ("-S", value)]
            subprocess.run(["dvc", "exp", "run", "--queue", "-n", f"{name}-s{seed}", *values], check=True)


@app.command()
def keep(file: Path) -> None:
    """Add to the CSV FILE, or write anew there, what the experiments that have run have measured."""
    keep_runs(file, experiments())


@app.command()
def show(file: Path | None = KEPT) -> None:
    """Print the tables of FILE, or of the experiments that have run: means over seeds, the lowest and the highest."""
    print(tables(read(there(file)) if file else experiments()))


def there(file: Path) -> Path:
    if not file.is_file():
        raise typer.BadParameter(
            f"{file}: no such file; `keep` writes it, and `benchmarks.methods draw` that of the methods"
        )
    return file


def keep_runs(file: Path, runs: Mapping[str, dict]) -> None:
    """Add to the CSV `file`, or write anew there, from experiment name → metrics; of a model that has none, no line."""
    found = sorted((read(file) | dict(runs)).items())
    lines = [(name, model, metrics) for name, metrics in found for model in MODELS if model in metrics["frechet"]]
    write_csv(file, HEADER, [[name, model, *_values(metrics, model)] for name, model, metrics in lines])


def _values(metrics: dict, model: str) -> list[float]:
    return [round(value, 4) for value in (*(metrics["oracle"][c][model] for c in COLUMNS), metrics["frechet"][model])]


def read(file: Path) -> dict[str, dict]:
    """Experiment name → as much of its metrics as `keep` keeps."""
    found: dict[str, dict] = {}
    for row in csv.DictReader(file.read_text().splitlines()) if file.exists() else []:
        metrics = found.setdefault(row["run"], {"oracle": {column: {} for column in COLUMNS}, "frechet": {}})
        for column in COLUMNS:
            metrics["oracle"][column][row["model"]] = float(row[column])
        metrics["frechet"][row["model"]] = float(row["frechet"])
    return found


def tables(found: Mapping[str, dict]) -> str:
    """Markdown from experiment name → metrics of its evaluation; no table that has only rows of others before it."""
    lines: list[str] = []
    shown: set[str] = set()
    for table, rows in TABLES.items():
        done = {row: [m for name, m in found.items() if name.rpartition("-s")[0] == row] for row in rows}
        news = {row for row, runs in done.items() if runs} - shown
        if not news:
            continue
        shown |= news
        lines += ["", table, "", *HEAD, line("base", by_seed(found, rows), "base")]
        lines += [line(row, runs, "tuned") for row, runs in done.items() if runs]
    return "\n".join(lines) if lines else "none has run"


def by_seed(found: Mapping[str, dict], rows: Collection[str]) -> list[dict]:
    """The metrics of one of `rows` for each seed: the base is the same in all of them."""
    seeds = {name.rpartition("-s")[2]: metrics for name, metrics in found.items() if name.rpartition("-s")[0] in rows}
    return list(seeds.values())


def line(row: str, runs: Sequence[dict], model: str) -> str:
    """A line of a Markdown table: the mean of one model's metrics over runs, and their range."""
    scores = [_span([100 * run["oracle"][column][model] for run in runs], 1) for column in COLUMNS]
    return f"| {row} | {len(runs)} | {' | '.join(scores)} | {_span([run['frechet'][model] for run in runs], 2)} |"


def _span(values: Sequence[float], digits: int) -> str:
    """Mean, and the range where there are several."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def experiments() -> dict[str, dict]:
    """Experiment name → metrics of its evaluation, of those that have ended well: DVC makes a reference of each.

    Read from git, in which metrics stand: `dvc exp show` takes minutes where experiments wait in the queue.

    Raises:
        BadParameter: if two of them have one name, which DVC allows where other commits were their start.
    """
    refs = subprocess.run(
        ["git", "for-each-ref", "--format=%(refname)", "refs/exps"], check=True, capture_output=True, text=True
    ).stdout.split()
    found: dict[str, dict] = {}
    for ref in filter(REFERENCE.fullmatch, refs):
        shown = subprocess.run(["git", "show", f"{ref}:data/evaluate/metrics.json"], capture_output=True, text=True)
        name = ref.rpartition("/")[2]
        if shown.returncode == 0 and name in found:
            raise typer.BadParameter(f"two experiments {name}, of two commits; take one away by `dvc exp remove`")
        if shown.returncode == 0:
            found[name] = json.loads(shown.stdout)
    return found


if __name__ == "__main__":
    app()
