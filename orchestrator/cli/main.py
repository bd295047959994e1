"""The list of commands."""

from __future__ import annotations

import typer

from orchestrator.cli import (
    catalog,
    control,
    data,
    internal,
    lineage,
    results,
    services,
    simulate,
    sweeps,
    tokens,
    upkeep,
)

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
for group in (sweeps, control, lineage, results, catalog, data, simulate, services, upkeep, tokens, internal):
    group.register(app)


def main() -> None:
    """Entry point of `orch`."""
    app()


if __name__ == "__main__":
    main()
