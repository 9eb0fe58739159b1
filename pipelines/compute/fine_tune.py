"""One fine-tune as a job that a worker can be sent: what is trained, on which images, and the loop around the step."""

import math
import tempfile
import time
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn

from align_core.align_config import AlignConfig
from align_core.alignment import Alignment, NonFiniteLoss
from align_core.batches import Batches
from align_core.beginnings import begin
from align_core.diverged import Taken
from align_core.early_stop import EarlyStop
from align_core.effect import Effect, Likeness
from align_core.errors import reason_of
from align_core.images import Fit, ImageSetConfig, read_images
from align_core.likeness import likeness_sample
from align_core.models import Classifier, copy_of
from align_core.numerics import set_policy
from align_core.weights import State, not_finite, to_bytes
from pipelines.compute.around import Around
from pipelines.compute.checkpoint import CURVE, STATE, Curve, DamagedCheckpoint, read_checkpoint, write_checkpoint
from pipelines.compute.early_stop import Check, Checked
from pipelines.compute.images import AsInspected, opened
from pipelines.compute.kept_images import KeptImages
from pipelines.compute.loading import LoadedNetworks, NetworkLoader, on_device
from pipelines.compute.on_node import same_everywhere, weights_on_node
from pipelines.compute.reading import TAKEN, batches_on
from pipelines.compute.tuned import Stopped, Tuned
from pipelines.failure import InputChangedError


@dataclass(frozen=True)
class FineTune:
    """Everything that a worker needs to know about one fine-tune.

    Args:
        name: of the surrogate or model that is made.
        start: the network whose weights it starts from; None for random weights, or those that its model names.
        witnesses: the networks whose predictions it is aligned to; without any, it learns from the labels alone.
        align: the settings.
        loader: loads `start` and `witnesses`.
        images: the training images; `image_ids` and `labels` say which of them are used.
        contents, originals: hashes by which they are known (`Manifest.contents`), and of what is stored of them.
        fit: how they are resized and cropped.
        seed: of sample order, augmentation, dropout and random weights.
        threads: CPU threads for torch.
        progress_file: a file in the store to which the first worker writes how far it is; None for no progress.
        unused_parameters: whether a step leaves parameters without a gradient. Data-parallel workers must know.
        checked: on what it is checked, where the settings have an early stop.
        cache: a folder of the node in which decoded images are kept; None for none.
        patience: seconds after which a process that reads images counts as stuck; 0 for no limit.
    """

    name: str
    start: str | None
    witnesses: tuple[str, ...]
    align: AlignConfig
    loader: NetworkLoader
    images: ImageSetConfig
    fit: Fit
    image_ids: list[str]
    labels: list[int]
    contents: list[str]
    originals: list[str]
    seed: int
    threads: int
    progress_file: str | None
    unused_parameters: bool = False
    checked: Checked | None = None
    cache: str | None = None
    patience: float = 0.0

    def batches(self, rank: int = 0, world: int = 1) -> Batches:
        """The batches of worker number `rank` of `world` data-parallel workers.

        They raise InputChangedError for an image that is not the one that was inspected.
        """
        contents, originals = (dict(zip(self.image_ids, own, strict=True)) for own in (self.contents, self.originals))
        channels, are_pixels = self.loader.channels, not self.images.is_by_bytes
        pixels = contents if are_pixels else None
        inspected = AsInspected("data.train", opened(self.images, self.fit, channels), pixels, originals)
        image_set: Around = inspected
        if self.cache is not None:  # around what compares images, so that none is kept that was exchanged
            image_set = KeptImages(inspected, Path(self.cache), contents, channels, are_pixels)
        return Batches(image_set, self.image_ids, self.labels, self.align, self.seed, rank, world)

    def starting_network(self, networks: LoadedNetworks, device: str) -> Classifier:
        """The network to be trained, on the device: a copy of `start`, or that which the model's training begins with.

        Raises InputChangedError where this starts from other weights than when the models were inspected.
        """
        if self.start is not None:
            return copy_of(networks.network(self.start))
        torch.manual_seed(self.seed)
        network = self.loader.networks[self.name]
        config = weights_on_node(network.config)
        classifier, begins = begin(config, self.loader.classes, self.loader.channels, self.fit.size)
        if begins != network.begins:
            raise InputChangedError(
                f"models.{self.name}: the weights that it starts from are not as they were when the models were "
                "inspected. Run again, and leave images and weights as they are while a run is at work. "
                f"{same_everywhere()}"
            )
        classifier.precision = self.loader.precision
        return on_device(classifier, device, network.channels_last)


