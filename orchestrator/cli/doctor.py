"""What orch needs on a machine, each looked at for itself."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
from pydantic import BaseModel

from orchestrator import local
from orchestrator.errors import OrchError
from orchestrator.settings import Settings

MIN_DISK_GB = 2.0
MIN_MEMORY_GB = 3.0
NEEDED = ("ray", "torch", "mlflow", "sqlalchemy", "alembic", "optuna", "fastapi")


class Finding(BaseModel):
    """One check. mend: what to do where it is not ok."""

    name: str
    ok: bool
    finding: str
    mend: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Every check, in the order in which one would mend them."""
    checks: list[Callable[[Settings], Finding]] = [_python, _packages, _home, _disk, _memory, _service]
    return [check(settings) for check in checks]


def _python(_: Settings) -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(name="python", ok=sys.version_info >= (3, 11), finding=version, mend="Install Python 3.11 or newer.")


def _packages(_: Settings) -> Finding:
    versions, missing = [], []
    for name in NEEDED:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    finding = f"missing: {', '.join(missing)}" if missing else ", ".join(versions)
    return Finding(name="packages", ok=not missing, finding=finding, mend="pip install -c constraints.txt -e .")


def _home(settings: Settings) -> Finding:
    try:
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = settings.home / ".doctor"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        return Finding(
            name="state directory",
            ok=False,
            finding=f"{settings.home}: {error.strerror}",
            mend="Set ORCH_HOME to a directory that you may write to.",
        )
    return Finding(name="state directory", ok=True, finding=str(settings.home))


def _disk(settings: Settings) -> Finding:
    place = next(path for path in (settings.storage, *settings.storage.parents) if path.exists())
    free = shutil.disk_usage(place).free / 1e9
    return Finding(
        name="disk",
        ok=free >= MIN_DISK_GB,
        finding=f"{free:.1f} GB free at {place}",
        mend=f"Free at least {MIN_DISK_GB:g} GB, or set ORCH_STORAGE to a larger disk.",
    )


def _memory(_: Settings) -> Finding:
    free = psutil.virtual_memory().available / 1e9
    return Finding(
        name="memory",
        ok=free >= MIN_MEMORY_GB,
        finding=f"{free:.1f} GB available, {psutil.cpu_count()} CPUs",
        mend=f"End other programs: Ray, MLflow and one trial need about {MIN_MEMORY_GB:g} GB.",
    )


def _service(settings: Settings) -> Finding:
    try:
        running = local.running(settings)
    except OrchError as error:
        return Finding(name="service", ok=False, finding=str(error), mend="`orch down`, then `orch up`.")
    if running is None:
        stale = Path(settings.run_file).exists()
        finding = "not running, but it was not ended with `orch down`" if stale else "not running"
        return Finding(name="service", ok=not stale, finding=finding, mend="`orch up` starts it again.")
    return Finding(name="service", ok=True, finding=f"answers at {running.coordinator_url}")
