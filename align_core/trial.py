"""Tries a model as it will be used, in seconds and before any work: predictions, an input gradient, a training step.

Whatever would break later, perhaps after hours, breaks here, with a message that says what is wrong with the model.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from align_core.align_config import Training
from align_core.alignment import Alignment, NonFiniteLoss
from align_core.errors import InputError, reason_of
from align_core.features import find_last_layer, find_map_layer
from align_core.folding import Pair, fold, foldable
from align_core.memory import Memory, PassMemory
from align_core.model_config import Precision
from align_core.models import Classifier, copy_of
from align_core.own_code import own_code
from align_core.peak_memory import (
    Measured,
    bytes_of_weights,
    fuses_attention,
    gradient_memory,
    predicting_memory,
    reasons_memory,
)
from align_core.trial_steps import begun_fine_tune, step_memory
from align_core.weights import not_finite, to_bytes

# Two sums of the same numbers in another order differ by far less than this share of the largest logit.
_TOLERANCE: dict[Precision, float] = {"fp32": 1e-3, "tf32": 5e-3, "bf16": 3e-2}
_OF_ONE = 0.01  # how far a sum of probabilities may be from 1, also in half precision
_SEED = 20_240_924


@dataclass
class Trial:
    """What a trial that passed has found out.

    Attributes:
        notes: what a user should know of the model, a sentence each, to follow its name.
        unused_parameters: whether a training step leaves some parameters without a gradient.
        channels_last: whether the network can be used in this layout, which is faster: one that calls `view` on what a
            convolution returns, for example, cannot.
        folded: the BatchNorms that are folded into convolutions where the network predicts or is crafted on.
        folding_difference: by how much its logits differ then, at most, on two random images.
        frozen: names of the parameters that stay as they are when it is trained, because its constructor froze them.
        memory: what it takes in memory; None where that cannot be measured.
    """

    notes: list[str] = field(default_factory=list)
    unused_parameters: bool = False
    channels_last: bool = True
    folded: tuple[Pair, ...] = ()
    folding_difference: float = 0.0
    frozen: list[str] = field(default_factory=list)
    memory: Memory | None = field(default=None, compare=False)  # two trials that differ in it found the same


def try_model(
    classifier: Classifier,
    name: str,
    shape: tuple[int, int, int],
    classes: int,
    *,
    crafted_on: bool = False,
    trainings: Sequence[Training] = (),
    sees: Collection[str] = (),
    derivatives: int = 0,
) -> Trial:
    """Tries a model on random images; it is left as it was.

    It is tried in the layout and the precision in which it will be used: channels-last, unless it cannot be.

    Args:
        classifier: the model, of the precision in which it will be used.
        name: its name, for messages.
        shape: channels, height and width of the images.
        classes: number of logits K that it must return.
        crafted_on: whether adversarial images are crafted on it.
        trainings: the ways in which it is trained.
        sees: what losses compare of it beside its logits: `features`, `places`.
        derivatives: how many times reasons differentiate it in its pixels, for its memory.

    Raises InputError where the model cannot do what it is to be used for.
    """
    trial = Trial(list(classifier.changes), frozen=sorted(classifier.frozen) if trainings else [])
    if trial.frozen:
        trial.notes.append(_said_of_frozen(trial.frozen, len(list(classifier.parameters()))))
    _check_weights(classifier, name)
    was_training = classifier.training
    generator = torch.Generator().manual_seed(_SEED)
    noise_BCHW = random_images(shape, generator)
    try:
        classifier.eval()
        _try_predictions(classifier, name, noise_BCHW, classes, trial)
        with own_code(f"models.{name}: predicting"):
            trial.channels_last = _takes_channels_last(classifier, noise_BCHW)
        if trial.channels_last:
            classifier.to(memory_format=torch.channels_last)
        with own_code(f"models.{name}: predicting with BatchNorms folded"):
            _try_folding(classifier, noise_BCHW, trial)
        if crafted_on:
            faint_1CHW = 0.5 + 0.1 * (torch.rand((1, *shape), generator=generator) - 0.5)
            _try_input_gradient(classifier, name, torch.cat([noise_BCHW[:1], faint_1CHW]))
        if sees:
            _try_features(classifier, name, noise_BCHW, "places" in sees)
        for training in trainings:
            _try_training(classifier, name, noise_BCHW, classes, training, trial)
        trial.memory = _memory(classifier, noise_BCHW, classes, trial.folded, crafted_on, trainings, derivatives)
    finally:
        classifier.train(was_training).to(memory_format=torch.contiguous_format)
    trial.notes = list(dict.fromkeys(trial.notes))
    return trial


def _try_features(classifier: Classifier, name: str, images_BCHW: Tensor, with_places: bool) -> None:
    """Finds what losses compare of the model beside its logits."""
    try:
        find_last_layer(classifier, images_BCHW)
        if with_places:
            find_map_layer(classifier, images_BCHW)
    except InputError as problem:
        raise InputError(f"models.{name}: {problem}") from problem


def _try_folding(classifier: Classifier, images_BCHW: Tensor, trial: Trial) -> None:
    """Notes which BatchNorms are folded; where none can be, or the logits would change, it is said."""
    pairs, obstacle = foldable(classifier.net)
    if obstacle is not None:
        trial.notes.append(f"its BatchNorms are not folded into convolutions, which costs speed: {obstacle}")
    if not pairs:
        return
    with torch.no_grad():
        if not torch.equal(classifier(images_BCHW), classifier(images_BCHW)):
            return  # its logits differ from call to call, which is said, so that no difference can be measured
    try:
        found = folding_difference(classifier, pairs, images_BCHW)
    except Exception as problem:  # a network may hold what cannot be copied
        trial.notes.append(f"its BatchNorms are not folded into convolutions, which costs speed: {reason_of(problem)}")
        return
    if not found.is_rounding:
        trial.notes.append(f"its BatchNorms are not folded: its logits would change by {found.largest:.2g}")
        return
    trial.folded, trial.folding_difference = pairs, found.largest


class FoldingDifference(NamedTuple):
    """The largest difference of logits that folding makes, and whether rounding explains it."""

    largest: float
    is_rounding: bool


def folding_difference(
    classifier: Classifier, pairs: Sequence[tuple[str, str]], images_BCHW: Tensor
) -> FoldingDifference:
    """By how much logits differ, at most, once these BatchNorms of a network in eval mode are folded into convolutions.

    Args:
        classifier: the network, of the precision in which it predicts; it is left as it is.
        pairs: as `align_core.folding.foldable` finds them; without any, nothing differs.
        images_BCHW: pixels in [0, 1].
    """
    if not pairs:
        return FoldingDifference(0.0, True)
    own = fold(copy_of(classifier), pairs)
    with torch.no_grad():
        plain_BK, own_BK = classifier(images_BCHW), own(images_BCHW)
    largest = float((plain_BK - own_BK).abs().max())
    most = _TOLERANCE[classifier.precision] * max(1.0, float(plain_BK.abs().max()))
    return FoldingDifference(largest, largest <= most)


def random_images(shape: tuple[int, int, int], generator: torch.Generator | None = None) -> Tensor:
    """The two images of random pixels on which every model is tried: float [2, C, H, W] in [0, 1)."""
    return torch.rand((2, *shape), generator=generator or torch.Generator().manual_seed(_SEED))


def _said_of_frozen(frozen: Sequence[str], parameters: int) -> str:
    shown = ", ".join(own.removeprefix("net.") for own in frozen[:3]) + (", ..." if len(frozen) > 3 else "")
    return f"{len(frozen)} of its {parameters} parameters are frozen ({shown}), and stay as they are when it is trained"


def _check_weights(classifier: Classifier, name: str) -> None:
    with own_code(f"models.{name}: reading its state_dict()"):
        state = dict(classifier.net.state_dict())
        parameters = {own for own, _ in classifier.net.named_parameters(remove_duplicate=False)}
    others = [own for own, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise InputError(
            f"models.{name}: its state_dict() holds {others[0]}, which is not a tensor and has no place in a weights "
            "file; register it as a buffer"
        )
    bad = not_finite(state, parameters)
    if bad:
        more = f" and {len(bad) - 3} more tensors" if len(bad) > 3 else ""
        raise InputError(
            f"models.{name}: its weights are not finite: there is NaN or infinity in {', '.join(bad[:3])}{more}. Did "
            "its training diverge?"
        )


def _try_predictions(classifier: Classifier, name: str, images_BCHW: Tensor, classes: int, trial: Trial) -> None:
    """Logits of the right shape, finite, the same when asked again, and independent of the other images."""
    shape = tuple(images_BCHW.shape[1:])
    channels = classifier.mean_C11.shape[0]
    if channels != shape[0]:
        raise InputError(f"models.{name}: mean and std are for {channels} channels, the images have {shape[0]}")

    with own_code(f"models.{name}: cannot take images of {shape} (C, H, W): predicting"), torch.no_grad():
        one_1K = classifier(images_BCHW[:1])
        again_1K = classifier(images_BCHW[:1])
        if one_1K.shape != (1, classes):
            raise InputError(
                f"models.{name}: returns {tuple(one_1K.shape)} for one image, not (1, {classes}): does data.classes "
                f"({classes}) fit this model?"
            )
        both_2K = classifier(images_BCHW)
    if both_2K.shape != (2, classes):
        raise InputError(f"models.{name}: returns {tuple(both_2K.shape)} for two images, not (2, {classes})")
    if not both_2K.isfinite().all() or not one_1K.isfinite().all():
        raise InputError(
            f"models.{name}: its logits are NaN or infinite on an image of random pixels. Are its weights those of "
            "this network, and mean and std as it wants them?"
        )
    if both_2K.min() >= 0 and (both_2K.sum(dim=1) - 1).abs().max() < _OF_ONE:
        trial.notes.append(
            "its outputs look like probabilities, as they lie from 0 to 1 and add up to 1; confidences, attacks and "
            "alignments take logits, so leave out its softmax"
        )
    if not _are_close(one_1K, again_1K, classifier.precision):
        trial.notes.append(
            "its logits differ when it is asked twice, in eval mode: is dropout or another random part "
            "left on? Its figures cannot be repeated"
        )
    elif not _are_close(both_2K[:1], one_1K, classifier.precision):
        trial.notes.append(
            "its logits for an image depend on the other images of the batch, in eval mode: its "
            "figures depend on compute.chunk"
        )


def _are_close(one: Tensor, other: Tensor, precision: Precision) -> bool:
    return bool((one - other).abs().max() <= _TOLERANCE[precision] * (1 + one.abs().max()))


def _takes_channels_last(classifier: Classifier, images_BCHW: Tensor) -> bool:
    """Whether the logits are the same when the convolutions are in channels-last layout; the model stays as it is."""
    with torch.no_grad():
        logits_BK = classifier(images_BCHW)
        try:
            classifier.to(memory_format=torch.channels_last)
            return _are_close(logits_BK, classifier(images_BCHW), classifier.precision)
        except Exception:  # of the user's code: in the usual layout it raises nothing
            return False
        finally:
            classifier.to(memory_format=torch.contiguous_format)


def _try_input_gradient(classifier: Classifier, name: str, images_BCHW: Tensor) -> None:
    """A gradient of a random mixture of the logits with respect to the pixels, finite and not zero everywhere."""
    where = f"models.{name}: adversarial images cannot be crafted on it"
    wanted = [(own, own.requires_grad) for own in classifier.parameters()]
    images_BCHW = images_BCHW.clone().requires_grad_()
    try:
        for own, _ in wanted:
            own.requires_grad_(False)
        with own_code(f"{where}: computing the gradient of its logits"), torch.enable_grad():
            logits_BK = classifier(images_BCHW)
            if not logits_BK.requires_grad:
                raise InputError(
                    f"{where}: its logits have no gradient with respect to the image. Does its forward use "
                    "torch.no_grad, inference_mode, detach or numpy?"
                )
            mixture_BK = torch.linspace(-1, 1, logits_BK.numel()).view_as(logits_BK)
            (gradient_BCHW,) = torch.autograd.grad((logits_BK * mixture_BK).sum(), images_BCHW, allow_unused=True)
    finally:
        for own, flag in wanted:
            own.requires_grad_(flag)
    if gradient_BCHW is None or not gradient_BCHW.any():
        raise InputError(
            f"{where}: the gradient of its logits with respect to the image is zero everywhere, on "
            f"{len(images_BCHW)} random images, so that an attack would change nothing. Does it round, threshold or "
            "quantise its input, detach it, or return saturated probabilities instead of logits?"
        )
    if not gradient_BCHW.isfinite().all():
        raise InputError(f"{where}: the gradient of its logits with respect to the image is NaN or infinite")


def _try_training(
    classifier: Classifier, name: str, images_BCHW: Tensor, classes: int, training: Training, trial: Trial
) -> None:
    """Two steps on a copy, and the second once more from the state saved in between."""
    rows = min(len(images_BCHW), training.rows)
    images_BCHW, labels_B = images_BCHW[:rows], torch.arange(rows) % classes
    cannot = f"models.{name}: it cannot be trained: "
    shown = f"{rows} image{'s' * (rows > 1)}{', all that one worker takes at a step,' if rows < 2 else ''}"

    def begun() -> Alignment:
        with own_code(f"{cannot}copying it"):
            source = copy_of(classifier)
            if next(source.parameters(), None) is None:
                raise InputError(f"{cannot}it has no parameters")
            try:
                return begun_fine_tune(source, rows, classes, training)
            except InputError as problem:  # about what is frozen
                raise InputError(f"models.{name}: {training.key}.{problem}") from problem

    def step(alignment: Alignment) -> bool:
        """Whether the step was taken: not where the loss on these random images is not finite, which says little."""
        with own_code(f"{cannot}a step on {shown}"):
            try:
                alignment.step(images_BCHW, labels_B)
            except NonFiniteLoss:
                return False
        return True

    first, second = begun(), begun()
    outputs: list[object] = []
    hook = first.source.net.register_forward_hook(lambda _net, _input, output: outputs.append(output))  # type: ignore
    is_taken = step(first)
    hook.remove()
    if not isinstance(outputs[0], Tensor):
        trial.notes.append(
            f"in train mode it returns a {type(outputs[0]).__name__}: the alignment uses the logits in "
            "it, and leaves auxiliary outputs out of the loss"
        )
    if not is_taken:
        return
    trial.unused_parameters |= first.leaves_parameters_unused
    with own_code(f"{cannot}saving its state and restoring it"):
        second.restore(load_safetensors(to_bytes(first.state())))
    if not (step(first) and step(second)):
        return
    unbroken, resumed = first.source.state_dict(), second.source.state_dict()
    if any(not torch.equal(value, resumed[own]) for own, value in unbroken.items()):
        trial.notes.append(
            "training that is resumed comes to other weights than unbroken training: the model keeps "
            "something that training changes outside its state_dict()"
        )


def _memory(
    classifier: Classifier,
    images_BCHW: Tensor,
    classes: int,
    folded: Sequence[Pair],
    crafted_on: bool,
    trainings: Sequence[Training],
    derivatives: int,
) -> Memory | None:
    """What it takes in memory as it is used; of several ways to train it, the one that takes the most for an image."""
    image_1CHW = images_BCHW[:1]

    def measured() -> dict[str, Measured]:
        found = {"predicting": predicting_memory(network, image_1CHW)}
        if crafted_on:
            found["gradient"] = gradient_memory(network, image_1CHW)
        if steps := [step_memory(classifier, images_BCHW, classes, own) for own in trainings]:
            found["training"] = max(steps, key=lambda own: own.living.per_image)
        if derivatives == 1:
            found["reasons"] = reasons_memory(network, image_1CHW, derivatives)
        return found

    try:
        with own_code("measuring its memory"):  # which puts the random states back
            network = fold(copy_of(classifier), folded).eval().requires_grad_(False)
            weights, twice = bytes_of_weights(classifier), dict[str, Measured]()
            if derivatives == 2:  # for which attention is in its plain form everywhere
                twice["reasons"] = reasons_memory(network, image_1CHW, derivatives)
            on_gpu = here = measured() | twice
            if fuses_attention(network, image_1CHW):
                with sdpa_kernel(SDPBackend.MATH):
                    on_gpu = measured() | twice
            living = _as_memory(weights, {name: own.living for name, own in on_gpu.items()})
            spread = _as_memory(weights, {name: own.spread for name, own in here.items()})
            return replace(spread, on_gpu=living)
    except InputError:  # a network may hold what cannot be copied, or watched
        return None


def _as_memory(weights: int, found: Mapping[str, PassMemory]) -> Memory:
    return Memory(weights, found["predicting"], found.get("gradient"), found.get("training"), found.get("reasons"))
