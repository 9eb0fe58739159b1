"""A finished experiment whose results are real, made in this process: crafted, evaluated and reported without Ray."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from hand_made import CURVE, HandMade, hand_made
from one_worker import measure

from align_core.attacks import crafted as crafted_images
from align_core.attacks import distances
from align_core.similarity import structural_similarity
from align_core.weights import to_bytes
from pipelines.compute.images import adversarial_images
from pipelines.compute.loading import LoadedNetworks
from pipelines.progress import Progress
from pipelines.report.page import make_report
from pipelines.run.resolved import write_resolved
from pipelines.stages.align import commit
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.payload import network_loader, test_images, towards_of
from pipelines.stages.take_in import take_in_all
from pipelines.storage.chunked_table import ChunkedTable


def crafted(folder: Path, **changes: Any) -> HandMade:
    """Writes the experiment of `hand_made`, with three images per chunk, and all of its results."""
    experiment = hand_made(folder, **{"compute": {"chunk": 3}, **changes})
    finish(experiment.blueprint())
    return experiment


def finish(blueprint: Blueprint) -> None:
    """Makes every network (a copy of its source, each changed more), table and report that is missing."""
    networks = LoadedNetworks(network_loader(blueprint), "cpu")
    for number, making in enumerate(blueprint.alignments()):
        if not blueprint.is_made(making.name):
            source = networks.network(str(making.start)).net.state_dict()
            state = {name: value * (1.25 + number) for name, value in source.items()}
            commit(blueprint.store, making, [to_bytes(state)], CURVE, seconds=1.0, shape=blueprint.inspected.shape)
    blueprint.refresh()
    blueprint.inspected.save(blueprint.store)
    write_resolved(blueprint)
    networks = LoadedNetworks(network_loader(blueprint), "cpu")
    take_in_all(blueprint, Progress(quiet=True))
    for (name, attack), table in blueprint.crafted().items():
        surrogate = networks.mean_of(blueprint.by_name[name].members)
        for chunk in _missing(blueprint, table):
            rows = _crafted(blueprint, surrogate, attack, chunk, networks)
            table.write_chunk(blueprint.store, chunk, rows)
        table.finish(blueprint.store, blueprint.rows)
    for members, table in blueprint.clean().values():
        _evaluate(blueprint, networks.mean_of(members), None, table, "")
    for cell in blueprint.cells():
        images = blueprint.adversarial(blueprint.by_name[cell.surrogate], cell.attack)
        _evaluate(blueprint, networks.mean_of(cell.predictions.members), images, cell.table, "adversarial_")
    measure(blueprint)
    blueprint.check_finished()
    make_report(blueprint)


def _missing(blueprint: Blueprint, table: ChunkedTable) -> range:
    return range(0 if table.is_finished(blueprint.store.listing()) else len(blueprint.rows))


def _crafted(
    blueprint: Blueprint, surrogate: torch.nn.Module, attack: str, chunk: int, networks: LoadedNetworks
) -> pa.Table:
    images, experiment = test_images(blueprint), blueprint.experiment
    clean, labels = torch.from_numpy(np.array(images.read(chunk))), torch.tensor(images.labels_of(chunk))
    settings, wanted = experiment.attacks[attack], None
    if settings.is_targeted:
        wanted = towards_of(blueprint).of_chunk(settings.towards, chunk, clean, networks)
    made = crafted_images(surrogate, clean, labels, images.ids_of(chunk), settings, experiment.seed, wanted_B=wanted)
    adversarial = made.images_BCHW
    linf, l2 = distances(adversarial, clean)
    columns = {"image_id": images.ids_of(chunk), "label": labels.numpy()}
    if wanted is not None:
        columns["towards"] = wanted.numpy()
    counted = (
        {"gradients": np.full(len(clean), made.gradients, np.float32)}
        if made.pass_rows is None
        else {"pass_rows": np.full(len(clean), made.pass_rows, np.int32)}
    )
    return pa.table(
        columns
        | {
            "image": pa.FixedShapeTensorArray.from_numpy_ndarray(adversarial.numpy()),
            "linf": linf.numpy(),
            "l2": l2.numpy(),
            "ssim": structural_similarity(adversarial, clean).numpy(),
            **counted,
        }
    )


def _evaluate(
    blueprint: Blueprint, network: torch.nn.Module, shown: ChunkedTable | None, table: ChunkedTable, prefix: str
) -> None:
    images = test_images(blueprint)
    for chunk in _missing(blueprint, table):
        rows = blueprint.rows[chunk]
        pixels = (
            images.read(chunk) if shown is None else adversarial_images(shown.read_chunk(blueprint.store, chunk, rows))
        )
        labels = torch.tensor(images.labels_of(chunk))
        with torch.no_grad():
            logits = network(torch.from_numpy(np.array(pixels)).float() / 255, images.ids_of(chunk))
        columns = {
            "image_id": images.ids_of(chunk),
            "label": labels.numpy(),
            f"{prefix}prediction": logits.argmax(dim=1).numpy(),
            f"{prefix}confidence": logits.softmax(dim=1).gather(1, labels[:, None])[:, 0].numpy(),
        }
        table.write_chunk(blueprint.store, chunk, pa.table(columns))
    table.finish(blueprint.store, blueprint.rows)
