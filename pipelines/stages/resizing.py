"""Says which models resize the images of the experiment: small images that are made large look as nothing they know."""

from dataclasses import dataclass

from align_core.model_config import ModelConfig
from align_core.published import as_built
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.known import Known
from pipelines.stages.model_uses import uses_of
from pipelines.stages.seen import SEEN
from pipelines.storage.store import fingerprint_of

_FILE = f"{SEEN}/input-sizes.json"


@dataclass(frozen=True)
class _InputSize:
    """Side in pixels to which a model resizes its input; None where it takes images at their size."""

    side: int | None

    def __post_init__(self) -> None:
        if type(self.side) not in (int, type(None)):
            raise TypeError("not a side in pixels")


def resizings(blueprint: Blueprint) -> list[str]:
    """A line for each model with a role that resizes images, as `32 px images are resized to 224 for resnet50`.

    What was found out about models is added to `blueprint.inspected.unsaved`: asking timm takes seconds.
    """
    side, classes = blueprint.experiment.data.image_size, blueprint.experiment.data.classes_count
    known, lines = Known(blueprint.store, _FILE), []
    uses = uses_of(blueprint.experiment, len(blueprint.inspected.manifests["train"]))
    for name in (name for name, use in uses.items() if use.has_role):
        config = blueprint.networks[name].config
        key = fingerprint_of([config.architecture, config.weights if config.torchvision else None, config.input_size])

        def ask(config: ModelConfig = config) -> _InputSize:
            return _InputSize(as_built(config, classes, blueprint.inspected.shape[0]).input_size)

        own = known.get(key, _InputSize, ask).side
        if own not in (None, side):
            lines.append(f"{side} px images are resized to {own} for {name}")
    blueprint.inspected.unsaved |= known.unsaved()
    return lines
