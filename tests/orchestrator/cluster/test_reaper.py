"""What a Train controller leaves behind when it is killed: found by time without Ray, freed at once with it."""

import json
import os
import subprocess
import sys

from orchestrator.cluster.reaper import UNCLAIMED_S, Reaper
from orchestrator.lifecycle import TrialState
from tests.support.ray_cluster import PATIENCE_S, Lab, held_on, processes_of, tiny_config, wait_for


class World:
    """Placement groups by id, and a clock."""

    def __init__(self) -> None:
        self.now_s, self.reserved = 0.0, set[str]()
        self.reaper = Reaper(
            lambda: self.reserved.copy(), lambda group: self.reserved.discard(group), lambda: self.now_s
        )


def test_what_nobody_claims_is_freed_only_once_nobody_can_be_about_to_claim_it() -> None:
    world = World()
    world.reserved = {"claimed", "leaked"}
    world.reaper.look({"claimed"})
    world.now_s = UNCLAIMED_S - 1
    world.reserved.add("starting")
    world.reaper.look({"claimed"})
    assert world.reserved == {"claimed", "leaked", "starting"}
    world.now_s = UNCLAIMED_S
    world.reaper.look({"claimed"})
    assert world.reserved == {"claimed", "starting"}


def test_what_was_claimed_meanwhile_counts_from_its_loss() -> None:
    world = World()
    world.reserved = {"group"}
    world.reaper.look(())
    world.now_s = UNCLAIMED_S - 1
    world.reaper.look({"group"})
    world.now_s = UNCLAIMED_S + 1
    world.reaper.look(())
    assert world.reserved == {"group"}
    world.now_s = 2 * UNCLAIMED_S + 1
    world.reaper.look(())
    assert not world.reserved


RESERVING = """
import json
from orchestrator.cluster.driver import _leads
from orchestrator.cluster.reaper import reserved_by_this_job
from ray.util.placement_group import placement_group
import ray

ray.init(log_to_driver=False)
leader, workers = _leads()(), placement_group([{"CPU": 0.5, "memory": 1}] * 2)
ray.get([leader.ready(), workers.ready()])
print(json.dumps([reserved_by_this_job(), workers.id.hex()]))
"""


def test_what_leads_a_trial_in_tune_is_nobodys_leftover(lab: Lab) -> None:
    """It lives as long as the driver and claims nothing: to free it would end its trial every two minutes."""
    env = {**os.environ, "RAY_ADDRESS": lab.head.gcs_address}
    told = subprocess.run([sys.executable, "-c", RESERVING], env=env, capture_output=True, text=True, timeout=120)
    assert told.returncode == 0, told.stderr
    found, of_workers = json.loads(told.stdout.splitlines()[-1])
    assert found == [of_workers]


def test_a_killed_controller_blocks_nothing(lab: Lab) -> None:
    """On both cores: a placement group that stayed would keep the next group from starting."""
    resources = {"workers": 1, "cpu": 2, "gpu": 0}
    sweep = lab.add([tiny_config(steps=400, eval_every=20)], slots=1, resources=resources)
    of_others = {process.pid for process in processes_of(lab.head, "TrainController")}
    driver = lab.drive(sweep)
    wait_for(lambda: lab.trials(sweep)[0].step > 0, "a report", driver)
    [controller] = [each for each in processes_of(lab.head, "TrainController") if each.pid not in of_others]
    controller.kill()
    assert driver.wait(timeout=PATIENCE_S) == 0, lab.driver_log(sweep).read_text()[-3000:]
    [trial] = lab.trials(sweep)
    assert (trial.state, trial.attempt, trial.failures) == (TrialState.SUCCEEDED, 2, 0), trial.reason
    assert "which its controller left behind" in lab.driver_log(sweep).read_text()
    wait_for(lambda: not held_on(lab.head), "the end of all actors and placement groups")
