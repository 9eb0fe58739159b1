"""Models: builds a `Classifier`, which maps pixels in [0, 1] to logits, from a `ModelConfig`.

Resizing and normalisation happen inside the classifier. Attacks and perturbation limits are therefore the same for all
models, and are stated in pixels, whatever mean and standard deviation a model was trained with.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.weak import WeakIdKeyDictionary

from align_core.bounds import near_names
from align_core.downloads import check_torch_can_load, hub_offline_unless_reachable, hub_revision
from align_core.errors import InputError, named, reason_of
from align_core.model_config import Combine, ModelConfig, Precision, resolve_aligned
from align_core.own_code import imported, own_code
from align_core.published import (
    grey_normalisation,
    torchvision_arguments,
    torchvision_input_size,
    torchvision_transforms,
    torchvision_weights,
)
from align_core.weights import State, load_into, read_weights

_handed_out: MutableMapping[Tensor, None] = WeakIdKeyDictionary()  # the parameters of networks that factories returned
AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)
_NETWORK = ("httpx", "huggingface_hub", "requests", "urllib3")  # modules whose exceptions mean that a download failed


class Classifier(nn.Module):
    """A network with its preprocessing: it maps float pixels [B, C, H, W] in [0, 1] to logits [B, K].

    Where the attribute `precision` is set to `bf16`, the network runs under autocast. Logits are float32 in any case.
    The attribute `changes` says what had to be changed about the network when it was built, a clause each.
    `frozen` names the parameters that its constructor froze (`requires_grad` False): they stay as they are when it is
    trained. It is empty where all are frozen, as of a network that was made ready to predict.
    Images go through the functions in `defences` first (see `align_core.defences`), of which one that draws random
    numbers asks for the images' ids: `classifier(images, ids)`.

    Args:
        net: takes normalised images of side `input_size`.
        mean, std: normalisation per channel, in fractions of the pixel range.
        input_size: side in pixels to which images are resized, with antialiased bicubic interpolation; None leaves the
            images at their size.
    """

    mean_C11: Tensor
    std_C11: Tensor

    def __init__(
        self, net: nn.Module, mean: Sequence[float], std: Sequence[float], input_size: int | None = None
    ) -> None:
        super().__init__()
        self.net = net
        self.input_size = input_size
        self.precision: Precision = "fp32"
        self.changes: tuple[str, ...] = ()
        self.frozen: frozenset[str] = frozenset()
        self.defences: tuple[Callable[..., Tensor], ...] = ()
        self.register_buffer("mean_C11", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std_C11", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images_BCHW: Tensor, ids: Sequence[str] | None = None) -> Tensor:
        """Returns float32 logits [B, K] for pixels [B, C, H, W] in [0, 1], and the ids of the images if they count."""
        return logits_of(self.output(images_BCHW, ids)).float()

    def output(self, images_BCHW: Tensor, ids: Sequence[str] | None = None) -> Any:
        """Returns whatever the network returns for pixels [B, C, H, W] in [0, 1]."""
        for defence in self.defences:
            images_BCHW = defence(images_BCHW, ids)
        size = self.input_size
        if size is not None and images_BCHW.shape[-2:] != (size, size):
            images_BCHW = F.interpolate(images_BCHW, (size, size), mode="bicubic", antialias=True, align_corners=False)
        normalised_BCHW = (images_BCHW - self.mean_C11) / self.std_C11
        bf16 = torch.autocast(images_BCHW.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()
        with bf16:
            return self.net(normalised_BCHW)


def logits_of(output: Any) -> Tensor:
    """The logits [B, K] in what a network returns: a tensor, or the attribute or key `logits`, or the first of several.

    Networks with auxiliary heads return several tensors in train mode, and those of some libraries an object. Raises
    TypeError where there are no logits.
    """
    if isinstance(output, Mapping):
        found = output.get("logits", next(iter(output.values())) if len(output) == 1 else None)
    else:
        found = getattr(output, "logits", None)
        if found is None and isinstance(output, tuple | list) and output:
            found = output[0]
    found = output if isinstance(output, Tensor) else found
    if not isinstance(found, Tensor):
        raise TypeError(f"the network returns a {type(output).__name__} without logits, not a tensor")
    if not found.is_floating_point() and not found.is_complex():
        raise TypeError(f"the network returns whole numbers ({found.dtype}), not logits")
    if found.is_complex():  # of which `float()` would keep the real part
        raise TypeError("the network returns complex numbers, not logits")
    return found


def copy_of(network: AnyNetwork) -> AnyNetwork:
    """A copy that shares nothing with the original.

    The older `weight_norm` keeps a tensor that was computed from its parameters, which deepcopy refuses; it computes
    that tensor again at every forward pass.
    """
    computed = {
        id(value): value.detach().clone()
        for part in network.modules()
        for value in vars(part).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    return copy.deepcopy(network, computed)


@contextmanager
def predicting(network: nn.Module, frozen: bool = False) -> Iterator[None]:
    """Puts a network into eval mode, and back into the modes it had; `frozen` parameters take no gradient meanwhile."""
    modes = [(part, part.training) for part in network.modules()]
    wanted = [(own, own.requires_grad) for own in network.parameters()]
    network.eval()
    if frozen:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
        for parameter, needs_gradient in wanted:
            parameter.requires_grad_(needs_gradient)


class Ensemble(nn.Module):
    """One surrogate made of several models. It predicts by the mean of their logits.

    Attacks on the mean of the logits transfer better than attacks on the mean of the probabilities or of the losses
    (Dong et al. 2018, on ensembles).

    Args:
        members: the models.
        combine: what an attack goes by: the mean of their `logits`, the mean of their `loss`es, or one model after the
            other, a step each (`cycle`).
    """

    def __init__(self, members: Sequence[nn.Module], combine: Combine = "logits") -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.combine = combine

    def forward(self, images_BCHW: Tensor, ids: Sequence[str] | None = None) -> Tensor:
        """Returns the mean logits [B, K] for pixels [B, C, H, W] in [0, 1]; ids are handed to each member if given."""
        given = () if ids is None else (ids,)
        return torch.stack([member(images_BCHW, *given) for member in self.members]).mean(dim=0)


def build(config: ModelConfig, classes: int, channels: int) -> Classifier:
    """Builds a model. Its weights are random unless the configuration names weights that the library supplies.

    Args:
        config: architecture and preprocessing. What a training starts from is left to `beginnings.begin`.
        classes: number of classes K. Weights that the library supplies keep their own number.
        channels: number of image channels, 1 or 3.

    Raises InputError for an unknown name, arguments that the constructor refuses, or a factory that cannot be found.
    """
    config = resolve_aligned(config)
    if config.timm is not None:
        return _from_timm(config, classes, channels)
    if config.torchvision is not None:
        return _from_torchvision(config, classes, channels)
    net = _call_factory(str(config.factory), config.args)
    classifier = _classifier(net, config, (0.0,) * channels, (1.0,) * channels, None)
    _check_new(net, str(config.factory))
    return classifier


def load(config: ModelConfig, classes: int, channels: int, weights: Path | State | None = None) -> Classifier:
    """Builds a model and loads its weights. It is returned in eval mode, with frozen parameters.

    Args:
        config: architecture, weights and preprocessing.
        classes: number of classes K.
        channels: number of image channels, 1 or 3.
        weights: a weights file, or the tensors themselves, to load instead of those of the configuration.

    Raises InputError where the model cannot be built, or its weights cannot be read or do not fit.
    """
    config = resolve_aligned(config)
    classifier = build(config, classes, channels)
    source = weights if weights is not None or config.train else config.weights_file
    if isinstance(source, Path):
        load_into(classifier.net, read_weights(source), str(source))
    elif source is not None:
        load_into(classifier.net, source, "the weights given")
    return classifier.eval().requires_grad_(False)


def _from_timm(config: ModelConfig, classes: int, channels: int) -> Classifier:
    import timm
    from timm.data import resolve_data_config

    pretrained = config.weights == "pretrained" and config.train is None
    arguments = {"in_chans": channels, **({} if pretrained else {"num_classes": classes}), **config.args}
    try:
        if pretrained:
            _check_download(config)
        with hub_offline_unless_reachable() if pretrained else nullcontext():
            net = timm.create_model(str(config.timm), pretrained=pretrained, **arguments)
        data = resolve_data_config({"img_size": config.args.get("img_size")}, model=net)
    except Exception as problem:  # a wrong argument can break a constructor anywhere
        if pretrained and (isinstance(problem, OSError | InputError) or type(problem).__module__.startswith(_NETWORK)):
            raise InputError(
                f"timm: {config.timm}: the pretrained weights cannot be loaded here ({reason_of(problem)}). Check the "
                "network, or give a local file as `weights`"
            ) from problem
        is_known = ":" in str(config.timm) or timm.is_model(str(config.timm))
        near = "" if is_known else _did_you_mean(str(config.timm), timm.list_models())
        raise InputError(f"timm: {config.timm}: {named(problem)}{near}") from problem
    mean, std = grey_normalisation(data["mean"], data["std"], channels)
    classifier = _classifier(net, config, mean, std, data["input_size"][-1])
    published, taken = net.pretrained_cfg.get("input_size", [channels])[0], arguments["in_chans"]
    if pretrained and published != taken:
        converted = f"its weights are published for {published} channels, and timm converted its first layer to {taken}"
        classifier.changes += (converted,)
    if pretrained and "@" not in str(config.timm) and (commit := hub_revision(str(config.timm))):
        classifier.changes += (f"its weights are revision {commit}; `timm: {config.timm}@{commit}` keeps to them",)
    return classifier


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = near_names(name, known)
    return f"; did you mean {near}?" if near else ""


def _check_download(config: ModelConfig) -> None:
    """Raises InputError where timm would wait without a limit for weights that are not on Hugging Face's hub."""
    import timm

    if config.args.keys() & {"cache_dir", "pretrained_cfg", "pretrained_cfg_overlay"}:  # which say where weights are
        return
    published = timm.get_pretrained_cfg(str(config.timm))
    if published is not None and published.url and not (published.hf_hub_id or published.file):
        check_torch_can_load(published.url)


