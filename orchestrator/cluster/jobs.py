"""Ray's own client of the Jobs API, with a limit on how long it waits."""

from __future__ import annotations

from typing import Any

from ray.job_submission import JobSubmissionClient


class TimedJobClient(JobSubmissionClient):
    """Ray's client sends its requests without any timeout: a dashboard that hangs would hang the coordinator."""

    def __init__(self, address: str, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        super().__init__(address)

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        return super()._do_request(method, endpoint, **{"timeout": self._timeout_s, **options})
