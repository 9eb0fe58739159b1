"""Ray, and what its workers hold.

This room knows how work is spread, and not what the work is: the stages hand it jobs. Where to begin:

* `cluster`: connects to Ray, and says what one worker takes and how many fit.
* `fine_tune`: one fine-tune as a job, and the loop around the step; `ray_train` runs it on one worker or several.
* `checkpoint`: the files from which a fine-tune resumes, with a checksum.
* `ray_data`: sends chunks through workers; `fill` joins finished chunks into tables, and begins again after faults.
* `device_failures`: ends a worker whose device fails; `kept_gpus` keeps a GPU that failed twice from all workers.
* `turns`: lets one thread of a worker use its device while others read what comes and write what they made there.
* `decoded`: keeps decoded images in the memory of a worker.
* `starting_nodes`: waits for a node that the cluster has still to start.
* `images`, `networks`, `loading`: what a worker holds: open image sets, networks as data, networks in memory.
* `here`: images and weights as files of this machine, which are fetched where they lie in an object store.
* `on_node`: the same for a worker, to which `courier` sends what its node lacks.
* `head`: says so where the head of the cluster is lost, before Ray ends the process.
* `ray_internals`: the little that Ray offers under no public name.
"""

from typing import TYPE_CHECKING

from pipelines.exports import lazy_exports

if TYPE_CHECKING:
    from pipelines.compute.cluster import Worker as Worker
    from pipelines.compute.cluster import connected as connected
    from pipelines.compute.cluster import worker_of as worker_of
    from pipelines.compute.fine_tune import FineTune as FineTune
    from pipelines.compute.loading import LoadedNetworks as LoadedNetworks
    from pipelines.compute.loading import NetworkLoader as NetworkLoader
    from pipelines.compute.networks import Network as Network
    from pipelines.compute.ray_data import run_pipeline as run_pipeline

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "cluster": (
            "Worker",
            "connected",
            "worker_of",
        ),
        "fine_tune": ("FineTune",),
        "loading": (
            "LoadedNetworks",
            "NetworkLoader",
        ),
        "networks": ("Network",),
        "ray_data": ("run_pipeline",),
    },
)
