"""The stage `prompts` on the corpora of a parameter file: what is kept, time and memory.

    python -m benchmarks.prompt_corpus [--params presets/sdxl.yaml] [--base-model data/shapes/models/base]

Runs the whole stage, in a process of its own, with decontamination on and off, and prints for each the prompts read,
kept and dropped by source, CPU and wall seconds, and the peak of resident memory beside that of a process that only
imports what the stage imports. `--base-model` takes the tokenizers from elsewhere: they count too long prompts alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ruamel.yaml import YAML

IMPORTS = "from comat.corpora.build import build_corpus; from comat.storage.tables import write_table"


def measured(command: list[str]) -> tuple[float, float, float]:
    """CPU seconds, wall seconds and peak memory in MB of a process."""
    start, process = time.perf_counter(), subprocess.Popen(command, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed; run it to see why")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - start, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--base-model")
    args = parser.parse_args()
    values = YAML(typ="safe").load(args.params.read_text(encoding="utf-8"))
    values["base_model"] = args.base_model or values["base_model"]
    cpu, _, memory = measured([sys.executable, "-c", IMPORTS])
    print(f"imports alone: CPU {cpu:.1f} s, peak memory {memory:.0f} MB")
    for on in (False, True):
        values["prompts"]["decontaminate"] = on
        with tempfile.TemporaryDirectory() as folder:
            params, out = Path(folder, "params.yaml"), Path(folder, "out")
            YAML().dump(values, params)
            stage = [sys.executable, "-m", "stages.prompts", "--params", str(params), "--out", str(out)]
            cpu, wall, memory = measured(stage)
            report = json.loads((out / "report.json").read_text())
        print(f"decontaminate: {on}: CPU {cpu:.1f} s, wall {wall:.1f} s, peak memory {memory:.0f} MB")
        for name, entry in [("total", report["total"]), *report["sources"].items(), *report["evaluation"].items()]:
            print(f"  {name}: {entry}")


if __name__ == "__main__":
    main()
