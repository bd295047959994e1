"""How the courier gets its tracker. Imports no MLflow before it must."""

from __future__ import annotations

import os

from orchestrator.ports import Tracker

CLIENT = {
    # By default MLflow waits for four minutes before it admits that a server is away; the courier asks again anyway.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def connect(uri: str, instance: str) -> Tracker:
    """The tracker for an MLflow tracking URI. Takes seconds; asks nothing of the server yet.

    instance: tells this orch's runs from those of another that uses the same MLflow.
    """
    for name, value in CLIENT.items():
        os.environ.setdefault(name, value)
    # Importing MLflow takes seconds, which the coordinator's start must not, and it reads its environment as it goes.
    from orchestrator.tracking.mlflow import MlflowTracker

    return MlflowTracker(uri, instance)
