"""Errors a user can mend: one line, a non-zero exit, no traceback. And how text of others is shown."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TextIO, cast

HELPS = {
    "stages.warmup_images": "warmup_images.batch_size or native_resolution",
    "stages.warmup": "warmup.batch_size, or set warmup.lora_rank above 0",
    "stages.prompt_embeddings": "the precision: bf16",
    "stages.reference_latents": "reference_latents.batch_size, or set precision to bf16",
    "stages.image_latents": "image_latents.batch_size",
    "stages.train": "train.device_batch, or set train.gradient_checkpointing to all or precision to bf16",
    "stages.base_samples": "samples.batch_size, or set precision to bf16",
    "stages.samples": "samples.batch_size, or set precision to bf16",
    "stages.evaluate": "evaluate.batch_size",
    "comat.cli": "samples.batch_size or evaluate.batch_size, or set precision to bf16",
}
"""Which parameters a phase's memory depends on."""
FULL = re.compile(r"out of memory|can't allocate memory|not enough memory|ALLOC_FAILED", re.IGNORECASE)
DEVICE = re.compile(r"CUDA (driver )?error|No CUDA GPUs|NVIDIA driver|Torch not compiled with|not linked with support")
OTHERS = {
    "httpx": "HTTPError",
    "httpx2": "HTTPError",
    "safetensors": "SafetensorError",
    "pyarrow": "ArrowException",
    "zipfile": "BadZipFile",
}
"""Package → the base class of its errors that is neither a ValueError nor an OSError."""


class UserError(ValueError):
    """Bad input: what was expected, what came, where, and what to do."""


class Interrupted(KeyboardInterrupt):
    """Somebody ended this process by SIGINT or SIGTERM; the message says how to go on."""


def clean(text: object, longest: int = 2000) -> str:
    """Text of others as a terminal may show it: what would control the terminal is escaped, and the end is cut."""
    shown = "".join(map(_visible, str(text)[: longest + 1]))
    return shown if len(shown) <= longest else f"{shown[:longest]}…"


def _visible(character: str) -> str:
    controls = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    return character.encode("unicode_escape").decode() if controls else character


def say(text: str) -> None:
    """Print lines that may hold text of others."""
    print("\n".join(clean(line, 100_000) for line in text.split("\n")))


