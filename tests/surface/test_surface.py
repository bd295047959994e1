"""What others depend on, frozen as text, so that changes show in review: `pytest tests/surface --accept` renews it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from typer.testing import CliRunner

from orchestrator.cli.main import app
from orchestrator.lifecycle import SWEEP_MOVES, TRIAL_MOVES
from orchestrator.report import output_schemas
from orchestrator.store import schema

HERE = Path(__file__).parent
COMMANDS = (
    "submit", "validate", "plan", "list", "show", "watch", "cancel", "pause", "resume", "retry", "extend", "fork",
    "set-priority", "scale", "events", "nodes", "drain", "leaderboard", "logs", "methods", "schema",
    "simulate", "backup", "restore", "repair",
    "token create", "token list", "token rotate", "token revoke",
    "up", "down", "status", "doctor",
)  # fmt: skip


def cli_text() -> str:
    """`orch --help` and that of every command."""
    env = {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}
    pages = []
    for words in ([], *(name.split() for name in COMMANDS)):
        page = CliRunner().invoke(app, [*words, "--help"], env=env, prog_name="orch", catch_exceptions=False).stdout
        pages.append("\n".join(line.rstrip() for line in page.strip().splitlines()))
    return "\n\n".join(pages) + "\n"


def lifecycle_text() -> str:
    """The state diagrams, in Mermaid."""
    lines = []
    for title, moves in (("sweep", SWEEP_MOVES), ("trial", TRIAL_MOVES)):
        lines += ["stateDiagram-v2", f"  %% {title}"]
        lines += [f"  {a} --> {b}: {', '.join(sorted(actors))}" for (a, b), actors in moves.items()]
    return "\n".join(lines) + "\n"


def tables_text() -> str:
    """The tables as SQLite makes them."""
    dialect = sqlite.dialect()
    made = [
        str(sa.schema.CreateTable(table).compile(dialect=dialect)).strip() for table in schema.metadata.sorted_tables
    ]
    return "\n\n".join(made).replace("\t", "  ") + "\n"


def outputs_text() -> str:
    """The documents of `--format json`."""
    return json.dumps(output_schemas(), indent=1) + "\n"


SURFACES = {
    "cli.txt": cli_text,
    "lifecycle.mmd": lifecycle_text,
    "tables.sql": tables_text,
    "outputs.schema.json": outputs_text,
}


@pytest.mark.parametrize("name", SURFACES)
def test_surface(name, request):
    path, text = HERE / name, SURFACES[name]()
    if request.config.getoption("--accept"):
        path.write_text(text)
    assert text == path.read_text(), f"{path} differs; if that is meant: pytest tests/surface --accept"