class Trainer:
    """The loop of one worker: steps, curve, progress, and checkpoints.

    Args:
        job: the fine-tune.
        device: of the network and its batches.
        rank, world: number of this worker, and of all data-parallel workers.
        wrap: makes the source data-parallel.
        networks: those that this process has loaded already.
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
        set_policy(job.threads, job.loader.precision)
        self.job, self.device, self.rank, self.world = job, device, rank, world
        self.batches = job.batches(rank, world)
        networks = networks or LoadedNetworks(job.loader, device)
        witnesses = [networks.network(name) for name in job.witnesses]
        source = job.starting_network(networks, device)
        self.alignment = Alignment(
            source,
            witnesses,
            job.align,
            len(self.batches),
            job.seed,
            wrap,
            rank,
            self.batches.steps_per_epoch,
            (job.loader.channels, job.fit.size, job.fit.size),
        )
        self.curve: Curve = []
        self._taken: list[tuple[float, Taken]] = []  # steps, with their times, whose values have still to be fetched
        self._most_taken = TAKEN if torch.device(device).type == "cuda" else 1
        self.said: list[str] = []
        self.likeness_before: Likeness | None = None
        self.early_stop: EarlyStop | None = None
        if job.align.early_stop is not None and job.checked is not None:
            self.early_stop = EarlyStop(job.align.early_stop, self.batches.steps_per_epoch, len(self.batches))
            self._check = Check(job.checked, job.witnesses, networks, device)
        self._progress_written = 0.0

    def run(
        self,
        checkpoint: Callable[[], None] = lambda: None,
        at: Container[int] | None = None,
        is_to_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Trains from the present state to the last step, or to where an early stop or `is_to_stop()` ends it.

        Args:
            checkpoint: called after the steps in `at`; None stands for the end of every epoch, and every
                `align.checkpoint_steps` within one.

        Raises NonFiniteLoss, also where the weights that the last step led to are not finite, and InputError for an
        image that is unreadable or is not the one that was inspected.
        """
        is_over = self.early_stop is not None and self.early_stop.is_over
        steps = range(self.alignment.step_number, self.alignment.step_number if is_over else len(self.batches))
        for step, (images_BCHW, labels_B) in zip(steps, self._loaded(steps), strict=True):
            self._take(images_BCHW, labels_B)
            checks = self.early_stop is not None and self.early_stop.is_due(step + 1)
            saves = self._is_checkpoint(step + 1) if at is None else step + 1 in at
            if checks or saves or len(self._taken) == self._most_taken:
                self._settle()
            if checks:
                self._take_check(step + 1)
            if saves:
                checkpoint()
            if self.early_stop is not None and self.early_stop.is_over:
                break
            if step + 1 < len(self.batches) and is_to_stop():
                self._settle()
                return
        self._settle()
        source = self.alignment.source
        parameters = {name for name, _ in source.named_parameters(remove_duplicate=False)}
        if bad := not_finite(source.state_dict(), parameters):
            raise NonFiniteLoss(f"after the last step the weights are not finite ({bad[0]}): lower align.optimizer.lr")

    def _is_checkpoint(self, done: int) -> bool:
        """Whether a checkpoint is usual after so many steps: at the end of an epoch, and at times within one."""
        in_epoch = (done - 1) % self.batches.steps_per_epoch + 1
        return in_epoch == self.batches.steps_per_epoch or in_epoch % self.job.align.checkpoint_steps == 0

    def _take(self, images_BCHW: Tensor, labels_B: Tensor) -> None:
        """Takes a step, whose values are fetched by `_settle`."""
        try:
            self._taken.append((time.time(), self.alignment.take(images_BCHW, labels_B)))
        except Exception:
            self._settle()  # weights that are not finite since an earlier step may have been the cause
            raise

    def _settle(self) -> None:
        """Fetches the values of the steps since the last call, adds them to the curve, and writes the progress."""
        taken, self._taken = self._taken, []
        if not taken:
            return
        try:
            rows = self.alignment.settled([own for _, own in taken])
        except NonFiniteLoss as problem:
            raise self._with_names(problem) from None
        for (when, own), row in zip(taken, rows, strict=True):
            epoch = own.number // self.batches.steps_per_epoch
            self.curve.append({"step": own.number, "epoch": epoch, "timestamp": when, **row})
        self._write_progress(taken[-1][1].number + 1)

    def _take_check(self, step: int) -> None:
        """Checks the network that would be kept now. The first worker measures, and tells the others what it found."""
        early_stop = self.early_stop
        assert early_stop is not None
        kept, value, problem = dict[str, Tensor](), math.nan, ""
        if self.rank == 0:
            folded = self.job.loader.networks[self.job.start or self.job.name].folded
            (kept,) = self.alignment.networks(self._images)
            try:
                source = cast(Classifier, self.alignment.source)
                value = self._check(source, kept, folded)
            except FloatingPointError as found:  # told to the others, which would wait for this worker for ever
                problem = f" ({found})"
        if self.world > 1:
            value_1 = torch.tensor([value], dtype=torch.float64, device=self.device)
            torch.distributed.broadcast(value_1, 0)
            value = value_1.item()
        if math.isnan(value):
            raise NonFiniteLoss(f"the check after step {step} found values that are not finite{problem}")
        early_stop.note(step, value, kept)

    def look(self) -> None:
        """Takes note of how like its witnesses the network is, before the first step.

        The first worker alone does, and the others wait for it at their first step.
        """
        if self.rank == 0 and self.job.witnesses and self.alignment.step_number == 0:
            self.likeness_before = self.alignment.likeness(self._sample)

    def _sample(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Some training images as they are, the same for every fine-tune, in batches of about the size of a step's."""
        positions = likeness_sample(len(self.job.image_ids))
        rows = max(1, self.batches.batch_size // self.world)
        for chosen in np.array_split(positions, -(-len(positions) // rows)):
            pixels = read_images(self.batches.images, [self.job.image_ids[position] for position in chosen])
            images_BCHW = torch.from_numpy(pixels).to(self.device).to(torch.float32) / 255
            yield images_BCHW, torch.tensor([self.job.labels[position] for position in chosen], device=self.device)

    def _with_names(self, problem: NonFiniteLoss) -> NonFiniteLoss:
        """The same with the names of the witness and the images, where these were the cause."""
        if problem.witness is None or problem.step is None:
            return problem
        ids = self.batches.ids_of(problem.step)
        named = ", ".join(ids[row] for row in problem.rows[:5])
        more = f" and {len(problem.rows) - 5} more" if len(problem.rows) > 5 else ""
        reason = f"the logits of the witness {self.job.witnesses[problem.witness]} are not finite for {named}{more}"
        return NonFiniteLoss(f"{reason} (step {problem.step})", problem.witness, problem.rows, problem.step)

    def _loaded(self, steps: range) -> Iterator[tuple[Tensor, Tensor]]:
        job = self.job
        return batches_on(self.device, self.batches, steps, job.threads, job.images.is_encoded, job.patience)

    def _write_progress(self, done: int) -> None:
        """At most once a second, and after the last step."""
        path, total = self.job.progress_file, len(self.batches)
        if self.rank == 0 and path and (time.monotonic() - self._progress_written > 1 or done == total):
            self._progress_written = time.monotonic()
            progress = {"done": done, "total": total, "loss": self.curve[-1]["loss"], "said": self.said}
            self.job.loader.store.write_json(path, progress)

    def save(self, folder: Path) -> None:
        """Writes a checkpoint: the state, and the curve up to it."""
        state = self.alignment.state()
        if (before := self.likeness_before) is not None:
            state[_BEFORE] = torch.tensor([before.loss, before.agreement], dtype=torch.float64)
        if self.early_stop is not None:
            state |= {f"{_EARLY_STOP}{name}": value for name, value in self.early_stop.state().items()}
        write_checkpoint(folder, state, self.curve)

    def restore(self, folder: Path) -> None:
        """Resumes from a checkpoint that `save` wrote. Raises DamagedCheckpoint where it is not what was written."""
        state, curve = read_checkpoint(folder)
        before = state.pop(_BEFORE, None)
        try:
            self.alignment.restore(state)
            if self.early_stop is not None:
                own = {name: value for name, value in state.items() if name.startswith(_EARLY_STOP)}
                self.early_stop.restore({name.removeprefix(_EARLY_STOP): value for name, value in own.items()})
        except (KeyError, RuntimeError) as problem:
            raise DamagedCheckpoint(f"is not of this network: {problem}") from problem
        self.curve = curve
        self.likeness_before = None if before is None else Likeness(*before.tolist())

    def say(self, line: str) -> None:
        """Leaves a line for the user beside the progress, where the run finds it."""
        self.said.append(line)
        if self.rank == 0 and (path := self.job.progress_file):
            progress = {"done": self.alignment.step_number, "total": len(self.batches), "said": self.said}
            self.job.loader.store.write_json(path, progress)

    def networks(self) -> list[State]:
        """The weights of every network that would be kept if the training ended here, by name. They may be in use."""
        return self.alignment.networks(self._images)

    def result(self) -> Tuned:
        """What it ends with. Of several workers, the first alone may be asked."""
        stopped, early_stop = None, self.early_stop
        if early_stop is not None:
            networks, steps = [early_stop.kept], self.alignment.step_number
            stopped = Stopped(early_stop.config.by, early_stop.checks, steps, len(self.batches))
        else:
            networks = self.networks()
        effect, before = None, self.likeness_before
        if before is not None and (after := self.alignment.likeness(self._sample, networks)) is not None:
            effect = Effect(len(likeness_sample(len(self.job.image_ids))), before, after)
        return Tuned([to_bytes(_of_net(state)) for state in networks], self.curve, effect, stopped)

    def _images(self) -> Iterator[Tensor]:
        """The images of the last epoch, in at most so many batches, from which BatchNorm statistics are taken anew."""
        last = len(self.batches)
        steps = range(max(0, last - min(self.batches.steps_per_epoch, _MOST_BATCHES)), last)
        for images_BCHW, _ in self._loaded(steps):
            yield images_BCHW


_MOST_BATCHES = 100
_BEFORE = "likeness_before"
_EARLY_STOP = "early_stop."


def fine_tune_alone(job: FineTune, device: str, checkpoints: str) -> Tuned:
    """A fine-tune by one worker, in this process.

    Args:
        checkpoints: a folder in the store. The fine-tune resumes from the checkpoint there, bit for bit on a CPU, and
            writes another at the end of every epoch and every `align.checkpoint_steps` steps within one.

    Raises NonFiniteLoss.
    """
    store = job.loader.store
    trainer = _resumed(job, device, checkpoints) or Trainer(job, device)

    def checkpoint() -> None:
        with tempfile.TemporaryDirectory() as folder:
            trainer.save(Path(folder))
            for name in (CURVE, STATE):  # in this order, so that no state is without its curve
                store.write(f"{checkpoints}/{name}", (Path(folder) / name).read_bytes())

    trainer.look()
    trainer.run(checkpoint)
    return trainer.result()


def _resumed(job: FineTune, device: str, checkpoints: str) -> Trainer | None:
    """A trainer with the state of the checkpoint, where there is one.

    A damaged one is left alone, and the user is told: starting again takes time, and leads to the same weights.
    """
    store = job.loader.store
    if not store.exists(f"{checkpoints}/{STATE}"):
        return None
    trainer = Trainer(job, device)
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name in (CURVE, STATE):
                (Path(folder) / name).write_bytes(store.read(f"{checkpoints}/{name}"))
            trainer.restore(Path(folder))
        except (FileNotFoundError, DamagedCheckpoint) as problem:
            trainer = Trainer(job, device)
            trainer.say(f"{job.name}: its checkpoint {reason_of(problem)}; it starts again from the first step")
    return trainer


def _of_net(state: State) -> State:
    """The weights of a network without the Classifier around it."""
    prefix = "net."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
