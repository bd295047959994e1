"""Cores and GPUs that nobody uses any more: what a Train controller reserved and could not give back.

Ray frees what a job reserved at the job's end, and kills the actors of an owner that died. But a controller that is
killed leaves its placement group while the job lives, and the group that is to take its place would wait for the same
cores for ever.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping

import ray
from ray._raylet import PlacementGroupID
from ray.train.v2._internal.constants import DEFAULT_WORKER_GROUP_START_TIMEOUT_S
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

LOG = logging.getLogger(__name__)

UNCLAIMED_S = 2 * DEFAULT_WORKER_GROUP_START_TIMEOUT_S
"""A group that is coming up has told of its placement group by then: Train itself gives a start up after half of it."""


class Reaper:
    """Frees placement groups of this job that no group of workers claims, some time after they turned up.

    reserved: ids of the job's placement groups; free: gives one back. Ray's own when left out.
    """

    def __init__(
        self,
        reserved: Callable[[], Collection[str]] | None = None,
        free: Callable[[str], None] | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reserved, self._free, self._now_s = reserved or reserved_by_this_job, free or free_in_ray, now_s
        self._unclaimed_since: dict[str, float] = {}

    def look(self, claimed: Collection[str]) -> None:
        """claimed: by groups of workers that live. To be called every now and then."""
        now_s = self._now_s()
        seen = {group: self._unclaimed_since.get(group, now_s) for group in self._reserved() if group not in claimed}
        self._unclaimed_since = seen
        for group in [group for group, since_s in seen.items() if now_s - since_s >= UNCLAIMED_S]:
            self.free(group)

    def free(self, group: str) -> None:
        """At once: whose workers held it are gone for good. Safe to repeat."""
        LOG.warning("freeing placement group %s, which its controller left behind", group)
        self._unclaimed_since.pop(group, None)
        self._free(group)


def reserved_by_this_job() -> list[str]:
    """Ids in hex of this job's placement groups that hold cores or GPUs.

    The others, of the leaders in Tune, block nobody, and no worker will ever claim them.
    """
    # A placement group's id ends with that of its job
    job = ray.get_runtime_context().get_job_id()
    return [
        group
        for group, entry in placement_group_table().items()
        if group.endswith(job) and entry["state"] != "REMOVED" and any(map(_trains, entry["bundles"].values()))
    ]


def _trains(bundle: Mapping[str, float]) -> bool:
    return bool(bundle.get("CPU") or bundle.get("GPU"))


def free_in_ray(group: str) -> None:
    """Give it back, with whatever still runs in it."""
    remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))
