"""How fast sweeps are accepted when many people submit at once: p50 and p95 of a submission, on both databases.

    python -m tests.benchmarks.submit_load [--sweeps 1000] [--clients 20] [--distinct] [--file sweeps/quickstart.yaml]

The coordinator is a process of its own and ticks over the growing queue all the while. Each client is a thread that
sends the file again as soon as the last submission was answered; with --distinct under a new name each time, so that
each is parsed, checked and planned anew. Checked in the end: every sweep was accepted once, each client's own in the
order of its submissions, and the queue has them in the order in which the log tells of them.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx

from tests.support import serve_alone
from tests.support.postgres import private_postgres

HEADERS = {"Authorization": "Bearer secret"}


@contextmanager
def coordinator(database_url: str, home: Path) -> Iterator[str]:
    """Address of a coordinator in a process of its own."""
    command = [sys.executable, "-m", serve_alone.__name__, database_url, str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def load(url: str, text: str, *, sweeps: int, clients: int, distinct: bool) -> tuple[list[float], dict[str, list[int]]]:
    """Submit; seconds of each submission, and each client's sweep numbers in the order in which it sent them."""
    share = sweeps // clients
    took: list[float] = []
    numbers: dict[str, list[int]] = {f"c{index}": [] for index in range(clients)}
    together = threading.Barrier(clients)
    # What a coordinator loads for its first submission, and never again
    body = {"text": text, "file": "sweep.yaml"}
    httpx.post(f"{url}/api/v1/check", json=body, headers=HEADERS, timeout=60).raise_for_status()

    def submit(client: str) -> None:
        # The plainest client: all twenty share the machine with the service, and their own work is not what is measured
        names = [f"{client}-{index}" if distinct else "load" for index in range(share)]
        bodies = [{"text": text.replace("NAME", name), "file": "sweep.yaml", "user": client} for name in names]
        sent = [json.dumps(body) for body in bodies]
        answers: list[bytes] = []
        with closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)) as connection:
            connection.connect()
            together.wait()
            for index in range(share):
                headers = HEADERS | {"Content-Type": "application/json", "Idempotency-Key": f"{client}-{index}"}
                began = time.perf_counter()
                connection.request("POST", "/api/v1/sweeps", sent[index], headers)
                answer = connection.getresponse()
                answers.append(answer.read())
                took.append(time.perf_counter() - began)
                assert answer.status == 201, answers[-1]
        numbers[client] = [json.loads(each)["sweep_id"] for each in answers]

    threads = [threading.Thread(target=submit, args=(client,)) for client in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took, numbers


def check(url: str, numbers: dict[str, list[int]]) -> None:
    """Raises AssertionError unless every sweep is there once, and in order."""
    for client, own in numbers.items():
        assert own == sorted(own), f"{client}: {own}"
    given = sorted(itertools.chain(*numbers.values()))
    answer = httpx.get(f"{url}/api/v1/sweeps", params={"limit": 10_000}, headers=HEADERS, timeout=60)
    there = answer.json()["sweeps"]
    assert [each["sweep_id"] for each in reversed(there)] == given
    assert len(set(given)) == len(given)
    for client, own in numbers.items():
        assert [each["sweep_id"] for each in reversed(there) if each["user"] == client] == own


def report(label: str, took: list[float], wall_s: float) -> str:
    """One line."""
    cuts = statistics.quantiles(took, n=100)
    return (
        f"{label:<11} {len(took)} sweeps in {wall_s:.1f} s: p50 {1e3 * cuts[49]:.0f} ms, p95 {1e3 * cuts[94]:.0f} ms, "
        f"longest {1e3 * max(took):.0f} ms"
    )


def main() -> None:
    """Print a line for each database."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--distinct", action="store_true")
    parser.add_argument("--file", type=Path, default=Path("sweeps/quickstart.yaml"))
    options = parser.parse_args()
    text = options.file.read_text().partition("\nprofiles:")[0].replace("name: quickstart", "name: NAME", 1)
    for label in ("SQLite", "PostgreSQL"):
        with tempfile.TemporaryDirectory() as home, private_postgres() as server, server.database() as postgres:
            database_url = f"sqlite:///{home}/orch.db" if label == "SQLite" else postgres
            with coordinator(database_url, Path(home)) as url:
                began = time.perf_counter()
                took, numbers = load(
                    url, text, sweeps=options.sweeps, clients=options.clients, distinct=options.distinct
                )
                print(report(label, took, time.perf_counter() - began), flush=True)
                check(url, numbers)


if __name__ == "__main__":
    main()
