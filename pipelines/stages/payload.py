"""What workers are sent: test images in chunks, the way to load networks, and a fine-tune."""

from pipelines.compute.cluster import Worker
from pipelines.compute.fine_tune import FineTune
from pipelines.compute.loading import NetworkLoader
from pipelines.compute.others import Pool, pool_of
from pipelines.compute.ray_train import RUNS
from pipelines.compute.towards import Towards
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.clean_images import test_images
from pipelines.stages.makings import Making
from pipelines.stages.stopping import checked_of, needed_for_checks


def others_pool(blueprint: Blueprint) -> Pool:
    """The test images that attacks may mix in."""
    experiment = blueprint.experiment
    data, manifest = experiment.data, blueprint.inspected.manifests["test"]
    return pool_of("data.test", manifest, data.test, data.fit, experiment.seed)


def towards_of(blueprint: Blueprint) -> Towards:
    """How the classes are found that targeted attacks lead the test images to."""
    experiment, column = blueprint.experiment, blueprint.inspected.manifests["test"].towards
    classes = experiment.data.classes_count
    listed = None if column is None else column.tolist()
    return Towards(test_images(blueprint), listed, experiment.source, classes, experiment.seed)


def network_loader(blueprint: Blueprint) -> NetworkLoader:
    """How workers load any network of the experiment that is there."""
    experiment = blueprint.experiment
    return NetworkLoader(
        store=blueprint.store,
        networks=blueprint.networks,
        classes=experiment.data.classes_count,
        channels=blueprint.inspected.shape[0],
        precision=experiment.compute.precision,
    )


def fine_tune_of(blueprint: Blueprint, making: Making, worker: Worker) -> FineTune:
    """A network to be trained or aligned, with the training images and the networks that this takes."""
    data, manifest = blueprint.experiment.data, blueprint.inspected.manifests["train"]
    checks = needed_for_checks(blueprint.experiment, making.align)
    needed = {*making.witnesses, making.start or making.name, *checks}
    return FineTune(
        name=making.name,
        start=making.start,
        witnesses=making.witnesses,
        align=making.align,
        loader=network_loader(blueprint).only(needed),
        images=data.train,
        fit=data.fit,
        image_ids=manifest.ids,
        labels=manifest.labels.tolist(),
        contents=manifest.contents,
        originals=manifest.originals,
        seed=making.seed,
        threads=worker.threads,
        progress_file=f"{RUNS}/{making.run_name}-progress.json",
        unused_parameters=(making.start or making.name) in blueprint.inspected.unused_parameters,
        checked=checked_of(blueprint, making),
        cache=blueprint.experiment.compute.cache,
        patience=blueprint.experiment.compute.patience,
    )
