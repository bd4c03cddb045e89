"""What a training reserves on the cluster, marked so that it can be given back when the process that held it dies.

Ray Train has a process for that. It looks for the cluster on the machine, and dies when it finds several: what a dead
leader had reserved was then missing for as long as the driver lived, and the next attempt waited for a CPU for ever.
"""

from __future__ import annotations

import ray
from ray.util import remove_placement_group
from ray.util.placement_group import PlacementGroup, placement_group_table

from dynacor_ray.core.hashing import digest

MEMORY = "memory"
_MOST_BYTES = 2**20


def reservation_tag(run: str) -> int:
    """A number of bytes so odd that no other training has it: reserved for each worker, it tells whose they are.

    run: the training's directory. Another process that goes on there, as a trial that Tune starts again, finds what the
    dead one had reserved.
    """
    return 1 + int(digest(run), 16) % _MOST_BYTES


def release_reservation(memory: int) -> None:
    """Remove the placement groups whose workers were given so many bytes of memory. Of other trainings none is."""
    for group_id, group in placement_group_table().items():
        mine = any(bundle.get(MEMORY) == memory for bundle in group["bundles"].values())
        if mine and group["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group_id))))
