"""Errors a user can mend: one line, a non-zero exit, no traceback."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable


class UserError(ValueError):
    """Bad input: what was expected, what came, where, and what to do."""


def first_line(error: BaseException) -> str:
    """The first line that says something of an error of another library, at most 300 characters."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]


def main_guard(main: Callable[..., None]) -> Callable[..., None]:
    """Print `error: …` and exit with status 1 where `main` raises a ValueError or an OSError.

    COMAT_DEBUG=1 keeps the traceback.
    """

    @functools.wraps(main)
    def guarded(*args: object, **kwargs: object) -> None:
        try:
            main(*args, **kwargs)
        except (ValueError, OSError) as error:
            if os.environ.get("COMAT_DEBUG") == "1":
                raise
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(1) from None

    return guarded
