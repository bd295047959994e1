"""The environment, read once. Nothing else in orch reads `os.environ` for its own configuration."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import BadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where orch keeps its state and which services it uses.

    home: state directory: databases, artifacts, logs, token, process ids.
    database_url: SQLAlchemy URL; SQLite under `home` unless ORCH_DATABASE_URL says otherwise.
    ray_address: address of an existing cluster's dashboard or GCS; None to start one's own.
    mlflow_uri: tracking URI of an existing MLflow; None to start one's own.
    url, token: coordinator to talk to, for clients; None to use the local one.
    storage: where checkpoints, logs and configs of trials go; reachable from every node of the cluster.
    weights: of projects ("moe") and users ("moe/ada") when the pool is shared; 1 where not named.
    webhooks: URLs that hear of every sweep. webhooks_allowed: hosts, addresses and networks that webhooks may go to
        although they are not public.
    quotas: largest share of the pool that a project may hold; 1 where not named.
    """

    home: Path
    database_url: str
    ray_address: str | None = None
    mlflow_uri: str | None = None
    url: str | None = None
    token: str | None = None
    storage: Path
    weights: Mapping[str, float] = field(default_factory=dict)
    quotas: Mapping[str, float] = field(default_factory=dict)
    webhooks: tuple[str, ...] = ()
    webhooks_allowed: tuple[str, ...] = ()

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """ORCH_HOME, ORCH_DATABASE_URL, ORCH_STORAGE, ORCH_URL, ORCH_TOKEN, RAY_ADDRESS, MLFLOW_TRACKING_URI.

        ORCH_WEIGHTS ("moe=2,moe/ada=0.5") and ORCH_QUOTAS ("moe=0.5"). ORCH_WEBHOOK and
        ORCH_WEBHOOK_ALLOW: lists with commas. ORCH_DATABASE_URL_FILE: a file that holds the URL, for it may hold a
        password; it goes before ORCH_DATABASE_URL. Raises BadInput where these are not so written.
        """
        home = Path(env.get("ORCH_HOME") or Path.home() / ".orch").expanduser().resolve()
        return cls(
            home=home,
            database_url=_database_url(env) or f"sqlite:///{home / 'orch.db'}",
            ray_address=env.get("RAY_ADDRESS") or None,
            mlflow_uri=env.get("MLFLOW_TRACKING_URI") or None,
            url=env.get("ORCH_URL") or None,
            token=env.get("ORCH_TOKEN") or None,
            storage=Path(env.get("ORCH_STORAGE") or home / "artifacts").expanduser().resolve(),
            weights=_amounts(env, "ORCH_WEIGHTS"),
            quotas=_amounts(env, "ORCH_QUOTAS"),
            webhooks=_words(env, "ORCH_WEBHOOK"),
            webhooks_allowed=_words(env, "ORCH_WEBHOOK_ALLOW"),
        )

    @property
    def instance(self) -> str:
        """Tells this orch's Ray jobs from those of another orch on the same cluster."""
        return hashlib.sha256(self.database_url.encode()).hexdigest()[:8]

    @property
    def database_url_file(self) -> Path:
        """Where drivers read the database's URL: what a job's environment says stands in Ray's dashboard."""
        return self.storage / "drivers" / f"{self.instance}.url"

    @property
    def logs(self) -> Path:
        """Where the services' own logs go."""
        return self.home / "logs"

    @property
    def token_file(self) -> Path:
        """The API token of the local service, readable by its owner alone."""
        return self.home / "token"

    @property
    def run_file(self) -> Path:
        """Process ids and addresses of what `orch up` started."""
        return self.home / "run.json"

    def trial_directory(self, sweep_id: int, trial_id: int) -> Path:
        """Checkpoints, log and resolved config of one trial."""
        return self.storage / "sweeps" / str(sweep_id) / "trials" / str(trial_id)

    def numbers_in_storage(self) -> dict[str, int]:
        """The largest number of a sweep and of a trial that has a directory; 0 where none has."""
        sweeps = self.storage / "sweeps"
        return {"sweep": _largest(sweeps.glob("*")), "trial": _largest(sweeps.glob("*/trials/*"))}


def is_loopback(host: str) -> bool:
    """Whether an address reaches this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _largest(paths: Iterable[Path]) -> int:
    """Of those whose name is a number that a row could have: 18 digits and fewer."""
    return max((int(path.name) for path in paths if re.fullmatch("[0-9]{1,18}", path.name)), default=0)


def _database_url(env: Mapping[str, str]) -> str | None:
    file = env.get("ORCH_DATABASE_URL_FILE")
    if not file:
        return env.get("ORCH_DATABASE_URL") or None
    try:
        return Path(file).read_text().strip()
    except OSError as error:
        raise BadInput(f"ORCH_DATABASE_URL_FILE: {file} cannot be read: {error.strerror}.") from None


def _words(env: Mapping[str, str], variable: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in env.get(variable, "").split(","))))


def _amounts(env: Mapping[str, str], variable: str) -> dict[str, float]:
    found = {}
    for part in filter(None, (part.strip() for part in env.get(variable, "").split(","))):
        name, _, amount = (each.strip() for each in part.partition("="))
        try:
            found[name] = float(amount)
        except ValueError:
            found[name] = 0.0
        if not name or not 0 < found[name] < float("inf"):
            raise BadInput(f"{variable}: {part!r} is not NAME=NUMBER with a number above 0; write moe=2,moe/ada=0.5")
    return found
