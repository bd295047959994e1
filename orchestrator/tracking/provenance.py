"""What a result came from: the code's commit, the versions of what it stands on, the machine."""

from __future__ import annotations

import socket
import subprocess
from importlib import metadata
from pathlib import Path

import orchestrator

PACKAGES = ("orch", "ray", "torch", "mlflow")
GIT_TIMEOUT_S = 10


def provenance() -> dict[str, str]:
    """Tags that all runs told by this process share: commit and dirty flag where there are any, versions, host."""
    tags = {"orch.host": socket.gethostname()}
    for package in PACKAGES:
        try:
            tags[f"orch.version.{package}"] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return tags | _commit(Path(orchestrator.__file__).parent)


def _commit(package: Path) -> dict[str, str]:
    # Tracked, and not just somewhere below a repository: a virtual environment often lies inside another project's.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return {}
    commit, changes = _git(package, "rev-parse", "HEAD"), _git(package, "status", "--porcelain")
    if commit is None or changes is None:
        return {}
    return {
        "mlflow.source.git.commit": commit,
        "orch.git.commit": commit,
        "orch.git.dirty": "true" if changes else "false",
    }


def _git(directory: Path, *arguments: str) -> str | None:
    """What git says, or None where it is not installed or has nothing to say."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(directory), *arguments], capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