def _from_torchvision(config: ModelConfig, classes: int, channels: int) -> Classifier:
    import torchvision

    name = str(config.torchvision)
    if name not in (known := torchvision.models.list_models(torchvision.models)):
        raise InputError(f"torchvision: there is no image classifier {name!r}{_did_you_mean(name, known)}")
    weights, arguments = torchvision_weights(config), torchvision_arguments(config, classes)
    if config.train is not None:
        weights = None
    if weights is not None:
        try:
            # The constructor below unpickles the file in torch's cache without restrictions. This call checks first
            # that the file can be read with weights_only=True, and so contains tensors alone.
            check_torch_can_load(weights.url)
            weights.get_state_dict(check_hash=True, weights_only=True)
        except Exception as problem:  # no network, another hash, or a damaged file
            raise InputError(
                f"torchvision: the weights {config.weights} of {name} cannot be loaded here ({reason_of(problem)}). "
                "Check the network, or give a local file as `weights`"
            ) from problem
    try:
        # With weights, torchvision sets by itself what they bring along, and refuses some of it as an argument.
        net = torchvision.models.get_model(name, weights=weights, **(config.args if weights else arguments))
    except Exception as problem:  # a wrong argument can break a constructor anywhere
        raise InputError(f"torchvision: {name}: {named(problem)}") from problem
    transforms = torchvision_transforms(config)
    size = torchvision_input_size(arguments, transforms)
    return _classifier(net, config, tuple(transforms.mean), tuple(transforms.std), size)


