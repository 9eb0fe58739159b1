"""Alignment of a source to its witnesses: training steps, batches, and a state that can be saved and restored.

The training loop belongs to the caller, so that the same steps run on Ray (`pipelines.compute.fine_tune`) and in
three lines of your own:

    alignment = Alignment(source, witnesses, align, total_steps=len(batches), seed=0)
    for step in range(alignment.step_number, len(batches)):
        alignment.step(*batches[step])
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from align_core.align_config import AlignConfig, OptimizerConfig
from align_core.augmentation import augmented
from align_core.errors import InputError
from align_core.images import ImageSet
from align_core.losses import load_loss
from align_core.losses.over_witnesses import mean_over_witnesses
from align_core.models import Classifier
from align_core.weights import State


class NonFiniteLoss(FloatingPointError):
    """The loss or its gradient is infinite or NaN: the training has diverged, and its weights must not be used.

    Attributes:
        reason: what happened, as a sentence without names.
        witness: number of the witness whose logits were not finite, if that was the cause; None otherwise.
        rows: positions in the batch of the images on which they were not.
    """

    def __init__(self, reason: str, witness: int | None = None, rows: Sequence[int] = ()) -> None:
        super().__init__(reason)
        self.reason, self.witness, self.rows = reason, witness, tuple(rows)

    def __reduce__(self) -> tuple[type["NonFiniteLoss"], tuple[str, int | None, tuple[int, ...]]]:
        return type(self), (self.reason, self.witness, self.rows)  # an exception is otherwise rebuilt from its message


class Batches:
    """The batches of a training run as a sequence: `batches[step]` is the batch of that step.

    A batch depends on the seed, the step and the images alone, and not on earlier batches, so that a resumed run goes
    on with exactly the batches that an unbroken one would meet. Every epoch has an order of its own, and leaves out the
    images that do not fill a batch. A set smaller than a batch makes one batch.

    Args:
        images: the image set; images are read by id when a batch needs them.
        image_ids: ids of the training images.
        labels: their labels, in the same order.
        align: the settings: batch size, epochs and augmentation.
        seed: decides order and augmentation.
        rank, world: number of this data-parallel worker, and of all of them. The worker takes every `world`-th image
            of a batch, beginning with the `rank`-th.

    Raises InputError where there are fewer images than workers, or the arguments do not fit each other.
    """

    def __init__(
        self,
        images: ImageSet,
        image_ids: Sequence[str],
        labels: Sequence[int],
        align: AlignConfig,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if isinstance(image_ids, str) or len(image_ids) != len(labels):
            raise InputError(f"{len(image_ids)} image ids and {len(labels)} labels: give a label for each id, in lists")
        if not 0 <= rank < world:
            raise InputError(f"rank {rank} is none of {world} workers, which are counted from 0")
        self.images, self.image_ids, self.labels = images, image_ids, torch.as_tensor(np.asarray(labels))
        self.align, self.seed, self.rank, self.world = align, seed, rank, world
        if len(image_ids) < world:
            raise InputError(f"{len(image_ids)} training images are too few for {world} workers")
        self.batch_size = min(align.batch_size, len(image_ids) // world * world)
        self.steps_per_epoch = len(image_ids) // self.batch_size

    def __len__(self) -> int:
        return self.steps_per_epoch * self.align.epochs

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of one step: augmented float pixels [B, C, H, W] in [0, 1], and int64 labels [B]."""
        if not 0 <= step < len(self):
            raise IndexError(step)
        epoch, chosen = step // self.steps_per_epoch, self._positions(step)
        ids = [self.image_ids[position] for position in chosen]
        images_BCHW = augmented(self.images, ids, self.align.augment, self.seed, epoch)
        return images_BCHW, self.labels[torch.from_numpy(chosen)]

    def ids_of(self, step: int) -> list[str]:
        """The ids of the images in the batch of one step, in order."""
        return [self.image_ids[position] for position in self._positions(step)]

    def _positions(self, step: int) -> npt.NDArray[np.int64]:
        epoch, number = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.image_ids))
        return order[number * self.batch_size : (number + 1) * self.batch_size][self.rank :: self.world]


