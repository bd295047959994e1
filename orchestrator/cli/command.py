"""How a function becomes a command: its return value is the exit code, an error is one message and its code."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import typer

from orchestrator.errors import ExitCode, OrchError


def add(
    app: typer.Typer, function: Callable[..., int | None], name: str | None = None, *, hidden: bool = False
) -> None:
    """Add `function` to `app`."""

    @functools.wraps(function)
    def run(*args: Any, **options: Any) -> None:
        raise typer.Exit(_exit_code(lambda: function(*args, **options)))

    app.command(name, hidden=hidden)(run)


def _exit_code(work: Callable[[], int | None]) -> int:
    try:
        return work() or ExitCode.OK
    except OrchError as error:
        typer.echo(f"error: {error}", err=True)
        return error.exit_code
    except BrokenPipeError:
        # The reader has gone (`orch list | head`): nobody is left to tell, and Python must not try at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
