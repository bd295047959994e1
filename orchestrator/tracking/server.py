"""An MLflow server of one's own, on loopback with its own SQLite file. Imports no MLflow."""

from __future__ import annotations

import sys

from orchestrator.processes import Process, spawn
from orchestrator.settings import Settings

HOST = "127.0.0.1"
PORT = 5050
"""Where people find it unless the port is taken; MLflow's own 5000 is often somebody else's."""

OFF = {
    # A job queue for judging language models' answers: eight processes and 600 MB that orch has no use for.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


def start(settings: Settings, port: int) -> Process:
    """Start `mlflow server` and return at once; it answers after 5 to 30 s. Its log is `mlflow.log`."""
    artifacts = settings.storage / "mlflow"
    artifacts.mkdir(parents=True, exist_ok=True)
    database = settings.home / "mlflow.db"
    database.touch(mode=0o600)
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", str(artifacts)]
    command += ["--uvicorn-opts", "--no-access-log"]
    return spawn(command, log=settings.logs / "mlflow.log", env=OFF)
