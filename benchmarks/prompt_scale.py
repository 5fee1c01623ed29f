"""The stage `prompts` on a list of a million prompts: time and memory.

    python -m benchmarks.prompt_scale [--count 1000000] [--format jsonl]

Writes that many prompts of 6 to 20 words drawn at random from 5,000, runs the whole stage in a process of its own, with
2,000 of them held out and the rest decontaminated against these, and prints CPU and wall seconds, and the peak of
resident memory beside that of a process that only imports what the stage imports.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from ruamel.yaml import YAML

from benchmarks.prompt_corpus import IMPORTS, measured

HELD_OUT = 2000


def prompts(count: int) -> Iterator[str]:
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(5000)]
    for _ in range(count):
        yield " ".join(rng.choices(words, k=rng.randint(6, 20)))


def write(folder: Path, kind: str, count: int) -> Path:
    path = folder / f"many.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"prompt": list(prompts(count))}), path)
        return path
    with path.open("w", encoding="utf-8") as file:
        for text in prompts(count):
            file.write((json.dumps({"prompt": text}) if kind == "jsonl" else text) + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--format", choices=("txt", "jsonl", "parquet"), default="jsonl")
    args = parser.parse_args()
    values = YAML(typ="safe").load(Path("params.yaml").read_text(encoding="utf-8"))
    cpu, _, memory = measured([sys.executable, "-c", IMPORTS])
    print(f"imports alone: CPU {cpu:.1f} s, peak memory {memory:.0f} MB")
    with tempfile.TemporaryDirectory() as folder:
        params, out = Path(folder, "params.yaml"), Path(folder, "out")
        path = str(write(Path(folder), args.format, args.count))
        share = HELD_OUT / args.count
        values["prompts"]["sources"] = [{"name": "many", "format": args.format, "path": path, "hold_out": share}]
        YAML().dump(values, params)
        cpu, wall, memory = measured(
            [sys.executable, "-m", "stages.prompts", "--params", str(params), "--out", str(out)]
        )
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    print(f"{args.count} prompts as {args.format}: CPU {cpu:.1f} s, wall {wall:.1f} s, peak memory {memory:.0f} MB")
    print(f"  {report['total']} {report['sources']} {report['tokens']}")


if __name__ == "__main__":
    main()
