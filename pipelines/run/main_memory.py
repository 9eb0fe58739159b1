"""What a GPU's worker holds in the machine's memory: images that are decoded or on their way, and weights.

Chunks are read, decoded and written in threads beside the one that is at the GPU.
"""

from collections.abc import Collection

from pipelines.compute.decoded import KEPT_BESIDE_A_GPU
from pipelines.compute.turns import AT_ONCE
from pipelines.run.stage_memory import Need, pixels_of
from pipelines.stages.blueprint import Blueprint

MAIN_MEMORY = "main memory"
"""What `plan` says of these needs, in place of a network's name."""
PROCESS_BESIDE_A_GPU = 1_500 * 10**6
"""Bytes of Python, torch, timm, Ray and CUDA's libraries. An assumption: it differs with the driver and the GPU."""
COPIES_IN_HAND = 7
"""How many times its pixels a chunk takes at most: clean, attacked, and in the buffers through which it is written."""
_WEIGHTS = 2  # a network that is loaded: what its file holds, and the tensors before they go to the GPU


def main_needs_of(blueprint: Blueprint, stages: Collection[str]) -> dict[str, Need]:
    """What a worker of each of these stages needs that works chunk by chunk. An alignment keeps no decoded images."""
    pixels, rows = pixels_of(blueprint), {"craft": blueprint.rows, "evaluate": blueprint.rows}
    rows["reasons"] = blueprint.sample.rows
    memories = [own.memory for own in blueprint.networks.values()]
    known = [own.weights for own in memories if own is not None]
    weights = _WEIGHTS * max(known, default=0) if len(known) == len(memories) else None
    found = {}
    for stage, own in rows.items():
        if stage in stages:
            decoded = min(KEPT_BESIDE_A_GPU, sum(own) * pixels)
            fixed = None if weights is None else weights + decoded
            found[stage] = Need(MAIN_MEMORY, "compute.chunk", max(own), fixed, AT_ONCE * COPIES_IN_HAND * pixels)
    return found
