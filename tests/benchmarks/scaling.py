"""The speed of two workers over that of one, and of crafting once over crafting again for every target."""

import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import mean
from threading import Barrier

import torch
import yaml

from align_core.attacks import craft
from pipelines.compute.loading import LoadedNetworks
from pipelines.run.command import run
from pipelines.run.request import Request, open_blueprint
from pipelines.stages.payload import network_loader, test_images
from tests.benchmarks.experiment import IMAGES, data_folder, seconds_of, write_experiment

STEPS = 120  # so that the work takes ten times as long as its start
TURNS = (2, 1, 2)  # numbers of workers, in an order that cancels a steady drift of a shared machine's speed


def measure() -> Iterator[str]:
    """Measures one worker against two, and crafting for every target against crafting once."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = data_folder(folder)
        plain = [_two_plain_processes(folder, data)]
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for turn, workers in enumerate(TURNS):
            file = write_experiment(folder, data, f"scaling-{turn}", IMAGES, workers, 1)
            seconds[workers].append(seconds_of(file, f"attacks.pgd.steps={STEPS}"))
        plain.append(_two_plain_processes(folder, data))
        one, two = mean(seconds[1]), mean(seconds[2])
        yield (
            f"scaling: craft + evaluate, {IMAGES:,} CIFAR images, PGD-{STEPS}: 2 workers of one thread are "
            f"{one / two:.2f} x as fast as 1 (at least 1.8); {', '.join(f'{s:.0f}' for s in seconds[2])} s against "
            f"{one:.0f} s; two plain processes {plain[0]:.2f} and {plain[1]:.2f} x as fast as one"
        )
        yield _once_for_all_targets(folder, data)


def _two_plain_processes(folder: Path, data: Path) -> float:
    """What the cores allow: the rate of two processes that craft at the same time, over that of one alone."""
    file = write_experiment(folder, data, "plain", IMAGES, 1, 1)
    before, together, after = (sum(_side_by_side(file, processes)) for processes in (1, 2, 1))
    return 2 * together / (before + after)


def _side_by_side(file: Path, processes: int) -> list[float]:
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as manager, ProcessPoolExecutor(processes, spawn) as pool:
        ready = manager.Barrier(processes)
        return list(pool.map(_images_per_second, [file] * processes, [ready] * processes))


def _images_per_second(file: Path, ready: Barrier) -> float:
    """The rate of crafting in one thread of this process, measured from the moment that all processes are ready."""
    torch.set_num_threads(1)
    blueprint = open_blueprint(Request(file, quiet=True))
    networks, images = LoadedNetworks(network_loader(blueprint), "cpu"), test_images(blueprint)
    network, attack = networks.mean_of(blueprint.surrogates[0].members), blueprint.experiment.attacks["pgd"]

    def crafted(chunk: int) -> int:
        clean_BCHW, labels_B = torch.from_numpy(images.read(chunk)), torch.tensor(images.labels_of(chunk))
        return len(craft(network, clean_BCHW, labels_B, images.ids_of(chunk), attack, 0))

    crafted(0)  # warms up
    ready.wait()
    start = time.perf_counter()
    done = sum(crafted(chunk) for chunk in range(len(images.chunks)))
    return done / (time.perf_counter() - start)


def _once_for_all_targets(folder: Path, data: Path) -> str:
    """Times 2 surrogates x 2 attacks x 6 targets in this process, crafting once for all targets or once for each."""
    file = write_experiment(folder, data, "targets", 200, 1, 2)
    content = yaml.safe_load(file.read_text())
    models = content["models"]
    targets = {f"target{n}": models["resnet44"] | {"args": {"depth": 44}} for n in range(6)}
    content |= {"models": models | targets, "targets": list(targets)}
    content["attacks"]["mi"] = {"method": "mi", "eps": "2/255", "step": "0.5/255", "steps": 10}
    file.write_text(yaml.safe_dump(content))
    request = Request(file, quiet=True)
    run(request, ["align"])
    blueprint = open_blueprint(request)
    torch.set_num_threads(2)
    networks, images = LoadedNetworks(network_loader(blueprint), "cpu"), test_images(blueprint)

    def seconds(crafts_for_each: bool) -> float:
        start = time.perf_counter()
        for chunk in range(len(images.chunks)):
            clean_BCHW = torch.from_numpy(images.read(chunk))
            labels_B = torch.tensor(images.labels_of(chunk))
            ids = images.ids_of(chunk)
            for surrogate in blueprint.surrogates:
                network = networks.mean_of(surrogate.members)
                for attack in blueprint.experiment.attacks.values():
                    for number, target in enumerate(blueprint.experiment.targets):
                        if crafts_for_each or number == 0:
                            adversarial_BCHW = craft(network, clean_BCHW, labels_B, ids, attack, 0)
                        with torch.no_grad():
                            networks.network(target)(adversarial_BCHW.to(torch.float32) / 255)
        return time.perf_counter() - start

    seconds(False)  # warms up
    ours, theirs = seconds(False), seconds(True)
    return (
        f"scaling: 2 surrogates x 2 attacks x 6 targets: crafting once for every target takes {theirs / ours:.2f} x as "
        f"long as crafting once for all; {theirs:.1f} s against {ours:.1f} s"
    )
