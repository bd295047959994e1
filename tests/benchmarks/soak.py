"""Does a coordinator that is left alone for a day grow? Its memory and open files over 24 simulated hours.

    python -m tests.benchmarks.soak [--minutes 10] [--hours 24]

The coordinator's clock goes as much faster as it takes for the hours to pass in the minutes; all else is real: Ray,
MLflow, drivers, short trials. All the while sweeps are submitted, watched, listed, ranked, paused, resumed and
cancelled. Printed: a line each two simulated hours, and what the second half added.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from statistics import fmean

import httpx
import psutil

from orchestrator.clock import SystemClock
from orchestrator.lifecycle import SWEEP_ENDS
from orchestrator.settings import Settings
from tests.benchmarks.trial_overhead import sweep_of
from tests.support.live_service import LiveService, live_service, memory_bytes

OPEN_SWEEPS = 4
TRIALS = 6
SAMPLE_S = 2.0


class FastClock:
    """Goes `factor` times as fast, from so long ago that it meets the machine's own clock after `real_s` seconds."""

    def __init__(self, factor: float, real_s: float) -> None:
        self._factor, self._real_began = factor, time.monotonic()
        self._began = SystemClock().now() - timedelta(seconds=(factor - 1) * real_s)

    def now(self) -> datetime:
        """The simulated time in UTC."""
        return self._began + timedelta(seconds=self._factor * (time.monotonic() - self._real_began))


@dataclass(frozen=True, slots=True)
class Sample:
    """At one moment: seconds since the start, and what the coordinator holds."""

    at_s: float
    memory_mb: float
    files: int
    threads: int
    sweeps: int

    @classmethod
    def of(cls, process: psutil.Process, at_s: float, sweeps: int) -> Sample:
        """As it is now. Files: all descriptors, sockets included."""
        return cls(at_s, memory_bytes(process) / 1e6, process.num_fds(), process.num_threads(), sweeps)


class Use:
    """What people do with it."""

    def __init__(self, service: LiveService) -> None:
        self._service, self._numbers = service, itertools.count()
        self.ended = 0

    def once(self) -> None:
        """Keep some sweeps open; look at everything; change one of them."""
        http, number = self._service.http, next(self._numbers)
        counts = http.get("/status").json()["sweeps"]
        self.ended = sum(counts[state] for state in SWEEP_ENDS)
        for _ in range(OPEN_SWEEPS - (sum(counts.values()) - self.ended)):
            self._submit()
        newest = http.get("/sweeps", params={"limit": 20}).json()["sweeps"]
        for path in ("/leaderboard", f"/sweeps/{newest[0]['sweep_id']}", f"/sweeps/{newest[0]['sweep_id']}/events"):
            http.get(path).raise_for_status()
        http.get(self._service.url + "/metrics").raise_for_status()
        still = [each["sweep_id"] for each in newest if each["state"] not in SWEEP_ENDS]
        act = {0: "pause", 3: "resume", 20: "cancel"}.get(number % 40)
        if act and still:
            for sweep_id in still if act == "resume" else still[:1]:
                http.post(f"/sweeps/{sweep_id}/{act}").raise_for_status()

    def _submit(self) -> None:
        name = f"soak-{next(self._numbers)}"
        body = {"text": sweep_of(name, TRIALS), "file": "soak.yaml", "user": "soak", "rerun": True}
        answer = self._service.http.post("/sweeps", json=body)
        answer.raise_for_status()
        threading.Thread(target=self._watch, args=(answer.json()["sweep_id"],), daemon=True).start()

    def _watch(self, sweep_id: int) -> None:
        """Until its end, or half a minute: then somebody closes the window."""
        with suppress(httpx.HTTPError):
            url, headers = f"{self._service.http.base_url}sweeps/{sweep_id}/stream", self._service.http.headers
            closes_at = time.monotonic() + 30
            with httpx.stream("GET", url, headers=headers, timeout=60) as answer:
                for _ in answer.iter_lines():
                    if time.monotonic() > closes_at:
                        return


def soak(service: LiveService, real_s: float, hours: float) -> list[Sample]:
    """Use it for so long; what it held all the while."""
    use, samples, began, shown = Use(service), list[Sample](), time.monotonic(), 0
    while (at_s := time.monotonic() - began) < real_s:
        use.once()
        samples.append(Sample.of(service.coordinator, at_s, use.ended))
        if at_s / real_s * hours >= shown:
            print(_line(samples[-1], shown), flush=True)
            shown += 2
        time.sleep(SAMPLE_S)
    print(_line(samples[-1], hours), flush=True)
    return samples


def _line(sample: Sample, hour: float) -> str:
    return (
        f"hour {hour:4.0f}: memory {sample.memory_mb:6.1f} MB, open files {sample.files:3d}, "
        f"threads {sample.threads:2d}, sweeps ended {sample.sweeps}"
    )


def verdict(samples: Sequence[Sample]) -> str:
    """The third and the last quarter, held against each other: caches are full by then."""
    quarter = len(samples) // 4
    third, last = samples[2 * quarter : 3 * quarter], samples[3 * quarter :]
    sweeps = last[-1].sweeps - third[0].sweeps
    words = []
    for name, unit in (("memory_mb", "MB"), ("files", "open files"), ("threads", "threads")):
        before, after = (fmean(getattr(each, name) for each in part) for part in (third, last))
        words.append(f"{before:.1f} -> {after:.1f} {unit}")
    return f"third quarter -> last quarter, {sweeps} sweeps in both: {', '.join(words)}"


def main() -> None:
    """Print them."""
    if sys.argv[1:2] == ["serve"]:
        _serve(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--hours", type=float, default=24)
    options = parser.parse_args()
    real_s = 60 * options.minutes
    program = ("tests.benchmarks.soak", "serve", str(3600 * options.hours / real_s), str(real_s))
    with tempfile.TemporaryDirectory() as home, live_service(Path(home), tracked=True, program=program) as service:
        print(verdict(soak(service, real_s, options.hours)), flush=True)


def _serve(words: Sequence[str]) -> None:
    """The coordinator on a fast clock: FACTOR REAL_S, and the options of `orch serve`."""
    from orchestrator.app.serve import serve

    factor, real_s, *rest = words
    options = dict(zip(rest[::2], rest[1::2], strict=True))
    serve(
        Settings.from_env(),
        host="127.0.0.1",
        port=int(options["--port"]),
        ray_dashboard=options["--ray-dashboard"],
        mlflow_uri=options["--mlflow-uri"],
        clock=FastClock(float(factor), float(real_s)),
    )


if __name__ == "__main__":
    main()
