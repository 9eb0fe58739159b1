"""What timm and torchvision publish about a network beside its weights: constructor arguments, preprocessing and crop.

A file of weights holds none of it, so that it has to be written down wherever the weights are stored anew. Nothing here
imports torch until a function is called.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from align_core.downloads import hub_revision
from align_core.errors import InputError
from align_core.images import Fit
from align_core.model_config import ModelConfig, resolve_aligned

# What torchvision's constructors set where weights of its enumerations are loaded. Both networks were converted from
# TensorFlow and then normalise their input in another way; `init_weights` only saves time.
_SET_WITH_WEIGHTS: dict[str, dict[str, Any]] = {
    "googlenet": {"transform_input": True, "aux_logits": False, "init_weights": False},
    "inception_v3": {"transform_input": True, "aux_logits": True, "init_weights": False},
}
_SHARES_DIFFER = 0.01  # libraries round crops to whole pixels


@dataclass(frozen=True)
class Crop:
    """How the pictures were prepared on which a published accuracy was measured.

    Attributes:
        origin: the published weights.
        size, resize: side of the crop, and the length of the short side from which it is cut, in pixels.
        interpolation: with which pictures are resized.
        mode: `center`, or another of timm's modes, which distort the picture or add borders.
    """

    origin: str
    size: int
    resize: int
    interpolation: str
    mode: str = "center"

    def is_used(self, fit: Fit) -> bool:
        """Whether an experiment's images show the same share of a picture, resized in the same way."""
        same_share = abs(self.size / self.resize - fit.share) <= _SHARES_DIFFER
        return same_share and (self.interpolation, self.mode) == (fit.interpolation, "center")

    def __str__(self) -> str:
        mode = "" if self.mode == "center" else f", crop mode {self.mode}"
        return f"{described(self.size, self.resize, self.interpolation)}{mode} ({self.origin})"


def described(size: int, resize: int, interpolation: str) -> str:
    """A crop in words, for messages."""
    return f"{size} of {resize} px (share {size / resize:.3f}), {interpolation}"


def crops(config: ModelConfig, classes: int) -> list[Crop]:
    """The published crop of a network, or those of several weights where a file does not say which of them it holds.

    Empty where the network has no published weights: it is a factory's, it is trained here, or it has other classes.
    Raises InputError for a name that the library does not know.
    """
    config = resolve_aligned(config)
    if config.timm is not None and config.train is None:
        published = _timm_published(config)
        is_own = config.weights == "pretrained" or published.get("num_classes") == classes
        return [_timm_crop(config.timm, published)] if published and is_own else []
    if config.torchvision is not None and config.train is None:
        named = torchvision_weights(config)
        members = _members(config.torchvision) if named is None else [named]
        return [_torchvision_crop(weights) for weights in members if _classes_of(weights) == classes]
    return []


def other_normalisations(config: ModelConfig) -> list[str]:
    """timm's tags of an architecture whose mean or std are not those that a file of weights gets.

    They are those of timm's default tag where the configuration names none. Empty where it names a tag, or gives mean
    and std itself.
    """
    config = resolve_aligned(config)
    if config.timm is None or config.weights_file is None or config.mean or "." in config.timm:
        return []
    import timm

    used = _timm_published(config)
    found = {name: timm.get_pretrained_cfg(name) for name in timm.list_pretrained(f"{config.timm}.*")}
    return [name for name, other in found.items() if (other.mean, other.std) != (used.get("mean"), used.get("std"))]


def as_built(config: ModelConfig, classes: int, channels: int) -> ModelConfig:
    """The configuration with everything that decides predictions written out, as the libraries set it now.

    These are timm's tag, the constructor's arguments, mean, std and input size. Weights that are stored with the result
    predict the same when they are loaded again, even if a library has changed its defaults in between.

    Args:
        config: of a network that can be built.
        classes: number of classes of the experiment; published weights keep their own.
        channels: number of image channels, 1 or 3.
    """
    config = resolve_aligned(config)
    if config.timm is not None:
        return _as_built_by_timm(config, config.timm, classes, channels)
    if config.torchvision is not None:
        transforms = torchvision_transforms(config)
        arguments = torchvision_arguments(config, classes)
        found: dict[str, Any] = {"mean": tuple(transforms.mean), "std": tuple(transforms.std)}
        found["input_size"] = torchvision_input_size(arguments, transforms)
        return replace(config, args=arguments, **_unless_given(config, found))
    return config


def _unless_given(config: ModelConfig, found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if getattr(config, name) is None}


def _as_built_by_timm(config: ModelConfig, name: str, classes: int, channels: int) -> ModelConfig:
    from timm.data import resolve_data_config

    published = _timm_published(config)
    if not published:  # from a folder or a hub, which say everything themselves; a hub's main branch may move
        commit = hub_revision(name)
        return replace(config, timm=f"{name.partition('@')[0]}@{commit}") if commit else config
    own = int(published.get("num_classes") or 0)
    keeps_own = config.weights == "pretrained" and config.train is None and own
    arguments = {"in_chans": channels, "num_classes": own if keeps_own else classes}
    if published.get("fixed_input_size"):
        arguments["img_size"] = published["input_size"][-1]
    arguments |= config.args
    data = resolve_data_config({"img_size": arguments.get("img_size")}, pretrained_cfg=published)
    mean, std = grey_normalisation(data["mean"], data["std"], channels)
    found = {"mean": mean, "std": std, "input_size": data["input_size"][-1]}
    architecture, tag = published.get("architecture"), published.get("tag")
    full = f"{architecture}.{tag}" if architecture and tag else name
    return replace(config, timm=full, args=arguments, **_unless_given(config, found))