class Alignment:
    """Aligns a source to frozen witnesses. Each call of `step` is one update of the source's weights.

    Args:
        source: maps pixels to logits. It is trained in place, in train mode: all of it, but for the parameters that a
            Classifier names as `frozen`.
        witnesses: map pixels to logits. They are put into eval mode and frozen. Without any, the source is fine-tuned
            on labels alone.
        align: the settings. `weight` has no effect where there is no witness.
        total_steps: number of steps until the learning rate reaches 0.
        seed: seed of dropout and other random layers.
        wrap: makes the source data-parallel, such as DistributedDataParallel.
        rank: number of this data-parallel worker.

    Raises ValueError where there is no witness and `label_weight` is 0, so that nothing could be learnt, and for
    arguments of another kind.
    """

    def __init__(
        self,
        source: nn.Module,
        witnesses: Sequence[nn.Module],
        align: AlignConfig,
        total_steps: int,
        seed: int,
        wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
        rank: int = 0,
    ) -> None:
        if isinstance(witnesses, nn.Module):  # of an nn.Sequential, the layers would pass for witnesses
            raise ValueError("witnesses must be a list of modules: write [witness]")
        if total_steps < 1:
            raise ValueError(f"total_steps must be at least 1, not {total_steps}")
        if not witnesses and not align.label_weight:
            raise ValueError("there is nothing to learn from: no witness, and label_weight is 0")
        own = set(map(id, source.parameters()))
        if any(id(parameter) in own for witness in witnesses for parameter in witness.parameters()):
            raise ValueError("a witness shares parameters with the source, and would change with it: give it a copy")
        self.source, self.align, self.total_steps = source, align, total_steps
        self.seed, self.rank, self.step_number = seed, rank, 0
        self.witnesses = [witness.eval().requires_grad_(False) for witness in witnesses]
        source.train()
        frozen = source.frozen if isinstance(source, Classifier) else ()
        for name, parameter in source.named_parameters():
            parameter.requires_grad_(name not in frozen)
        if align.batchnorm == "frozen":
            _freeze_batchnorm(source)
        self._parameters = [parameter for parameter in source.parameters() if parameter.requires_grad]
        self.optimizer = _optimizer(self._parameters, align.optimizer)
        self._parallel = wrap(source)
        self._loss = load_loss(align.loss)

    @property
    def lr(self) -> float:
        """Learning rate of the next step, on a cosine from the configured rate to 0."""
        return self.align.optimizer.lr * 0.5 * (1 + math.cos(math.pi * self.step_number / self.total_steps))

    def step(self, images_BCHW: Tensor, labels_B: Tensor) -> dict[str, float]:
        """Takes one training step on pixels [B, C, H, W] in [0, 1] and labels [B].

        It sets torch's global seed from (seed, step, rank), so that dropout is the same in a resumed run. Returns the
        step's `lr`, `loss`, `alignment_loss`, `label_loss` and `grad_norm` (before clipping). Raises NonFiniteLoss
        before the weights are changed, and ValueError for images or labels of another kind.
        """
        if not images_BCHW.is_floating_point() or labels_B.shape != images_BCHW.shape[:1]:
            raise ValueError(
                f"a step takes float pixels [B, C, H, W] in [0, 1] and labels [B], not {images_BCHW.dtype} "
                f"{tuple(images_BCHW.shape)} and labels {tuple(labels_B.shape)}"
            )
        if self.step_number >= self.total_steps:
            raise ValueError(f"all {self.total_steps} steps are taken: the learning rate would rise again")
        if len(labels_B) and int(labels_B.min()) < 0:  # of which cross_entropy leaves out those of -100
            raise ValueError(f"labels are numbers of classes, from 0, and one is {int(labels_B.min())}")
        # Resizing may leave the range a little; 8-bit or normalised images leave it far.
        if self.step_number == 0 and not -0.5 <= float(images_BCHW.min()) <= float(images_BCHW.max()) <= 1.5:
            raise ValueError("pixels must lie in [0, 1]: divide 8-bit images by 255")
        torch.manual_seed(hash((self.seed, self.step_number, self.rank)) % (1 << 63))
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        lr = self.lr
        align = self.align
        with torch.no_grad():
            witness_logits = [witness(images_BCHW) for witness in self.witnesses]
        logits_BK = self._parallel(images_BCHW)
        alignment_loss = mean_over_witnesses(self._loss, logits_BK, witness_logits, align.temperature)
        label_loss = F.cross_entropy(logits_BK, labels_B)
        loss = align.weight * alignment_loss
        if align.label_weight:
            loss = loss + align.label_weight * label_loss
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        grad_norm = nn.utils.clip_grad_norm_(self._parameters, align.clip_grad_norm or math.inf)
        # The gradient, unlike the loss, is the same on every data-parallel worker. Testing it makes all of them stop at
        # the same step, so that none waits for another.
        if not torch.isfinite(grad_norm):
            raise self._diverged(loss.item(), witness_logits)
        self.optimizer.step()
        self.step_number += 1
        values = torch.stack([loss.detach(), alignment_loss.detach(), label_loss.detach(), grad_norm]).tolist()
        return {"lr": lr, **dict(zip(("loss", "alignment_loss", "label_loss", "grad_norm"), values, strict=True))}

    @property
    def leaves_parameters_unused(self) -> bool:
        """Whether the last step left parameters without a gradient, as heads do that the forward pass never uses."""
        return any(parameter.grad is None for parameter in self._parameters)

    def _diverged(self, loss: float, witness_logits: Sequence[Tensor]) -> NonFiniteLoss:
        for number, logits_BK in enumerate(witness_logits):
            rows = (~logits_BK.isfinite().all(dim=1)).nonzero()[:, 0].tolist()
            if rows:
                reason = f"a witness returned logits that are not finite at step {self.step_number}"
                return NonFiniteLoss(reason, number, rows)
        advice = "lower align.optimizer.lr, or set align.clip_grad_norm"
        if not self.step_number:  # then no step has been taken yet, whatever its length
            advice = "check the temperature, the weights of the losses, mean and std"
        return NonFiniteLoss(
            f"the loss is {loss:g} and its gradient is not finite at step {self.step_number}: {advice}"
        )

    def state(self) -> State:
        """Everything on which the next step depends, as tensors by name: weights, optimiser state and step number.

        The tensors are those in use, not copies: save or copy them before the next step.
        """
        state = {f"source.{name}": value for name, value in self.source.state_dict().items()}
        for index, parameter in enumerate(self._parameters):
            for name, value in self.optimizer.state[parameter].items():
                if value is not None:
                    state[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
        state["step"] = torch.tensor(self.step_number)
        return state

    def restore(self, state: State) -> None:
        """Resumes from a state that `state` returned. On the CPU, later steps are bit-identical to an unbroken run's.

        Raises KeyError or RuntimeError for a state that is not of such a source.
        """
        prefix = "source."
        weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        self.source.load_state_dict(weights)
        for index, parameter in enumerate(self._parameters):
            prefix = f"optimizer.{index}."
            own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            if own:
                self.optimizer.state[parameter] = {
                    # torch keeps AdamW's step count on the CPU, but the moments on the parameter's device.
                    name: value.clone() if name == "step" else value.to(parameter.device, copy=True)
                    for name, value in own.items()
                }
        self.step_number = int(state["step"])


def _optimizer(parameters: list[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    if config.name == "adamw":
        return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        parameters,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
    )


def _freeze_batchnorm(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval().requires_grad_(False)
