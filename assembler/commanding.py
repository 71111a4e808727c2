"""What every command shares: an example under its help, and errors as sentences with an exit code."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, TypeVar

import typer

from assembler.errors import AssemblerError

F = TypeVar("F", bound=Callable[..., Any])


def command_on(app: typer.Typer) -> Callable[[str], Callable[[F], F]]:
    """The decorator that makes a function a command of `app`.

    Under its help stands the example that it is given; AssemblerErrors are sentences on stderr and exit code 1.
    """

    def command(example: str) -> Callable[[F], F]:
        def wrap(function: F) -> F:
            @functools.wraps(function)
            def run(*args: Any, **kwargs: Any) -> Any:
                try:
                    return function(*args, **kwargs)
                except AssemblerError as error:
                    typer.echo(str(error), err=True)
                    raise typer.Exit(1) from error
                except BrokenPipeError:
                    raise  # typer knows what a reader that goes away means
                except OSError as error:
                    what = f"{error.filename}: " if error.filename else ""
                    why = error.strerror or error
                    typer.echo(f"{what}{why}; check the path, its permissions and the room left on the disk", err=True)
                    raise typer.Exit(1) from error
                except KeyboardInterrupt as error:
                    typer.echo("stopped", err=True)
                    raise typer.Exit(130) from error

            name = function.__name__.rstrip("_").replace("_", "-")
            app.command(name, epilog=f"Example: {example}")(run)
            return function

        return wrap

    return command


def print_json(data: Any) -> None:
    """Data for machines."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
