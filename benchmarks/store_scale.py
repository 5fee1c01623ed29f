"""A tensor store at scale: files, random access by id, and memory, of synthetic latents.

    python -m benchmarks.store_scale [--folder FOLDER] [--repeats 5]

First 20,000 latents of SDXL at 512 px (4 x 64 x 64, float32), as `reference_latents` leaves them: number and size of
files, time to write, and to read rows in random order the first time (shards are verified) and again. Then 10,000 to
1,000,000 rows of 64 bytes with captions, where the index is what counts: time to open and to find a row, memory of the
writer and of the reader. Memory is the peak that a process of its own adds to its imports, in anonymous pages: pages of
files that the system keeps in its cache are not the program's.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

LATENT, SMALL = (4, 64, 64), (4, 2, 2)
PROMPTS, SHARD = 20_000, 1024
CAPTION = "a red metal ball on a wooden table to the left of two small green apples, number "
READS = 2_000


def anonymous() -> float:
    """Anonymous resident memory of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


class Peak:
    """The highest anonymous memory while a block runs, sampled every 5 ms, above what it was before."""

    def __enter__(self) -> Peak:
        self.before = self.highest = anonymous()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.highest = max(self.highest, anonymous())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.megabytes = self.highest - self.before


def write(folder: Path, rows: int, shape: tuple[int, ...], shard: int) -> dict[str, float]:
    import torch

    from comat.storage.tensor_store import TensorStoreWriter

    values = torch.randn(shape)
    with Peak() as peak:
        start = time.perf_counter()
        writer = TensorStoreWriter(folder, shard)
        for row in range(rows):
            writer.add(f"prompt-{row:07d}", {"latents": values + row}, f"{CAPTION}{row}")
        writer.close()
        seconds = time.perf_counter() - start
    return {"write_seconds": seconds, "write_memory": peak.megabytes}


def read(folder: Path, rows: int, repeats: int) -> dict[str, float]:
    from comat.storage.tensor_store import TensorStore

    order = random.Random(0)
    with Peak() as peak:
        start = time.perf_counter()
        store = TensorStore(folder)
        opened = time.perf_counter() - start
        ids = [f"prompt-{order.randrange(rows):07d}" for _ in range(READS)]
        start = time.perf_counter()
        for id in ids:
            store[id]["latents"].sum()
        first, again = time.perf_counter() - start, []
        for _ in range(repeats):
            start = time.perf_counter()
            for id in ids:
                store[id]["latents"].sum()
            again.append((time.perf_counter() - start) / READS)
    return {
        "open_seconds": opened,
        "first_seconds": first,
        "row_ms": 1000 * statistics.median(again),
        "read_memory": peak.megabytes,
    }


def own_process(folder: Path, part: str, rows: int, small: bool, repeats: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.store_scale", "--folder", str(folder), "--repeats", str(repeats)]
    command += ["--part", part, "--rows", str(rows), *(["--small"] if small else [])]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def report(root: Path, rows: int, small: bool, repeats: int) -> None:
    folder = root / str(rows)
    found = own_process(folder, "write", rows, small, repeats) | own_process(folder, "read", rows, small, repeats)
    shards = [file.stat().st_size for file in folder.glob("*.safetensors")]
    print(
        f"{rows:>10,}{len(list(folder.iterdir())):>7}{max(shards) / 1e6:>10.1f}{found['write_seconds']:>9.1f}"
        f"{found['write_memory']:>9.0f}{found['open_seconds']:>9.2f}{found['first_seconds']:>9.2f}"
        f"{found['row_ms']:>9.3f}{found['read_memory']:>9.0f}",
        flush=True,
    )
    shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the stores are written (1.4 GB); default: temporary")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--part", choices=["write", "read"], help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--small", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part == "write":
        shape, shard = (SMALL, 16 * SHARD) if options.small else (LATENT, SHARD)
        print(json.dumps(write(options.folder, options.rows, shape, shard)))
        return
    if options.part == "read":
        print(json.dumps(read(options.folder, options.rows, options.repeats)))
        return
    print("      rows  files  shard MB  write s     MB    open s   2,000 s   row ms       MB")
    with tempfile.TemporaryDirectory(dir=options.folder) as root:
        report(Path(root), PROMPTS, False, options.repeats)
        for rows in (10_000, 100_000, 1_000_000):
            report(Path(root), rows, True, options.repeats)


if __name__ == "__main__":
    main()