def _call_factory(path: str, arguments: dict[str, Any]) -> nn.Module:
    factory = imported(path, "factory")
    with own_code(f"factory {path}: calling it"):
        net = factory(**arguments)
        if isinstance(net, type):
            raise InputError(f"factory {path}: returned the class {net.__name__}, not a network made from it")
        net = getattr(net, "_orig_mod", net)  # what torch.compile wraps; its weights have names of their own
        if not isinstance(net, nn.Module):
            raise InputError(f"factory {path}: returned a {type(net).__name__}, not a torch.nn.Module")
        return net


def _check_new(net: nn.Module, factory: str) -> None:
    """Raises InputError where the network shares parameters with one that a factory returned before and that is in use.

    The weights of one model would be loaded over those of the other.
    """
    parameters = list(net.parameters())
    taken = {own.untyped_storage().data_ptr() for own in _handed_out} - {0}
    if any(own in _handed_out or own.untyped_storage().data_ptr() in taken for own in parameters):
        raise InputError(
            f"factory {factory}: returned a network that it returned before, or one that shares parameters with it, "
            "so that loading the weights of one model would change the other. Each call must make a network of its "
            "own: is it kept in a cache, or made where the module is imported?"
        )
    _handed_out.update(dict.fromkeys(parameters))


def _classifier(
    net: nn.Module, config: ModelConfig, mean: Sequence[float], std: Sequence[float], input_size: int | None
) -> Classifier:
    """A Classifier with the given preprocessing, except for what the configuration gives itself.

    The network is brought to the CPU and to single precision, in which everything here starts.
    """
    parameters = list(net.parameters())
    if any(isinstance(own, nn.parameter.UninitializedParameter) for own in parameters):
        raise InputError("the network has layers without a size (nn.Lazy...), which it must be given before")
    types = {str(own.dtype).removeprefix("torch.") for own in parameters if own.is_floating_point()} - {"float32"}
    devices = {own.device.type for own in (*parameters, *net.buffers())} - {"cpu"}
    if "meta" in devices:
        raise InputError("the network is on the meta device, where its weights have no values")
    classifier = Classifier(
        net.float() if types else net, config.mean or mean, config.std or std, config.input_size or input_size
    )
    changes = [f"its weights were {' and '.join(sorted(types))}, and are used as float32"] if types else []
    changes += [f"it was on {' and '.join(sorted(devices))}, and starts on the CPU"] if devices else []
    frozen = [own for own, parameter in classifier.named_parameters() if not parameter.requires_grad]
    classifier.frozen = frozenset(frozen if len(frozen) < len(parameters) else ())
    classifier.changes = tuple(changes)
    return classifier.cpu() if devices else classifier
