"""`ports.Launcher` on Ray Jobs: one job a sweep and attempt, over HTTP. The coordinator never joins the cluster."""

from __future__ import annotations

import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from orchestrator import packages
from orchestrator.cluster.messages import IMPORTS, OWN
from orchestrator.errors import ClusterError, Unreachable
from orchestrator.places import POOL_LABEL, pool_of
from orchestrator.records import Capacity, DriverStatus, Place, Sweep
from orchestrator.settings import Settings
from orchestrator.spec.operations import has_its_own
from workloads import faults

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

TIMEOUT_S = 10.0
# What a driver has for a clean end before Ray kills it; Ray gives 3 s unless told
STOP_WAIT_S = 15
KIND_OF_GPU = "accelerator_type:"
STATUS = {
    "PENDING": DriverStatus.PENDING,
    "RUNNING": DriverStatus.RUNNING,
    "SUCCEEDED": DriverStatus.DONE,
    "FAILED": DriverStatus.DIED,
    "STOPPED": DriverStatus.STOPPED,
}


class RayLauncher:
    """Drivers as Ray jobs.

    address: the cluster's dashboard URL or GCS address. program: what `drive SWEEP` is an argument of, on the cluster.
    """

    def __init__(
        self,
        address: str,
        settings: Settings,
        *,
        program: Sequence[str] = (sys.executable, "-m", "orchestrator.cli.main"),
    ) -> None:
        self._address, self._settings, self._program = address, settings, program
        self._connected: JobSubmissionClient | None = None

    def start(self, sweep: Sweep) -> str:
        """Start the sweep's driver and return its job id. Starting the same attempt twice is the same as once."""
        job_id = self.job_id(sweep.id, sweep.attempt)
        # Ray refuses a second job under one id, and two requests at once have failed each other (ray#31356):
        # so ask first, and take a refusal of what is there by now as started
        if self.status(sweep) is not DriverStatus.MISSING:
            return job_id
        with self._reaching() as client:
            faults.point("dispatch")
            try:
                client.submit_job(
                    submission_id=job_id,
                    entrypoint=shlex.join([*self._program, "drive", str(sweep.id), "--attempt", str(sweep.attempt)]),
                    runtime_env={"env_vars": self._environment(sweep.spec)},
                    metadata={"sweep": sweep.name, "project": sweep.project, "orch": self._settings.instance},
                    # What asks for nothing runs on the head node, which no cluster outlives: never on a spot node
                    entrypoint_num_cpus=0,
                )
            except RuntimeError as refusal:
                if self.status(sweep) is DriverStatus.MISSING:
                    raise ClusterError(f"Ray does not start the driver of sweep {sweep.id}: {refusal}") from refusal
        return job_id

    def status(self, sweep: Sweep) -> DriverStatus:
        """What the cluster knows of the driver of the sweep's current attempt."""
        info = self._info(sweep)
        return DriverStatus.MISSING if info is None else STATUS[str(info.status.value)]

    def stop(self, sweep: Sweep) -> None:
        """Ask the driver to stop. Safe to repeat."""
        self.end(self.job_id(sweep.id, sweep.attempt))

    def living(self) -> list[str]:
        """Job ids of this orch's drivers that live, those that are about to start included."""
        with self._reaching() as client:
            try:
                jobs = client.list_jobs()
            except RuntimeError as refusal:
                raise ClusterError(f"Ray does not tell its jobs: {refusal}") from refusal
        return [
            job.submission_id
            for job in jobs
            if job.submission_id
            and job.submission_id.startswith(f"orch-{self._settings.instance}-")
            and STATUS[str(job.status.value)] in (DriverStatus.PENDING, DriverStatus.RUNNING)
        ]

    def end(self, job_id: str) -> None:
        """Ask a driver to stop, whosever it is. Safe to repeat."""
        with self._reaching() as client:
            try:
                client.stop_job(job_id)
            except RuntimeError as refusal:
                if not _is_missing(refusal):
                    raise ClusterError(f"Ray does not stop the driver {job_id}: {refusal}") from refusal

    def failure(self, sweep: Sweep) -> str:
        """Last words of a driver that died, in one sentence; "" if there are none."""
        info = self._info(sweep)
        if info is None or STATUS[str(info.status.value)] is not DriverStatus.DIED:
            return ""
        code = "" if info.driver_exit_code is None else f" with exit code {info.driver_exit_code}"
        lines = [line.strip() for line in (info.message or "").splitlines() if line.strip()]
        # Ray puts a sentence of its own before the end of the driver's log
        said = lines[-1] if len(lines) > 1 else ""
        return f"the driver ended{code}" + (f": {_plain(said)}" if said else "")

    def capacity(self) -> Capacity:
        """What the cluster has now."""
        nodes = [node for node in self._get("/api/v0/nodes")["result"]["result"] if node["state"] == "ALIVE"]
        usage = ((self._get("/api/cluster_status")["clusterStatus"] or {}).get("loadMetricsReport") or {}).get("usage")
        cpus, gpus = (sum(node["resources_total"].get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
        used_cpus, used_gpus = ((usage or {}).get(kind, (0.0, 0.0))[0] for kind in ("CPU", "GPU"))
        return Capacity(
            cpus=cpus,
            gpus=gpus,
            free_cpus=max(cpus - used_cpus, 0.0),
            free_gpus=max(gpus - used_gpus, 0.0),
            nodes=len(nodes),
            places=tuple(_place(node) for node in nodes),
        )

    def job_id(self, sweep_id: int, attempt: int) -> str:
        """The fixed submission id of that attempt of the sweep."""
        return f"orch-{self._settings.instance}-{sweep_id}-{attempt}"

    def _environment(self, spec: Mapping[str, Any]) -> dict[str, str]:
        """Enough for the driver's process to find the same home, database and storage; no secret, for Ray shows it.

        And what the sweep brings of its own, which its workers inherit from the job.
        """
        return {
            **(spec.get("environment") or {}),
            **self._code(spec),
            "ORCH_HOME": str(self._settings.home),
            "ORCH_DATABASE_URL_FILE": str(_kept_private(self._settings.database_url_file, self._settings.database_url)),
            "ORCH_STORAGE": str(self._settings.storage),
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S),
            # The driver and Train's controllers compute nothing; workers get their own number
            "OMP_NUM_THREADS": "1",
        }

    def _code(self, spec: Mapping[str, Any]) -> dict[str, str]:
        own = has_its_own(spec)
        code = spec.get("code")
        if not code:
            return {OWN: own} if own else {}
        directory = packages.directory(code["package"], self._settings.storage)
        # Ray puts in what the node's own processes have
        found = {OWN: own, "PYTHONPATH": f"{directory}{os.pathsep}${{PYTHONPATH}}"}
        return found | ({IMPORTS: ",".join(code["imports"])} if code.get("imports") else {})

    def _info(self, sweep: Sweep) -> Any:
        with self._reaching() as client:
            try:
                return client.get_job_info(self.job_id(sweep.id, sweep.attempt))
            except RuntimeError as refusal:
                if _is_missing(refusal):
                    return None
                raise ClusterError(f"Ray does not tell about the driver of sweep {sweep.id}: {refusal}") from refusal

    def _get(self, path: str) -> dict[str, Any]:
        with self._reaching() as client:
            answer = client._do_request("GET", path)
            answer.raise_for_status()
            data: dict[str, Any] = answer.json()["data"]
            return data

    @contextmanager
    def _reaching(self) -> Iterator[JobSubmissionClient]:
        try:
            yield self._client()
        except (ConnectionError, requests.RequestException) as error:
            raise Unreachable(
                f"Ray does not answer at {self._address}: {_plain(str(error))[:200]}. "
                "Is the cluster up? `orch status` tells, `orch up` starts a local one."
            ) from error

    def _client(self) -> JobSubmissionClient:
        if self._connected is None:
            # Ray takes most of a second to import, and a coordinator that has nothing to start does without
            from orchestrator.cluster.jobs import TimedJobClient

            try:
                self._connected = TimedJobClient(self._address, timeout_s=TIMEOUT_S)
            except RuntimeError as error:
                raise Unreachable(f"what answers at {self._address} is no Ray dashboard: {error}") from error
        return self._connected


def _kept_private(path: Path, text: str) -> Path:
    """A file with this text that its owner alone can read."""
    if not path.is_file() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)  # mkstemp's files are 0600
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(temporary).replace(path)
    return path


def _place(node: Mapping[str, Any]) -> Place:
    total = node["resources_total"]
    kinds = {name.removeprefix(KIND_OF_GPU) for name in total if name.startswith(KIND_OF_GPU)}
    memory = int(total.get("memory", 0))
    labels = dict(node.get("labels") or {})
    if pool := pool_of(labels, total):
        labels[POOL_LABEL] = pool
    return Place(
        labels=labels,
        memory_bytes=memory,
        accelerators=frozenset(kinds),
        node_id=node["node_id"],
        name=node.get("node_name") or node["node_id"][:12],
        address=node.get("node_ip") or "",
        cpus=total.get("CPU", 0.0),
        gpus=total.get("GPU", 0.0),
    )


def _is_missing(refusal: RuntimeError) -> bool:
    """Whether Ray itself says so: whatever stands before a dashboard that starts again answers 404, too."""
    return "status code 404" in str(refusal) and "does not exist" in str(refusal)


def _plain(text: str) -> str:
    """Without terminal colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
