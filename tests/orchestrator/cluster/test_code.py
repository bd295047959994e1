"""Sweeps with code of their own: each sees its version of a module alone, though they run side by side."""

from pathlib import Path

import pytest

from orchestrator.lifecycle import TrialState
from orchestrator.packages import pack, unpack
from orchestrator.records import DriverStatus, Sweep
from tests.support.ray_cluster import Lab, tiny_config, wait_for

# Trains once all versions have been seen at work
MINE = """
import os
import time
from pathlib import Path
import workloads

plain = workloads.train
meeting = Path(os.environ["MEETING"])

def train(*args, **options):
    (meeting / "{version}").touch()
    while len(list(meeting.iterdir())) < int(os.environ["VERSIONS"]):
        time.sleep(0.1)
    for row in plain(*args, **options):
        yield row | {{"mine/version": {version}, "mine/size": float(os.environ["MINE_SIZE"])}}

workloads.train = train
"""


@pytest.mark.parametrize("versions", [2, pytest.param(8, marks=pytest.mark.faults)])
def test_versions_of_one_module_at_once_and_none_where_none_was_brought(
    versions: int, lab: Lab, tmp_path: Path
) -> None:
    meeting = tmp_path / "meeting"
    meeting.mkdir()

    def sweep(version: float) -> Sweep:
        file = tmp_path / str(version) / "mine.py"
        file.parent.mkdir()
        file.write_text(MINE.format(version=version))
        package = pack(file.parent)
        unpack(package.name, package.content, lab.settings.storage)
        code = {"path": None, "package": package.name, "imports": ["mine"]}
        environment = {"MINE_SIZE": str(10 * version), "MEETING": str(meeting), "VERSIONS": str(versions)}
        resources = {"workers": 1, "cpu": 2 / versions, "gpu": 0}
        return lab.add([tiny_config()], slots=1, resources=resources, code=code, environment=environment)

    sweeps = {version: sweep(version) for version in map(float, range(1, versions + 1))}
    launcher = lab.launcher()
    for each in sweeps.values():
        launcher.start(each)
    wait_for(lambda: all(launcher.status(each) is DriverStatus.DONE for each in sweeps.values()), "the ends of all")
    plain = lab.add([tiny_config()], slots=1)
    assert lab.drive(plain).wait(timeout=240) == 0
    for version, each in sweeps.items():
        [trial] = lab.trials(each)
        assert trial.state is TrialState.SUCCEEDED, trial.reason
        assert (trial.metrics["mine/version"], trial.metrics["mine/size"]) == (version, 10 * version)
    [trial] = lab.trials(plain)
    assert "mine/version" not in trial.metrics
    # The same configuration and seed, and yet as many different things
    identities = {trial.identity for each in (*sweeps.values(), plain) for trial in lab.trials(each)}
    assert len(identities) == versions + 1
