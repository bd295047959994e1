"""Commands that orch itself runs: the coordinator, and a sweep's driver. Good for starting either by hand."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.command import add
from orchestrator.settings import Settings


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    add(app, serve, hidden=True)
    add(app, drive, hidden=True)


def serve(
    host: Annotated[str, typer.Option(help="Loopback unless you know better.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 0,
    ray_dashboard: Annotated[str, typer.Option(help="Address of the Ray dashboard, where the Jobs API is.")] = "",
    mlflow_uri: Annotated[str, typer.Option(help="MLflow tracking URI.")] = "",
) -> None:
    """Run the coordinator in the foreground."""
    # The coordinator brings SQLAlchemy, FastAPI and Ray's job client: seconds that no other command should pay.
    from orchestrator.app.serve import serve as run

    run(Settings.from_env(), host=host, port=port, ray_dashboard=ray_dashboard, mlflow_uri=mlflow_uri)


def drive(
    sweep: Annotated[int, typer.Argument(metavar="SWEEP", help="Number of a sweep.")],
    attempt: Annotated[int | None, typer.Option(min=1, help="Its attempt; ends at once where that is over.")] = None,
) -> int:
    """Drive one sweep to its end. Runs inside a Ray job; works from a shell beside a running cluster, too."""
    # Ray, Tune and torch take seconds to import.
    from orchestrator.app.drive import drive as run

    return run(sweep, Settings.from_env(), attempt)
