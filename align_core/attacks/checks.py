"""What `craft` is given, checked at the door: a batch of the wrong kind would be attacked, and give nonsense."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from align_core.attacks.config import AttackConfig
from align_core.attacks.foreign_config import ForeignConfig
from align_core.errors import InputError


def check_batch(
    surrogate: nn.Module,
    images_BCHW: Any,
    labels_B: Any,
    image_ids: Sequence[str],
    attack: Any,
    seed: Any,
    wanted_B: Any = None,
    others: Any = None,
) -> None:
    """Raises InputError, which says what to change, unless these are arguments of `craft` that fit each other."""
    check_images("images", images_BCHW)
    if not isinstance(attack, AttackConfig | ForeignConfig):
        raise InputError(f"attack must be an AttackConfig or a ForeignConfig, not {_kind(attack)}")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise InputError(f"seed must be a whole number, not {seed!r}")
    count = len(images_BCHW)
    _check_labels("labels", labels_B, count, images_BCHW.device)
    _check_ids(image_ids, count)
    _check_wanted(attack, labels_B, wanted_B)
    _check_others(attack, others, images_BCHW)
    devices = {str(parameter.device) for parameter in surrogate.parameters()}
    if len(devices) == 1 and devices != {str(images_BCHW.device)}:
        raise InputError(f"the images are on {images_BCHW.device} and the surrogate on {devices.pop()}; move one")


def check_images(name: str, images_BCHW: Any) -> None:
    """Raises InputError, which begins with `name`, unless these are 8-bit images [B, C, H, W], at least one."""
    if not isinstance(images_BCHW, Tensor):
        raise InputError(f"{name} must be a tensor of uint8 [B, C, H, W], not {_kind(images_BCHW)}")
    if images_BCHW.dtype != torch.uint8:
        mend = ": (pixels * 255).round().to(torch.uint8) makes them of pixels in [0, 1]"
        raise InputError(
            f"{name} must be uint8, from 0 to 255, not {_dtype(images_BCHW)}"
            f"{mend if images_BCHW.is_floating_point() else ''}"
        )
    shape = tuple(images_BCHW.shape)
    if len(shape) != 4 or not images_BCHW.numel():
        raise InputError(f"{name} must be a batch [B, C, H, W] of at least one image, not of shape {shape}")
    if shape[1] not in (1, 3) and shape[3] in (1, 3):
        raise InputError(f"{name} of shape {shape} have their channels last; permute(0, 3, 1, 2) puts them second")


def check_logits(logits: Any, count: int, largest_label: int) -> None:
    """Raises InputError unless a surrogate returned logits [count, K] with K above the largest label."""
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != count:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else _kind(logits)
        raise InputError(f"the surrogate must return logits [{count}, K] for {count} images, not {found}")
    if largest_label >= logits.shape[1]:
        raise InputError(
            f"labels must lie below the {logits.shape[1]} classes of the surrogate's logits, and one is {largest_label}"
        )


def _check_labels(name: str, labels_B: Any, count: int, device: torch.device) -> None:
    if not isinstance(labels_B, Tensor) or labels_B.dtype != torch.int64:
        found = _dtype(labels_B) if isinstance(labels_B, Tensor) else _kind(labels_B)
        raise InputError(f"{name} must be a tensor of int64, the numbers of classes, not {found}")
    if tuple(labels_B.shape) != (count,):
        raise InputError(f"there are {count} images, and {name} of shape {tuple(labels_B.shape)}; give each a label")
    if labels_B.device != device:
        raise InputError(f"the images are on {device} and the {name} on {labels_B.device}; move one")
    if int(labels_B.min()) < 0:
        raise InputError(f"{name} are numbers of classes, from 0, and one is {int(labels_B.min())}")


def _check_wanted(attack: AttackConfig | ForeignConfig, labels_B: Tensor, wanted_B: Any) -> None:
    """A targeted attack is told the class to lead each image to, which is not its label; another is told none."""
    if not attack.is_targeted:
        if wanted_B is not None:
            raise InputError("the attack leads away from the labels, and is given classes to lead to; set towards")
        return
    if wanted_B is None:
        raise InputError(f"the attack leads towards a class (towards: {attack.towards}); give wanted_B")
    _check_labels("classes to lead to", wanted_B, len(labels_B), labels_B.device)
    if same := int((wanted_B == labels_B).sum()):
        raise InputError(f"{same} images would be led to their own label; give each another class")


def _check_others(attack: AttackConfig | ForeignConfig, others: Any, images_BCHW: Tensor) -> None:
    if not attack.needs_others:
        return
    if others is None:
        raise InputError(f"{attack.method} mixes in other images of the image set; give others=Others(images, labels)")
    check_images("the images to mix in", others.images_PCHW)
    if others.images_PCHW.shape[1:] != images_BCHW.shape[1:]:
        shapes = tuple(others.images_PCHW.shape[1:]), tuple(images_BCHW.shape[1:])
        raise InputError(f"the images to mix in are of shape {shapes[0]}, and the images of {shapes[1]}")
    _check_labels("labels of the images to mix in", others.labels_P, len(others.images_PCHW), images_BCHW.device)


def _check_ids(image_ids: Any, count: int) -> None:
    # A list, a tuple or an array: a generator or a set has no order that lasts.
    is_list = hasattr(image_ids, "__len__") and hasattr(image_ids, "__getitem__") and not isinstance(image_ids, str)
    if not is_list or not all(isinstance(image_id, str) for image_id in image_ids):
        raise InputError("image_ids must be a list of texts, one for each image")
    if len(image_ids) != count:
        raise InputError(f"there are {count} images and {len(image_ids)} ids; give an id for each")
    (most, times), *_ = Counter(image_ids).most_common(1)
    if times > 1:
        raise InputError(f"image_ids: {most!r} is given {times} times; images of one id would get the same noise")


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
