"""What `craft` is given, checked at the door: a batch of the wrong kind would be attacked, and give nonsense."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from align_core.attacks.config import AttackConfig
from align_core.errors import InputError


def check_batch(
    surrogate: nn.Module, images_BCHW: Any, labels_B: Any, image_ids: Sequence[str], attack: Any, seed: Any
) -> None:
    """Raises InputError, which says what to change, unless these are arguments of `craft` that fit each other."""
    check_images("images", images_BCHW)
    if not isinstance(attack, AttackConfig):
        raise InputError(f"attack must be an AttackConfig, not {_kind(attack)}")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise InputError(f"seed must be a whole number, not {seed!r}")
    count, side = len(images_BCHW), max(images_BCHW.shape[2:])
    _check_labels(labels_B, count, images_BCHW.device)
    _check_ids(image_ids, count)
    attack.check_kernel(side)
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


def _check_labels(labels_B: Any, count: int, device: torch.device) -> None:
    if not isinstance(labels_B, Tensor) or labels_B.dtype != torch.int64:
        found = _dtype(labels_B) if isinstance(labels_B, Tensor) else _kind(labels_B)
        raise InputError(f"labels must be a tensor of int64, the numbers of classes, not {found}")
    if tuple(labels_B.shape) != (count,):
        raise InputError(f"there are {count} images, and labels of shape {tuple(labels_B.shape)}; give each a label")
    if labels_B.device != device:
        raise InputError(f"the images are on {device} and the labels on {labels_B.device}; move one")
    if int(labels_B.min()) < 0:
        raise InputError(f"labels are numbers of classes, from 0, and one is {int(labels_B.min())}")


def _check_ids(image_ids: Any, count: int) -> None:
    if isinstance(image_ids, str) or not all(isinstance(image_id, str) for image_id in image_ids):
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