def grey_normalisation(
    mean: tuple[float, ...], std: tuple[float, ...], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std for images of this many channels: for grey ones, the mean over the colours."""
    if channels == len(mean):
        return tuple(mean), tuple(std)
    return (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels


def _timm_published(config: ModelConfig) -> dict[str, Any]:
    """timm's `pretrained_cfg` of a model with what `args` lays over it; empty where timm's own list lacks it."""
    import timm

    try:
        chosen = config.args.get("pretrained_cfg")
        name = f"{config.timm}.{chosen}" if isinstance(chosen, str) else str(config.timm)
        found = timm.get_pretrained_cfg(name)
    except RuntimeError as problem:
        raise InputError(f"timm: {config.timm}: {problem}") from problem
    published = {} if found is None else found.to_dict()
    if isinstance(chosen, dict):
        published = chosen
    return {**published, **(config.args.get("pretrained_cfg_overlay") or {})}


def _timm_crop(name: str, published: Mapping[str, Any]) -> Crop:
    from timm.data import resolve_data_config

    data = resolve_data_config({}, pretrained_cfg=dict(published))
    tag = published.get("tag")
    size, origin = data["input_size"][-1], f"{published.get('architecture', name)}{f'.{tag}' if tag else ''}"
    return Crop(origin, size, math.floor(size / data["crop_pct"]), data["interpolation"], data["crop_mode"])


def _members(name: str) -> list[Any]:
    """All published weights of a network of torchvision, the default ones first."""
    members = _enumeration(name)
    return sorted(members, key=lambda weights: weights is not members.DEFAULT)


def _enumeration(name: str) -> Any:
    import torchvision

    try:
        return torchvision.models.get_model_weights(name)
    except ValueError as problem:
        raise InputError(f"torchvision: there is no image classifier {name!r}") from problem


def _torchvision_crop(weights: Any) -> Crop:
    made = weights.transforms()
    return Crop(str(weights), made.crop_size[0], made.resize_size[0], made.interpolation.value)


def _classes_of(weights: Any) -> int:
    return len(weights.meta["categories"] or ())  # weights of layers that only compute features have none


def torchvision_weights(config: ModelConfig) -> Any | None:
    """The member of torchvision's enumeration that `weights` names; None for a file, or a model that is trained here.

    Raises InputError for a name that is not in the enumeration.
    """
    if config.weights is None or config.weights_file is not None:
        return None
    members = _enumeration(str(config.torchvision)).__members__  # DEFAULT too
    if config.weights not in members:
        known = ", ".join(members)
        raise InputError(f"torchvision: {config.torchvision} has no weights {config.weights!r}; it has {known}")
    return members[config.weights]


def torchvision_transforms(config: ModelConfig) -> Any:
    """The transforms that torchvision publishes with the weights; of a file, those with the default weights."""
    return (torchvision_weights(config) or _members(str(config.torchvision))[0]).transforms()


def torchvision_input_size(arguments: Mapping[str, Any], transforms: Any) -> int:
    """Side of the network's input: what its constructor is told, or else the published crop."""
    return int(arguments.get("image_size") or transforms.crop_size[0])


def torchvision_arguments(config: ModelConfig, classes: int) -> dict[str, Any]:
    """The arguments that a network's constructor is given in effect, with those that torchvision's weights bring along.

    Raises InputError for a file of weights of a network whose published weights need arguments that are not the
    constructor's defaults, unless `args` decides.
    """
    name, weights = str(config.torchvision), torchvision_weights(config)
    set_with_weights = _SET_WITH_WEIGHTS.get(name, {})
    if weights is not None:
        brought = {"num_classes": classes if config.train else _classes_of(weights), **set_with_weights}
        if name.startswith("vit_"):
            brought["image_size"] = weights.meta["min_size"][0]
        elif name == "maxvit_t":
            brought["input_size"] = weights.meta["min_size"]
        return {**brought, **config.args}
    if config.weights is None:
        untransformed = {"transform_input": False, "init_weights": True} if set_with_weights else {}
        return {"num_classes": classes, **untransformed, **config.args}
    if set_with_weights and "transform_input" not in config.args:
        raise InputError(
            f"torchvision: {name}: the constructor's argument transform_input decides its predictions, and a file of "
            "weights does not hold it. Write args: {transform_input: true} for weights that torchvision published, or "
            "that come from them, and args: {transform_input: false} for weights trained without it (for a model that "
            "an earlier version aligned: in its card.json, under model)"
        )
    saves_time = {"init_weights": False} if set_with_weights else {}
    return {"num_classes": classes, **saves_time, **config.args}
