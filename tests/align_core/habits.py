"""Networks for 3 x 8 x 8 images and 4 classes, each with one habit that real ones have."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

SHAPE, CLASSES = (3, 8, 8), 4
Outputs = namedtuple("Outputs", ["logits", "aux_logits"])


@dataclass
class Prediction:
    """What networks of some libraries return."""

    loss: Tensor | None
    logits: Tensor


class Plain(nn.Module):
    """A convolution with BatchNorm, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.head = nn.Linear(6, CLASSES)

    def forward(self, images_BCHW: Tensor) -> Any:
        return self.head(self.body(images_BCHW))


class Changed(nn.Module):
    """Applies a function before or after a plain network."""

    def __init__(self, before: Any = lambda x: x, after: Any = lambda x: x, in_training: bool = False) -> None:
        super().__init__()
        self.net, self.before, self.after, self.in_training = Plain(), before, after, in_training

    def forward(self, images_BCHW: Tensor) -> Any:
        logits_BK = self.net(self.before(images_BCHW))
        return logits_BK if self.in_training and not self.training else self.after(logits_BK)


class NoGrad(Plain):
    @torch.no_grad()
    def forward(self, images_BCHW: Tensor) -> Any:
        return super().forward(images_BCHW)


class Inference(Plain):
    @torch.inference_mode()
    def forward(self, images_BCHW: Tensor) -> Any:
        return super().forward(images_BCHW)


class Unused(Plain):
    """A head that forward never uses."""

    def __init__(self) -> None:
        super().__init__()
        self.other_head = nn.Linear(6, 2)


class PartlyFrozen(Plain):
    """A body that its constructor froze."""

    def __init__(self) -> None:
        super().__init__()
        self.body.requires_grad_(False)


class Tied(Plain):
    """One head under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.same_head = self.head

    def forward(self, images_BCHW: Tensor) -> Any:
        return self.same_head(self.body(images_BCHW))


class TiedLayers(Plain):
    """Two layers that share a weight, not a module, as an encoder and a decoder do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight

    def forward(self, images_BCHW: Tensor) -> Any:
        return self.head(self.second(F.relu(self.first(self.body(images_BCHW)))))


class TiedBuffer(Plain):
    """A buffer under two names, beside the parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("same_scale", self.scale)

    def forward(self, images_BCHW: Tensor) -> Any:
        return self.head(self.body(images_BCHW) * self.scale)


class Counting(Plain):
    """Keeps something that training changes in a numpy array."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = np.ones(1)

    def forward(self, images_BCHW: Tensor) -> Any:
        if self.training:
            self.scale *= 1.5
        return super().forward(images_BCHW) * float(self.scale[0])


class SmallBatch(nn.Module):
    """BatchNorm without any pixels, so that one image is too few in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.BatchNorm1d(6), nn.Linear(6, CLASSES))

    def forward(self, images_BCHW: Tensor) -> Any:
        return self.net(images_BCHW)


class WithLock(Plain):
    """Holds what cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.source = (number for number in range(3))


class ExtraState(Plain):
    """Puts into its state_dict what is not a tensor."""

    def get_extra_state(self) -> Any:
        return {"version": 1}

    def set_extra_state(self, state: Any) -> None:
        pass


def linear(norm: Any = lambda layer: layer) -> nn.Module:
    return nn.Sequential(nn.Flatten(), norm(nn.Linear(192, CLASSES)))


def wholly_frozen() -> nn.Module:
    return Plain().eval().requires_grad_(False)


def as_dict(logits_BK: Tensor) -> Any:
    return OrderedDict(logits=logits_BK, aux=logits_BK)


def as_object(logits_BK: Tensor) -> Any:
    return Prediction(None, logits_BK)


def as_outputs(logits_BK: Tensor) -> Any:
    return Outputs(logits_BK, 2 * logits_BK)


class Viewing(nn.Module):
    """Calls `view` on what a convolution returns, as LeNet does, which only the usual memory layout allows."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 6, 3, 2, 1), nn.Linear(96, CLASSES)

    def forward(self, images_BCHW: Tensor) -> Any:
        return self.head(F.relu(self.body(images_BCHW)).view(-1, 96))


class Striding(Viewing):
    """Reads the memory of a tensor as if it were laid out as usual."""

    def forward(self, images_BCHW: Tensor) -> Any:
        features_BCHW = F.relu(self.body(images_BCHW))
        return self.head(torch.as_strided(features_BCHW, (len(features_BCHW), 96), (96, 1)))


class InFrames(nn.Module):
    """A convolution over three dimensions, which has no channels-last layout of images."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv3d(3, 2, (1, 8, 8)), nn.Linear(2, CLASSES)

    def forward(self, images_BCHW: Tensor) -> Any:
        return self.head(self.body(images_BCHW[:, :, None]).flatten(1))


class BrokenInBfloat16(Plain):
    """Turns its features into a numpy array, which has no bfloat16."""

    def forward(self, images_BCHW: Tensor) -> Any:
        self.seen = self.body[0](images_BCHW).detach().numpy()
        return super().forward(images_BCHW)