def first_line(error: BaseException) -> str:
    """The first line that says something of an error of another library, at most 300 characters.

    Where it only announces the next ("Error(s) in loading state_dict for X:") the next is said as well.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])[:300]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the host or the device had no memory left."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(FULL.search(str(error))))


def explained(error: Exception, module: str = "") -> str | None:
    """What went wrong as one line, where the user or the machine is to blame; None for a bug.

    `module` is what was started, for example stages.train.
    """
    text = str(error)
    if is_out_of_memory(error):
        return f"out of memory ({first_line(error)}); lower {HELPS.get(module, 'the batch size')}"
    if DEVICE.search(text) and isinstance(error, RuntimeError | AssertionError):
        return f"the device does not compute ({first_line(error)}); check `device` in params.yaml, and the driver"
    if isinstance(error, UnicodeError):
        return f"text that is not UTF-8 ({text})"
    if isinstance(error, ValueError | OSError):
        return text or type(error).__name__
    if isinstance(error, ImportError):
        own = (error.name or "").split(".")[0] in ("comat", "stages")
        return None if own else f"{first_line(error)}; install the packages again: `pip install -r requirements.txt`"
    if isinstance(error, RecursionError):
        return "something that was read is nested too deep; COMAT_DEBUG=1 shows where"
    for kind in type(error).__mro__:
        if OTHERS.get(kind.__module__.split(".")[0]) == kind.__name__:
            return f"{kind.__module__.split('.')[0]}: {first_line(error)}"
    return None


class _Stream:
    """A standard stream whose reader may go: then the work goes on, unseen. Knows whether a line is begun."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self.begun = stream, False
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # an ASCII terminal shows what it can

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if text:
            self.begun = not text.endswith("\n")
        self._unless_broken(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._unless_broken(self._stream.flush)

    def _unless_broken(self, act: Callable[[], object]) -> None:
        try:
            act()
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def _streams() -> Iterator[None]:
    before = sys.stdout, sys.stderr
    # Closed ones are None, and so is nothing to be written.
    out, err = (cast("TextIO", _Stream(stream)) if stream else stream for stream in before)
    sys.stdout, sys.stderr = out, err
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class _Signals:
    """SIGINT and SIGTERM raise `Interrupted`; inside `unbroken` they wait for its end."""

    def __init__(self) -> None:
        self.held, self.raised, self.came = False, False, 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.came = number
        if not self.held:
            self.raised = True
            raise Interrupted

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Within the main thread, which alone gets signals; what stood there before comes back."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.held, self.raised, self.came = False, False, 0
        before = {number: signal.signal(number, self) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self.raised, self.came = False, 0


_SIGNALS = _Signals()


@contextlib.contextmanager
def unbroken() -> Iterator[None]:
    """What must not be done by half: a signal that arrives inside is heard at the end."""
    _SIGNALS.held = True
    try:
        yield
    finally:
        _SIGNALS.held = False
    if _SIGNALS.came:
        raise Interrupted


@contextlib.contextmanager
def _undisguised() -> Iterator[None]:
    """What fails after `Interrupted` was raised fails by it.

    Code in C may put an error of its own in the place of one that is raised beneath it. What fails inside `unbroken`,
    where a signal waits, fails by itself: half done, it must not be saved.
    """
    try:
        yield
    except Exception as error:
        if not _SIGNALS.raised:
            raise
        raise Interrupted from error


@contextlib.contextmanager
def saving(save: Callable[[], None], reached: Callable[[], str]) -> Iterator[None]:
    """Work that a later run goes on with: interrupted, it is saved, and the error says what was `reached`.

    Raises:
        Interrupted: by SIGINT or SIGTERM; `save` has been called.
    """
    try:
        with _undisguised():
            yield
    except KeyboardInterrupt:
        save()
        raise Interrupted(f"interrupted at {reached()}; `dvc repro` goes on") from None


def main_guard(main: Callable[..., None]) -> Callable[..., None]:
    """Print `error: …` and exit with status 1 where `main` raises what `explained` has a line for.

    An interruption exits with 128 and the signal's number. COMAT_DEBUG=1 keeps tracebacks; a bug always has its own.
    """

    @functools.wraps(main)
    def guarded(*args: object, **kwargs: object) -> None:
        spec = main.__globals__.get("__spec__")
        module, debug = spec.name if spec else main.__module__, os.environ.get("COMAT_DEBUG") == "1"
        with _streams(), _SIGNALS.caught():
            try:
                with _undisguised():
                    main(*args, **kwargs)
                if sys.stdout:
                    sys.stdout.flush()
            except KeyboardInterrupt as stop:
                _fresh_line()
                if debug:
                    raise
                again = "`dvc repro` goes on" if module.startswith("stages.") else "run it again"
                if os.environ.get("RANK", "0") == "0" and sys.stderr:
                    print(f"error: {clean(stop) or f'interrupted; {again}'}", file=sys.stderr)
                raise SystemExit(128 + (_SIGNALS.came or signal.SIGINT)) from None
            except Exception as error:
                line = explained(error, module)
                _fresh_line()
                if line is None or debug:
                    raise
                if sys.stderr:
                    one = re.sub(r"\s*\n\s*", " ", line.strip())
                    print(f"error: {clean(one)}", file=sys.stderr)
                raise SystemExit(1) from None

    return guarded


def _fresh_line() -> None:
    """End the line that a progress bar has begun."""
    if getattr(sys.stderr, "begun", False):
        print(file=sys.stderr)
