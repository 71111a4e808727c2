"""The one exception people see: a sentence that names the place, what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class AssemblerError(Exception):
    """Something the user can put right; the command line prints it and exits with 1."""


@contextmanager
def told(what: str) -> Iterator[None]:
    """Say `what` failed when a library refuses given data; for those whose errors have no common class of their own."""
    try:
        yield
    except AssemblerError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise AssemblerError(f"{what} ({reason[:300]})") from error
