"""The list of commands, and what becomes of errors: one message on stderr and an exit code."""

from __future__ import annotations

import sys

import click
import typer

from orchestrator.cli import internal, results, services, sweeps
from orchestrator.errors import ExitCode, OrchError

EPILOG = (
    "Exit codes: 0 done, 1 the work failed, 2 the input was wrong, 3 the service cannot be reached.  "
    "State lives under $ORCH_HOME (default ~/.orch)."
)

app = typer.Typer(
    name="orch",
    help="Sweeps over Mixture-of-Experts routing and gated recurrent networks: scheduled, tracked, ranked.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (sweeps, results, services, internal):
    group.register(app)


def main() -> None:
    """Entry point of `orch`."""
    try:
        code = app(standalone_mode=False)
    except OrchError as error:
        typer.echo(f"error: {error}", err=True)
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = ExitCode.BAD_INPUT
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except BrokenPipeError:
        # The reader of our output has gone (`orch list | head`); nothing to say, and nobody to say it to.
        sys.stdout = None  # type: ignore[assignment]
        code = ExitCode.OK
    sys.exit(code if isinstance(code, int) else ExitCode.OK)


if __name__ == "__main__":
    main()
