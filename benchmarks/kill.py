"""SIGKILL at random moments of `dvc repro`: does the rerun end with the same bytes?

    python -m benchmarks.kill [--kills 20] [--seed 0] [--target STAGE …]

In a clone of the committed project, with small counts, the pipeline runs once undisturbed. Then it runs again from
nothing, and whenever a chosen stage starts, a moment of its undisturbed time passes (start-up and DVC's own bookkeeping
included) and SIGKILL takes DVC and the stage at once; `dvc repro` is started again, until it ends. Stages and moments
are drawn by the seed, each stage once before any of them twice. After each such run every output, and dvc.lock, is
compared byte for byte with the undisturbed run's. Exit status 1 where one differs.
"""

from __future__ import annotations

import argparse
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from comat.storage.tables import sha256

ROOT = Path(__file__).parent.parent
RUNNING = re.compile(r"Running stage '(?:.*:)?(\w+)'")
SMALL = {
    "sampling_steps": 4,
    "grad_steps": 2,
    "attribute_steps": 1,
    "native_resolution": 64,
    "train_steps": 6,
    "global_batch": 2,
    "image_batch": 2,
    "warmup_images": {"count": 12, "batch_size": 5},
    "warmup": {"steps": 30, "batch_size": 2},
    "reference_latents": {"count": 24, "batch_size": 5, "shard_size": 8},
    "image_latents": {"count": 24, "batch_size": 5, "shard_size": 8},
    "train": {"checkpoint_every": 2},
    "samples": {"prompts": 6, "seeds": 1, "batch_size": 4, "attention_prompts": 1},
    "evaluate": {"bootstrap": 50, "grid_pairs": 2},
}
"""Sizes at which the whole pipeline takes a minute or two; batches do not divide shards, nor checkpoints the steps."""


@dataclass(frozen=True)
class Kill:
    """A stage and the share of its undisturbed time after which it is killed."""

    stage: str
    share: float


def small_clone(folder: Path) -> None:
    """A clone of the committed project whose parameters are cut down to `SMALL`."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    yaml = YAML()
    path = folder / "params.yaml"
    values = yaml.load(path.read_text(encoding="utf-8"))
    for key, value in SMALL.items():
        if isinstance(value, dict):
            values[key].update(value)
        else:
            values[key] = value
    values["train"]["guard"].update({"every": 3, "prompts": 4})
    yaml.dump(values, path)


class Repro:
    """A running `dvc repro` in a process group of its own; `started` gets the name of every stage, None at the end."""

    def __init__(self, folder: Path, targets: list[str]) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro", *targets],
            cwd=folder,
            env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.started: queue.Queue[str | None] = queue.Queue()
        self.tail: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None  # a pipe, as asked for
        for line in self._process.stdout:
            self.tail = [*self.tail[-19:], line]
            if match := RUNNING.search(line):
                self.started.put(match[1])
        self.started.put(None)

    def kill(self) -> None:
        """SIGKILL to every process of the run."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def wait(self) -> None:
        """Raises a RuntimeError with the last lines where the run failed."""
        if self._process.wait():
            raise RuntimeError(f"dvc repro ended with status {self._process.returncode}:\n{''.join(self.tail)}")


def undisturbed(folder: Path, targets: list[str]) -> dict[str, float]:
    """Run the pipeline; the seconds from the start of each stage to that of the next."""
    run, starts, names = Repro(folder, targets), [], []
    while name := run.started.get():
        names.append(name)
        starts.append(time.monotonic())
    run.wait()
    ends = [*starts[1:], time.monotonic()]
    return {name: end - start for name, start, end in zip(names, starts, ends, strict=True)}


def until(run: Repro, stages: list[str], seconds: float) -> str | None:
    """Let one of the stages start and some seconds pass; the stage that runs then, None where the run is over."""
    while (now := run.started.get()) not in stages:
        if now is None:
            return None
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            after = run.started.get(timeout=left)
        except queue.Empty:
            break
        if after is None:
            return None
        now = after
    return now


def disturbed(folder: Path, targets: list[str], kills: list[Kill], seconds: dict[str, float]) -> None:
    """Run the pipeline from nothing with one kill after the other, then to its end."""
    order = list(seconds)
    for kill in kills:
        run, delay = Repro(folder, targets), kill.share * seconds[kill.stage]
        # A later stage, where the kill before came when this one was done.
        hit = until(run, order[order.index(kill.stage) :], delay)
        run.kill() if hit else run.wait()
        print(f"  {kill.stage} + {delay:.1f} s: {f'killed in {hit}' if hit else 'over before'}", flush=True)
    Repro(folder, targets).wait()


def outputs(folder: Path) -> dict[str, str]:
    """sha256 of dvc.lock and of everything that stages have written; files that should not be there included."""
    data = [path for path in (folder / "data").rglob("*") if path.is_file() and "models" not in path.parts]
    files = [folder / "dvc.lock", folder / "data/models/models.lock.json", *data]
    return {str(file.relative_to(folder)): sha256(file) for file in files}


def forget(folder: Path) -> None:
    """Back to a fresh clone without a cache: no output is left to be taken up."""
    for name in ("dvc.lock", "data", ".work", ".dvc/cache", ".dvc/tmp"):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    subprocess.run(["git", "checkout", "--quiet", "--", "data"], cwd=folder, check=True)


def draw(stages: list[str], kills: int, seed: int) -> list[list[Kill]]:
    """Rounds of kills in the order of the stages: every stage once, then once more for a random part of them, …"""
    rng, rounds = random.Random(seed), []
    while kills > 0:
        chosen = set(rng.sample(stages, min(kills, len(stages))))
        rounds.append([Kill(stage, rng.random()) for stage in stages if stage in chosen])
        kills -= len(chosen)
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", nargs="*", default=[], help="stages to run with all before them; default: all")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="comat-kill-") as name:
        folder = Path(name) / "project"
        small_clone(folder)
        forget(folder)
        seconds = undisturbed(folder, options.target)
        wanted = outputs(folder)
        print(f"undisturbed: {len(seconds)} stages, {sum(seconds.values()):.0f} s, {len(wanted)} files", flush=True)
        wrong: set[str] = set()
        for number, kills in enumerate(draw(list(seconds), options.kills, options.seed), 1):
            print(f"run {number}, {len(kills)} kills", flush=True)
            forget(folder)
            disturbed(folder, options.target, kills, seconds)
            found = outputs(folder)
            differ = {file for file in wanted.keys() | found.keys() if wanted.get(file) != found.get(file)}
            left = [path for path in folder.rglob("*.part") if ".venv" not in path.parts]
            print(f"  {len(wanted)} files compared: {len(differ)} differ {sorted(differ)[:5]}; leftovers: {left}")
            wrong |= differ | {str(path) for path in left}
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
