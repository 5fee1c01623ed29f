"""Starting a stage once for each device: by the user's accelerate configuration, with the stage's command unchanged.

A stage that is run plainly runs itself through `accelerate launch` where the configuration asks for several processes;
the processes that a launcher started find RANK and WORLD_SIZE in their environment and go on (docs/scale.md).
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
from pathlib import Path

from comat.errors import UserError, first_line
from comat.storage.yaml_files import read_bounded

CONFIG, LAUNCHER, LAUNCHED = "ACCELERATE_CONFIG_FILE", "COMAT_LAUNCHER", "COMAT_LAUNCHED"
KINDS = ("NO", "MULTI_CPU", "MULTI_GPU", "MULTI_XPU", "MULTI_NPU", "MULTI_MLU", "MULTI_MUSA", "MULTI_HPU")
"""Ways in which every process holds whole models; a sharded one would need other training code."""


def launch_where_asked(module: str) -> None:
    """Run `module` with this process's arguments in the processes that are asked for, and exit with their status.

    Returns where one process is asked for, or where this process is one of several already.

    Raises:
        UserError: if the configuration is not accelerate's or of an unsupported kind, or a process was killed.
        SystemExit: when the processes have ended.
    """
    if "RANK" in os.environ:
        return
    command, config = os.environ.get(LAUNCHER), _config_file()
    arguments = ["--module", module, *sys.argv[1:]]
    if command:
        _once(command, module)
        words = [*shlex.split(command), *arguments]
        os.execvp(words[0], words)
    elif config and (count := _processes(config)) > 1:
        _once(str(config), module)
        _accelerate(config, count, arguments)
        raise SystemExit(0)


def asked_processes() -> str:
    """How a stage would be started, in words.

    Raises:
        UserError: as `launch_where_asked`; or if COMAT_LAUNCHER names no program.
    """
    command, config = os.environ.get(LAUNCHER), _config_file()
    if command:
        words = shlex.split(command)
        if not words or shutil.which(words[0]) is None:
            raise UserError(f"{LAUNCHER} is {command!r}: no such program; correct it (docs/scale.md), or unset it")
        return f"by {LAUNCHER}: {command}"
    count = _processes(config) if config else 1
    return f"one process for each stage{f' ({config})' if config else ''}" if count == 1 else f"{count} by {config}"


def _once(launcher: str, module: str) -> None:
    """See that `launcher` has not started this process already."""
    if os.environ.get(LAUNCHED):
        raise UserError(f"{launcher}: started {module} without RANK and WORLD_SIZE; see docs/scale.md")
    os.environ[LAUNCHED] = "1"


def _config_file() -> Path | None:
    """ACCELERATE_CONFIG_FILE, which has to exist, or what `accelerate config` wrote, if it did."""
    if os.environ.get(CONFIG):
        path = Path(os.environ[CONFIG])
        if not path.exists():
            raise UserError(f"{path}: no such file, but {CONFIG} names it; `accelerate config` writes one")
        return path
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    path = (Path(os.environ.get("HF_HOME", cache)) / "accelerate/default_config.yaml").expanduser()
    return path if path.exists() else None


def _values(config: Path) -> dict:
    try:
        values = read_bounded(str(config), config.read_text(encoding="utf-8")) or {}
        if not isinstance(values, dict):
            raise UserError(f"expected keys and values, got {type(values).__name__}")
        return values
    except (OSError, ValueError) as error:
        raise UserError(f"{config}: not a configuration of accelerate ({' '.join(str(error).split())})") from None


def _processes(config: Path) -> int:
    values = _values(config)
    count, kind = values.get("num_processes", 1), values.get("distributed_type", "NO")
    if not isinstance(count, int) or count < 1:
        raise UserError(f"{config}: num_processes is {count!r}: expected a number from 1")
    if kind not in KINDS:
        raise UserError(
            f"{config}: distributed_type is {kind}: every process holds the whole models here, expected MULTI_GPU "
            "(MULTI_CPU without GPUs)"
        )
    return count


def _accelerate(config: Path, count: int, arguments: list[str]) -> None:
    """`accelerate launch` in this process, with the end of the processes as one line."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    values = _values(config)
    # Without --multi_gpu accelerate starts several processes on CPUs through MPI only.
    options = ["--config_file", str(config), "--multi_gpu"]
    if values.get("num_machines", 1) == 1 and not values.get("main_process_port"):
        options += ["--main_process_port", "0"]  # a free one: several runs may share a machine
    try:
        launch_command(launch_command_parser().parse_args([*options, *arguments]))
    except RendezvousError as error:
        raise UserError(f"{config}: the machines of this run did not meet ({first_line(error)})") from None
    except ChildFailedError as error:
        # The launcher ends the others by SIGTERM; whoever died by another signal was the first.
        killed = {rank: -f.exitcode for rank, f in error.failures.items() if f.exitcode < 0}
        for rank, number in killed.items():
            if number != signal.SIGTERM:
                name = signal.Signals(number).name
                hint = " (out of memory?)" if number == signal.SIGKILL else ""
                raise UserError(f"process {rank} of {count} was ended by {name}{hint}; run again to go on") from None
        raise SystemExit(1) from None  # it has said why
