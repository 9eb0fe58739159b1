"""The test images of an experiment. Nothing here imports torch, so that a report shows some of them at once."""

from pipelines.compute.images import TestImages
from pipelines.stages.blueprint import Blueprint


def test_images(blueprint: Blueprint) -> TestImages:
    """The test images in their chunks."""
    manifest, data = blueprint.inspected.manifests["test"], blueprint.experiment.data
    channels, labels = blueprint.inspected.shape[0], manifest.labels.tolist()
    return TestImages(data.test, data.fit, channels, manifest.ids, labels, blueprint.chunks, manifest.contents)
