"""One fine-tune as a job that a worker can be sent: what is trained, on which images, and the loop around the step."""

import copy
import json
import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader

from align_core.align_config import AlignConfig
from align_core.alignment import Alignment, Batches
from align_core.data import ImageSetConfig
from align_core.models import Classifier, build
from align_core.weights import to_bytes
from pipelines.compute.images import opened
from pipelines.compute.loading import LoadedNetworks, NetworkLoader, on_device, use_threads

Curve = list[dict[str, float]]
_STATE, _CURVE = "state.safetensors", "curve.json"


@dataclass(frozen=True)
class FineTune:
    """Everything a worker needs to know.

    Args:
        name: of the surrogate or model that comes out.
        start: network whose weights it starts from; None starts from random weights.
        witnesses: networks whose predictions it is to match; none of them: labels alone.
        align: the settings.
        images: the training images; `image_ids` and `labels` say which.
        seed: of sample order, augmentation, dropout and random weights.
        progress_file: in the store: where the first worker says how far it is; None where nobody asks.
    """

    name: str
    start: str | None
    witnesses: tuple[str, ...]
    align: AlignConfig
    loader: NetworkLoader
    images: ImageSetConfig
    image_size: int
    image_ids: list[str]
    labels: list[int]
    seed: int
    threads: int
    progress_file: str | None

    def batches(self, rank: int = 0, world: int = 1) -> Batches:
        """The batches of one worker."""
        image_set = opened(self.images, self.image_size)
        return Batches(image_set, self.image_ids, self.labels, self.align, self.seed, rank, world)

    def starting_network(self, networks: LoadedNetworks, device: str) -> Classifier:
        """The network to be trained, on the device: a copy of its start among `networks`."""
        if self.start is not None:
            return copy.deepcopy(networks.network(self.start))
        torch.manual_seed(self.seed)
        classifier = build(self.loader.networks[self.name].config, self.loader.classes, self.loader.channels)
        classifier.precision = self.loader.precision
        return on_device(classifier, device)


class Trainer:
    """The loop: steps, the curve, progress, and checkpoints where `checkpoint` is given.

    The caller says what a checkpoint is for: Ray Train's report, or nothing. `networks`: those that are loaded already.
    """

    def __init__(
        self,
        job: FineTune,
        device: str,
        rank: int = 0,
        world: int = 1,
        wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
        networks: LoadedNetworks | None = None,
    ) -> None:
        use_threads(job.threads)
        self.job, self.device, self.rank = job, device, rank
        self.batches = job.batches(rank, world)
        networks = networks or LoadedNetworks(job.loader, device)
        witnesses = [networks.network(name) for name in job.witnesses]
        source = job.starting_network(networks, device)
        self.alignment = Alignment(source, witnesses, job.align, len(self.batches), job.seed, wrap, rank)
        self.curve: Curve = []
        self._said = 0.0

    def run(
        self,
        checkpoint: Callable[[], None] = lambda: None,
        at: Container[int] | None = None,
        is_to_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """From wherever the state is to the last step, or to one after which `is_to_stop()`. Raises NonFiniteLoss.

        `at`: after how many steps `checkpoint` is called; None: at the end of every epoch, and every
        `checkpoint_steps` within one.
        """
        steps = range(self.alignment.step_number, len(self.batches))
        per_epoch, every = self.batches.steps_per_epoch, self.job.align.checkpoint_steps
        for step, (images_BCHW, labels_B) in zip(steps, self._loaded(steps), strict=True):
            row = self.alignment.step(images_BCHW.to(self.device), labels_B.to(self.device))
            self.curve.append({"step": step, "epoch": step // per_epoch, "timestamp": time.time(), **row})
            self._say_progress(step + 1)
            in_epoch = step % per_epoch + 1
            usual = in_epoch == per_epoch or in_epoch % every == 0
            if usual if at is None else step + 1 in at:
                checkpoint()
            if step + 1 < len(self.batches) and is_to_stop():
                return

    def _loaded(self, steps: range) -> Any:
        """Batches of the steps; images that have to be decoded are, in processes beside the training."""
        decoders = self.job.threads if self.job.images.kind in ("folder", "parquet") else 0
        return DataLoader(self.batches, batch_size=None, sampler=steps, num_workers=decoders)  # type: ignore[arg-type]

    def _say_progress(self, done: int) -> None:
        place = self.job.progress_file
        if self.rank == 0 and place and (time.monotonic() - self._said > 1 or done == len(self.batches)):
            self._said = time.monotonic()
            said = {"done": done, "total": len(self.batches), "loss": self.curve[-1]["loss"]}
            self.job.loader.store.write_json(place, said)

    def save(self, folder: Path) -> None:
        """State and curve, to go on from."""
        save_file({name: value.contiguous() for name, value in self.alignment.state().items()}, folder / _STATE)
        (folder / _CURVE).write_text(json.dumps(self.curve))

    def restore(self, folder: Path) -> None:
        """Goes on from what `save` left."""
        self.alignment.restore(load_file(folder / _STATE, device="cpu"))
        self.curve = json.loads((folder / _CURVE).read_text())

    def weights(self) -> bytes:
        """The network's weights, as a .safetensors file."""
        source = self.alignment.source
        assert isinstance(source, Classifier)
        return to_bytes(source.net.state_dict())


def train_here(job: FineTune, device: str) -> tuple[bytes, Curve]:
    """The same loop in this process, without checkpoints: for models that are trained from random weights."""
    trainer = Trainer(job, device)
    trainer.run()
    return trainer.weights(), trainer.curve


def from_checkpoint(folder: Path) -> tuple[bytes, Curve]:
    """The network's weights, as a .safetensors file, and the curve, from what `Trainer.save` left."""
    prefix = "source.net."
    state = load_file(folder / _STATE)
    weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return to_bytes(weights), json.loads((folder / _CURVE).read_text())
