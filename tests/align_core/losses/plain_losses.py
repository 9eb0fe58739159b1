"""The alignment losses once more, as loops over numbers in float64, written from the papers' formulas and code.

s holds what the source makes of the images, w what the witness does, a row for each image.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from align_core.losses.known import read_loss
from align_core.losses.seen import Seen, load_loss

Array = npt.NDArray[np.float64]


def softmax(row: Array) -> Array:
    raised = [math.exp(value - max(row)) for value in row]
    return np.array(raised) / sum(raised)


def kl(s: Array, w: Array, temperature: float) -> float:
    total = 0.0
    for own, other in zip(s, w, strict=True):
        p, q = softmax(other / temperature), softmax(own / temperature)
        total += sum(p[c] * (math.log(p[c]) - math.log(q[c])) for c in range(len(p)))
    return temperature**2 * total / len(s)


def symkl(s: Array, w: Array, temperature: float) -> float:
    return kl(s, w, temperature) + kl(w, s, temperature)


def mse(s: Array, w: Array) -> float:
    return sum((s[i, c] - w[i, c]) ** 2 for i in range(s.shape[0]) for c in range(s.shape[1])) / s.size


def l1(s: Array, w: Array) -> float:
    return sum(abs(s[i, c] - w[i, c]) for i in range(s.shape[0]) for c in range(s.shape[1])) / s.size


def hint(s: Array, w: Array) -> float:
    return sum(sum((s[i] - w[i]) ** 2) / s.shape[1] for i in range(len(s))) / len(s)


def pkt(s: Array, w: Array) -> float:
    def picked(features: Array, i: int, j: int) -> float:
        return _cosine_shifted(features, i, j) / sum(_cosine_shifted(features, i, k) for k in range(len(features)))

    total = 0.0
    for i in range(len(s)):
        for j in range(len(s)):
            p, q = picked(w, i, j), picked(s, i, j)
            total += p * math.log((p + 1e-7) / (q + 1e-7))
    return total / len(s) ** 2


def _cosine_shifted(features: Array, i: int, j: int) -> float:
    lengths = math.sqrt(sum(features[i] ** 2)) * math.sqrt(sum(features[j] ** 2))
    return (sum(features[i] * features[j]) / lengths + 1) / 2


def rkd(s: Array, w: Array, distance: float, angle: float) -> float:
    count, distances, angles = len(s), 0.0, 0.0
    for i in range(count):
        for j in range(count):
            distances += _huber(_relative_distance(s, i, j) - _relative_distance(w, i, j))
            for k in range(count):
                angles += _huber(_angle(s, i, j, k) - _angle(w, i, j, k))
    return distance * distances / count**2 + angle * angles / count**3


def _relative_distance(features: Array, i: int, j: int) -> float:
    apart = [math.dist(features[a], features[b]) for a in range(len(features)) for b in range(len(features)) if a != b]
    return math.dist(features[i], features[j]) / (sum(apart) / len(apart))


def _angle(features: Array, i: int, j: int, k: int) -> float:
    """The cosine of the angle at image i between the directions to j and to k."""
    if i in (j, k):
        return 0.0
    to_j, to_k = features[j] - features[i], features[k] - features[i]
    return float(sum(to_j * to_k)) / (math.sqrt(sum(to_j**2)) * math.sqrt(sum(to_k**2)))


def _huber(x: float) -> float:
    return x * x / 2 if abs(x) < 1 else abs(x) - 0.5


def nce(s: Array, w: Array, labels: list[int], sharpness: float) -> float:
    total = 0.0
    for i in range(len(s)):
        cosines = [
            sum(s[i] * w[j]) / (math.sqrt(sum(s[i] ** 2)) * math.sqrt(sum(w[j] ** 2))) / sharpness
            for j in range(len(w))
        ]
        picked = softmax(np.array(cosines))
        same = [-math.log(picked[j] + 1e-10) for j in range(len(w)) if labels[j] == labels[i]]
        other = [-math.log(1 - picked[j] + 1e-10) for j in range(len(w)) if labels[j] != labels[i]]
        total += sum(same) / len(same) + (sum(other) / len(other) if other else 0.0)
    return total / len(s)


def ega(s: Array, w: Array, node: float, edge: float) -> float:
    nodes = edges = 0.0
    for i in range(len(s)):
        for j in range(len(s)):
            nodes += (np.corrcoef(s[i], w[j])[0, 1] - (i == j)) ** 2
            edges += (np.corrcoef(w[i], w[j])[0, 1] - np.corrcoef(s[i], s[j])[0, 1]) ** 2
    return node * math.sqrt(nodes) + edge * math.sqrt(edges)


def local(s: Array, w: Array) -> float:
    """Of logits [B, K, H, W] of one size, with soft predictions of the witness."""
    images, _, height, width = s.shape
    total = 0.0
    for i in range(images):
        for y in range(height):
            for x in range(width):
                p, q = softmax(w[i, :, y, x]), softmax(s[i, :, y, x])
                total += -sum(p[c] * math.log(q[c]) for c in range(len(p)))
    return total / (images * height * width)


def seen(values: Tensor, kind: str, labels_B: Tensor | None = None) -> Seen:
    """What a network makes of images, where `kind` names what the values are; all else is without meaning."""
    if kind == "logits":
        return Seen(values, labels_B=labels_B)
    nothing = torch.zeros(len(values), 2)
    if kind == "features":
        return Seen(nothing, features_BD=values, labels_B=labels_B)
    return Seen(nothing, places_BKHW=values, labels_B=labels_B)


def loss_of(name: str, temperature: float = 1.0, **settings: float) -> Callable[[Seen, Seen], Tensor]:
    """The loss as an alignment uses it."""
    return load_loss(read_loss({"name": name, **settings}), temperature)


def normal(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape) * scale).float()


def slope(function: Callable[[Array], float], at: Tensor, step: float = 1e-5) -> Array:
    """The gradient of a function of an array, by central differences in float64."""
    point = at.double().numpy()
    found = np.zeros_like(point)
    for place in np.ndindex(*point.shape):
        moved = np.zeros_like(point)
        moved[place] = step
        found[place] = (function(point + moved) - function(point - moved)) / (2 * step)
    return found


def numbers(values: Tensor) -> Array:
    return values.detach().double().numpy()
