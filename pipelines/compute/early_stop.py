"""What an early stop measures on validation images: agreement with the witnesses, or the transfer rate of an attack."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from align_core.attacks import AttackConfig, ForeignConfig, craft
from align_core.errors import InputError
from align_core.finite import check_finite
from align_core.folding import fold
from align_core.images import Fit, ImageSetConfig
from align_core.images.decoding import Pixels
from align_core.models import Classifier, copy_of
from align_core.weights import State
from pipelines.compute.images import opened, read_as_inspected
from pipelines.compute.loading import LoadedNetworks
from pipelines.compute.others import Pool


@dataclass(frozen=True)
class Checked:
    """On what a fine-tune with an early stop is checked.

    Args:
        images, fit, channels: the validation images, and what is made of them.
        image_ids, labels, contents: of those that are used, with a hash by which each is known (`Manifest.contents`).
        rows: images in a batch.
        attack: what is crafted, where it stops by gain, and what follows is for this alone.
        source, targets: the original source, and the validation targets.
        seed, pass_rows, pool: as attacks on test images have them; the pool is of validation images.
    """

    images: ImageSetConfig
    fit: Fit
    channels: int
    image_ids: list[str]
    labels: list[int]
    contents: list[str]
    rows: int
    attack: AttackConfig | ForeignConfig | None = None
    source: str = ""
    targets: tuple[str, ...] = ()
    seed: int = 0
    pass_rows: int | None = None
    pool: Pool | None = None


class Check:
    """Measures a network in training, of which nothing changes by it.

    Args:
        setup: on what.
        witnesses: the networks that predictions are to agree with.
        networks: those that this process has loaded; device: where they are.
    """

    def __init__(self, setup: Checked, witnesses: Sequence[str], networks: LoadedNetworks, device: str) -> None:
        self.setup, self.witnesses, self.networks, self.device = setup, witnesses, networks, device
        self._known: dict[str, Tensor] = {}  # what networks that do not change predict
        self._read: Pixels | None = None

    def __call__(self, network: Classifier, state: State, folded: Sequence[tuple[str, str]] = ()) -> float:
        """The value for a network with these weights, in percent.

        Args:
            folded: BatchNorms that are folded where it is crafted on.

        Raises FloatingPointError where logits or gradients are not finite, and InputError where no image counts, or one
        is not as it was inspected.
        """
        twin = copy_of(network)
        twin.load_state_dict(state)
        twin.eval().requires_grad_(False)
        if self.setup.attack is not None:
            return self._rate(fold(twin, folded) if folded else twin, self.setup.attack)
        own_N = self._predictions(twin, "the surrogate")
        same = [(own_N == self._of(name)).double().mean() for name in self.witnesses]
        return 100 * float(torch.stack(same).mean())

    def _rate(self, surrogate: nn.Module, attack: AttackConfig | ForeignConfig) -> float:
        """The transfer rate, the mean over targets: of images that source and target get right, those that it fools."""
        setup, labels_N = self.setup, torch.tensor(self.setup.labels)
        others = setup.pool.read(self.device) if setup.pool is not None and attack.needs_others else None
        source_right_N = self._of(setup.source) == labels_N
        fooled: dict[str, list[Tensor]] = {target: [] for target in setup.targets}
        for ids, rows, images_BCHW in self._batches():
            labels_B = labels_N[rows].to(self.device)
            crafted_BCHW = craft(
                surrogate, images_BCHW, labels_B, ids, attack, setup.seed, others=others, pass_rows=setup.pass_rows
            )
            for target, found in fooled.items():
                predicted_B = _classes(self.networks.mean_of([target]), crafted_BCHW, ids, target)
                found.append(predicted_B != labels_N[rows])
        rates = []
        for target, found in fooled.items():
            counts_N = source_right_N & (self._of(target) == labels_N)
            if counts_N.any():
                rates.append(100 * float(torch.cat(found)[counts_N].double().mean()))
        if not rates:
            raise InputError(
                "align.early_stop: by gain, no validation image is classified correctly by both the source and a "
                "validation target; give more images, or stop by agreement"
            )
        return float(np.mean(rates))

    def _of(self, name: str) -> Tensor:
        """The classes that a network which does not change predicts, [N]."""
        if name not in self._known:
            is_trained = name in self.witnesses  # these are there already, as they are
            network = self.networks.network(name) if is_trained else self.networks.mean_of([name])
            self._known[name] = self._predictions(network, name)
        return self._known[name]

    def _predictions(self, network: nn.Module, whose: str) -> Tensor:
        return torch.cat([_classes(network, images_BCHW, ids, whose) for ids, _, images_BCHW in self._batches()])

    def _batches(self) -> Iterator[tuple[list[str], slice, Tensor]]:
        """Ids, rows and uint8 pixels on the device. Images are read once."""
        setup = self.setup
        if self._read is None:
            image_set = opened(setup.images, setup.fit, setup.channels)
            by_bytes = setup.images.is_by_bytes
            self._read = read_as_inspected("data.validation", image_set, setup.image_ids, setup.contents, by_bytes)
        for start in range(0, len(setup.image_ids), setup.rows):
            rows = slice(start, start + setup.rows)
            yield setup.image_ids[rows], rows, torch.from_numpy(self._read[rows]).to(self.device)


def _classes(network: nn.Module, images_BCHW: Tensor, ids: Sequence[str], whose: str) -> Tensor:
    """The classes predicted, on the CPU."""
    with torch.no_grad():
        logits_BK: Tensor = network(images_BCHW.to(torch.float32) / 255, ids)
    check_finite(logits_BK, ids, whose)
    return logits_BK.argmax(dim=1).cpu()
