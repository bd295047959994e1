"""Sweeps with code of their own: each sees its version of a module alone, though they run side by side."""

from pathlib import Path

from orchestrator.lifecycle import TrialState
from orchestrator.packages import pack, unpack
from orchestrator.records import DriverStatus, Sweep
from tests.support.ray_cluster import Lab, tiny_config, wait_for

MINE = """
import os
import workloads

plain = workloads.train

def train(*args, **options):
    for row in plain(*args, **options):
        yield row | {{"mine/version": {version}, "mine/size": float(os.environ["MINE_SIZE"])}}

workloads.train = train
"""


def test_two_versions_of_one_module_at_once_and_none_where_none_was_brought(lab: Lab, tmp_path: Path) -> None:
    def sweep(version: float) -> Sweep:
        file = tmp_path / str(version) / "mine.py"
        file.parent.mkdir()
        file.write_text(MINE.format(version=version))
        package = pack(file.parent)
        unpack(package.name, package.content, lab.settings.storage)
        code = {"path": None, "package": package.name, "imports": ["mine"]}
        environment = {"MINE_SIZE": str(10 * version)}
        return lab.add([tiny_config(), tiny_config(lr=1e-3)], slots=1, code=code, environment=environment)

    sweeps = [sweep(1.0), sweep(2.0)]
    launcher = lab.launcher()
    for each in sweeps:
        launcher.start(each)
    wait_for(lambda: all(launcher.status(each) is DriverStatus.DONE for each in sweeps), "the ends of both")
    plain = lab.add([tiny_config()], slots=1)
    assert lab.drive(plain).wait(timeout=240) == 0
    for each, version in zip(sweeps, (1.0, 2.0), strict=True):
        for trial in lab.trials(each):
            assert trial.state is TrialState.SUCCEEDED, trial.reason
            assert (trial.metrics["mine/version"], trial.metrics["mine/size"]) == (version, 10 * version)
    [trial] = lab.trials(plain)
    assert "mine/version" not in trial.metrics
    # The same configuration and seed, and yet three different things
    assert len({trial.identity for each in (*sweeps, plain) for trial in lab.trials(each)[:1]}) == 3
