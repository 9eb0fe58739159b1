"""The time of crafting and evaluation over that of the same work in one plain process with as many threads."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from align_core.attacks import craft
from pipelines.compute.loading import LoadedNetworks
from pipelines.run.command import run
from pipelines.run.request import Request, open_blueprint
from pipelines.stages.blueprint import SELF, Blueprint
from pipelines.stages.payload import network_loader, test_images
from tests.benchmarks.experiment import IMAGES, data_folder, seconds_of, write_experiment


def measure() -> Iterator[str]:
    """Measures 1,000 images, two surrogates, PGD-10 and two targets. Start-up is the time of a run over one image."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = data_folder(folder)
        for workers, threads in ((1, 2), (2, 1)):
            name = f"{workers}x{threads}"
            start_up = seconds_of(write_experiment(folder, data, f"one-{name}", 1, workers, threads))
            file = write_experiment(folder, data, f"all-{name}", IMAGES, workers, threads)
            run(Request(file, quiet=True), ["align"])
            # Measured before and after the pipeline, because the speed of a shared machine changes within minutes.
            before = _plain(open_blueprint(Request(file, quiet=True)), workers * threads)
            ours = seconds_of(file)
            plain = (before + _plain(open_blueprint(Request(file, quiet=True)), workers * threads)) / 2
            ratio = (ours - start_up) / plain
            yield (
                f"pipeline: craft + evaluate, {IMAGES:,} CIFAR images, {workers} workers of {threads} threads: "
                f"{ratio:.3f} x one plain process with {workers * threads} threads (limit 1.15), plus {start_up:.1f} s "
                f"start-up; {ours:.1f} s against {plain:.1f} s"
            )


def _plain(blueprint: Blueprint, threads: int) -> float:
    """Seconds of the same crafting and evaluation in this process, without reading or writing tables."""
    torch.set_num_threads(threads)
    start = time.perf_counter()
    networks, images = LoadedNetworks(network_loader(blueprint), "cpu"), test_images(blueprint)
    for chunk in range(len(images.chunks)):
        clean_BCHW = torch.from_numpy(images.read(chunk))
        labels_B = torch.tensor(images.labels_of(chunk))
        for members, _ in blueprint.clean().values():
            _predict(networks, members, clean_BCHW)
        for surrogate in blueprint.surrogates:
            network = networks.mean_of(surrogate.members)
            for attack in blueprint.experiment.attacks.values():
                adversarial_BCHW = craft(
                    network, clean_BCHW, labels_B, images.ids_of(chunk), attack, blueprint.experiment.seed
                )
                for target in (SELF, *blueprint.experiment.targets):
                    members = surrogate.members if target == SELF else (target,)
                    _predict(networks, members, adversarial_BCHW)
    return time.perf_counter() - start


def _predict(networks: LoadedNetworks, members: tuple[str, ...], images_BCHW: torch.Tensor) -> None:
    with torch.no_grad():
        networks.mean_of(members)(images_BCHW.to(torch.float32) / 255).argmax(dim=1)
