"""What every stage script shares: its options, errors as one line, and outs that appear whole."""

from __future__ import annotations

import argparse
import glob
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from comat.errors import UserError


def options(
    description: str | None, inputs: Sequence[str], out: str, argv: Sequence[str] | None = None
) -> argparse.Namespace:
    """Parse `--<input> PATH … --out PATH --params PATH`; inputs and out default to `data/<name>`."""
    parser = argparse.ArgumentParser(description=description)
    for name in inputs:
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, default=Path("data") / name)
    parser.add_argument("--out", type=Path, default=Path("data") / out)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    return parser.parse_args(argv)


def publish(folder: Path, out: Path) -> None:
    """Put a finished working folder in the place of `out`; its files are linked there where the disk is the same.

    Raises:
        UserError: if a file cannot be written there; what stood there before still does.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    for left in out.parent.glob(f".{glob.escape(out.name)}.*.part"):  # by a run that was killed here
        shutil.rmtree(left)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        shutil.copytree(folder, part, copy_function=_place)
    except shutil.Error as error:
        shutil.rmtree(part)
        source, _, reason = error.args[0][0]  # of the first file; the rest says the same
        raise UserError(f"{out}: cannot copy {source} there: {reason}; the finished work waits in {folder}") from None
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)


def say_fewer(parameter: str, asked: int | None, there: int, what: str) -> None:
    """Say where there is less than `asked`, which is then all that is taken; None or 0 asks for all."""
    if asked and there < asked:
        print(f"{parameter} is {asked:,}, and there are {there:,} {what}: all of them are taken", file=sys.stderr)


@contextmanager
def written_whole(out: Path) -> Iterator[Path]:
    """A folder to write into, whose files and folders are put into `out` at the end, one by one; none, if it fails.

    What else stands in `out` stays. It is for what is made in one go; each process has a folder of its own.
    """
    out = out.resolve()  # a link may lead to another disk
    own = f".{out.name}.{platform.node().replace('.', '-')}"  # several machines may share the disk
    for left in out.parent.glob(f"{glob.escape(own)}.*.part"):  # by a run that was killed
        if not psutil.pid_exists(int(left.name.split(".")[-2])):
            shutil.rmtree(left, ignore_errors=True)
    part = out.with_name(f"{own}.{os.getpid()}.part")
    part.mkdir(parents=True)
    try:
        yield part
        out.mkdir(exist_ok=True)
        for made in sorted(part.iterdir()):
            if made.is_dir():
                shutil.rmtree(out / made.name, ignore_errors=True)
            made.replace(out / made.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _place(source: str, target: str) -> None:
    """Give the working folder's file, which is not written to any more, its name in the out; copy it where it must be.

    The working folder goes right after, and until then nothing writes into a file that has its name.
    """
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)
