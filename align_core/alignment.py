"""Alignment of a source to its witnesses: training steps, batches, and a state that can be saved and restored.

The training loop belongs to the caller, so that the same steps run on Ray (`pipelines.compute.fine_tune`) and in
three lines of your own:

    alignment = Alignment(source, witnesses, align, total_steps=len(batches), seed=0)
    for step in range(alignment.step_number, len(batches)):
        alignment.step(*batches[step])
"""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from align_core.align_config import AlignConfig
from align_core.diverged import NonFiniteLoss as NonFiniteLoss
from align_core.diverged import Taken, diverged
from align_core.effect import Likeness
from align_core.layer_rates import freeze, optimizer_of, shares
from align_core.likeness import likeness_of, looked_at, mean_likeness
from align_core.losses.over_witnesses import over_witnesses
from align_core.losses.seen import Seen, load_loss
from align_core.refinements.at import At, part_code
from align_core.refinements.mixed import Mixed
from align_core.refinements.statistics import refreshed
from align_core.sight import sight_of, taught
from align_core.teachers import teachers_of
from align_core.weights import State


class Alignment:
    """Makes a surrogate from a source, by alignment to frozen witnesses or another refinement.

    Each call of `step` is one update of the source's weights.

    Args:
        source: maps pixels to logits. It is trained in place, in train mode: all of it, but for the parameters that a
            Classifier names as `frozen`, and those that `align.freeze` names.
        witnesses: map pixels to logits. They are put into eval mode and frozen. Without any, the source is fine-tuned
            on labels alone, unless its own predictions are its teacher.
        align: the settings. `weight` has no effect where there is no teacher, and `early_stop` has none here: whoever
            calls `step` ends the training (`align_core.early_stop`).
        total_steps: number of steps until the learning rate reaches 0.
        seed: seed of dropout and other random layers.
        wrap: makes the source data-parallel, such as DistributedDataParallel.
        rank: number of this data-parallel worker.
        steps_per_epoch: number of steps of an epoch, on which warm-up and the gathering of weights depend; by default
            there is one epoch.
        shape: channels, height and width of the images; needed for losses that compare more than logits.

    Raises ValueError where there is no teacher and `label_weight` is 0, so that nothing could be learnt, and for
    arguments of another kind; InputError where a network has not what a loss compares.
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
        steps_per_epoch: int | None = None,
        shape: tuple[int, int, int] | None = None,
    ) -> None:
        if isinstance(witnesses, nn.Module):  # of an nn.Sequential, the layers would pass for witnesses
            raise ValueError("witnesses must be a list of modules: write [witness]")
        if total_steps < 1:
            raise ValueError(f"total_steps must be at least 1, not {total_steps}")
        teachers = teachers_of(source, witnesses, align)
        own = set(map(id, source.parameters()))
        if any(id(parameter) in own for teacher in teachers for parameter in teacher.parameters()):
            raise ValueError("a witness shares parameters with the source, and would change with it: give it a copy")
        self.source, self.align, self.total_steps = source, align, total_steps
        self.seed, self.rank, self.step_number = seed, rank, 0
        self.steps_per_epoch = steps_per_epoch or total_steps
        self.witnesses = [teacher.eval().requires_grad_(False) for teacher in teachers]
        self._losses = {own["name"]: (own["weight"], load_loss(own, align.temperature)) for own in align.losses}
        torch.manual_seed(seed)  # which draws the projections
        device = next(source.parameters()).device
        image_1CHW = None if shape is None else torch.full((1, *shape), 0.5, device=device)
        losses = align.losses if align.weight and self.witnesses else []
        self._sight, self._taps = sight_of(source, self.witnesses, losses, image_1CHW)
        self._sight.projections.to(device)
        source.train()
        freeze(source, align.freeze, align.batchnorm)
        self._parameters = [parameter for parameter in self._sight.parameters() if parameter.requires_grad]
        self._shares = shares(source, self._parameters, align.optimizer.layer_decay)
        self.optimizer = optimizer_of(self._parameters, self._shares, align.optimizer)
        self._parallel = wrap(self._sight)
        self._terms = {own["name"]: (own["weight"], part_code(_without(own, "weight"))) for own in align.terms}
        self._perturb = _code_of(align.inputs)
        self._mix = _code_of(align.mix)
        self._update = _code_of(align.update)
        keep = _code_of(align.keep)
        self._keep: Any = keep and keep(self.steps_per_epoch, total_steps, seed)

    @property
    def lr(self) -> float:
        """Learning rate of the next step: after the warm-up, on a cosine from the configured rate to 0, or constant."""
        optimizer = self.align.optimizer
        warmup = min(round(optimizer.warmup * self.steps_per_epoch), self.total_steps - 1)
        if self.step_number < warmup:
            return optimizer.lr * (self.step_number + 1) / (warmup + 1)
        if optimizer.schedule == "constant":
            return optimizer.lr
        done = (self.step_number - warmup) / (self.total_steps - warmup)
        return optimizer.lr * 0.5 * (1 + math.cos(math.pi * done))

    def step(self, images_BCHW: Tensor, labels_B: Tensor) -> dict[str, float]:
        """Takes one training step on pixels [B, C, H, W] in [0, 1] and labels [B].

        It sets torch's global seed from (seed, step, rank), so that dropout is the same in a resumed run. Returns the
        step's `lr`, `loss`, `alignment_loss`, `label_loss`, further terms by name, and `grad_norm` (before clipping).
        Raises NonFiniteLoss before the weights are changed, and ValueError for images or labels of another kind.
        """
        if len(labels_B) and int(labels_B.min()) < 0:  # of which cross_entropy leaves out those of -100
            raise ValueError(f"labels are numbers of classes, from 0, and one is {int(labels_B.min())}")
        taken = self._look(images_BCHW, labels_B)
        (row,) = self.settled([taken])
        self._move()
        return row

    def take(self, images_BCHW: Tensor, labels_B: Tensor) -> Taken:
        """Takes one training step without waiting for a GPU. Labels are not checked.

        The caller passes what this returns to `settled` after some steps. Where a gradient was not finite, the weights
        are not either by then, and must not be used.
        """
        taken = self._look(images_BCHW, labels_B)
        self._move()
        return taken

    def settled(self, steps: Sequence[Taken]) -> list[dict[str, float]]:
        """What `step` returns, of steps that `take` took. Raises NonFiniteLoss for the first whose gradient was not."""
        values = torch.stack([torch.stack(list(taken.values.values())) for taken in steps]).tolist()
        rows = [
            {"lr": own.lr, **dict(zip(own.values, row, strict=True))} for own, row in zip(steps, values, strict=True)
        ]
        for taken, row in zip(steps, rows, strict=True):
            # The gradient, unlike the loss, is the same on every data-parallel worker. Testing it makes all of them
            # stop at the same step, so that none waits for another.
            if not math.isfinite(row["grad_norm"]):
                raise diverged(taken, row["loss"], self._taught)
        return rows

    def _look(self, images_BCHW: Tensor, labels_B: Tensor) -> Taken:
        """Leaves the gradient of one step at the weights."""
        self._check(images_BCHW, labels_B)
        self._seed_step()
        lr = self.lr
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["share"]
        mixed = Mixed(images_BCHW, labels_B, 1.0)
        if self._mix is not None:
            mixed = self._mix(images_BCHW, labels_B)
        if self._perturb is not None:
            mixed = mixed._replace(images_BCHW=self._perturb(self._at(mixed.images_BCHW, labels_B)))

        def gradients() -> dict[str, Tensor]:
            return self._gradients(mixed, labels_B)

        values = gradients() if self._update is None else self._updated(gradients)
        grad_norm = nn.utils.clip_grad_norm_(self._parameters, self.align.clip_grad_norm or math.inf)
        return Taken(self.step_number, lr, mixed.images_BCHW, {**values, "grad_norm": grad_norm})

    def _move(self) -> None:
        """Moves the weights along their gradient."""
        self.optimizer.step()
        self.step_number += 1
        if self._keep is not None:
            self._keep.gather(self.source, self.step_number)

    def _seed_step(self, *further: int) -> None:
        torch.manual_seed(hash((self.seed, self.step_number, self.rank, *further)) % (1 << 63))

    def _check(self, images_BCHW: Tensor, labels_B: Tensor) -> None:
        if not images_BCHW.is_floating_point() or labels_B.shape != images_BCHW.shape[:1]:
            raise ValueError(
                f"a step takes float pixels [B, C, H, W] in [0, 1] and labels [B], not {images_BCHW.dtype} "
                f"{tuple(images_BCHW.shape)} and labels {tuple(labels_B.shape)}"
            )
        if self.step_number >= self.total_steps:
            raise ValueError(f"all {self.total_steps} steps are taken: the learning rate would rise again")
        # Resizing may leave the range a little; 8-bit or normalised images leave it far.
        if self.step_number == 0 and not -0.5 <= float(images_BCHW.min()) <= float(images_BCHW.max()) <= 1.5:
            raise ValueError("pixels must lie in [0, 1]: divide 8-bit images by 255")

    def _at(self, images_BCHW: Tensor, labels_B: Tensor) -> At:
        """Where the step stands, for parts that take more than one look."""
        return At(
            network=self.source,
            images_BCHW=images_BCHW,
            labels_B=labels_B,
            towards=lambda images, labels: self._compared(images, labels)[1],
            weights={name: weight for name, (weight, _) in self._losses.items()},
            taught=lambda images: [own.logits_BK for own in self._taught(images)],
            temperature=self.align.temperature,
        )

    def _gradients(self, mixed: Mixed, labels_B: Tensor) -> dict[str, Tensor]:
        """Leaves the gradient of the whole loss at the weights, and returns the values of its parts."""
        self.optimizer.zero_grad(set_to_none=True)
        parts, values = mixed.parts(labels_B, self.align.accumulate), dict[str, Tensor]()
        for number, (part, labels) in enumerate(parts):
            parallel, is_last = self._parallel, number + 1 == len(parts)
            # What has been added up is averaged over workers once, with the last part.
            with nullcontext() if is_last or not isinstance(parallel, DistributedDataParallel) else parallel.no_sync():
                found = self._gradients_of(part, labels, len(labels) / len(labels_B))
            values = {name: values[name] + own for name, own in found.items()} if values else found
        return values

    def _gradients_of(self, mixed: Mixed, labels_B: Tensor, of_batch: float) -> dict[str, Tensor]:
        """Adds the gradient of a part, times its share of the batch, and returns its values times this share.

        Every further term is a pass of its own, whose gradient is added, so that memory holds one pass at a time. Terms
        come first: they may look at the network past what makes it data-parallel, and it is the backward pass of a look
        through it that averages over workers all gradients that have been added up.
        """
        align = self.align
        terms: dict[str, Tensor] = {}
        for name, (weight, term) in self._terms.items():
            own = term(self._at(mixed.images_BCHW, labels_B))
            (of_batch * weight * own).backward()
            terms[name] = own.detach()
        logits_BK, losses = self._compared(mixed.images_BCHW, labels_B)
        weighted = (self._losses[name][0] * loss for name, loss in losses.items())
        alignment_loss = sum(weighted, start=logits_BK.new_zeros(()))
        label_loss = self._label_loss(logits_BK, labels_B, mixed)
        loss = align.weight * alignment_loss
        if align.label_weight:
            loss = loss + align.label_weight * label_loss
        (of_batch * loss).backward()
        values = {"loss": loss.detach(), "alignment_loss": alignment_loss.detach(), "label_loss": label_loss.detach()}
        for name, own in terms.items():
            values["loss"] = values["loss"] + self._terms[name][0] * own
        return {name: of_batch * value for name, value in (values | terms).items()}

    def _label_loss(self, logits_BK: Tensor, labels_B: Tensor, mixed: Mixed) -> Tensor:
        smoothing = self.align.label_smoothing
        loss = F.cross_entropy(logits_BK, labels_B, label_smoothing=smoothing)
        if mixed.share == 1:
            return loss
        other = F.cross_entropy(logits_BK, mixed.others_B, label_smoothing=smoothing)
        return mixed.share * loss + (1 - mixed.share) * other

    def _compared(self, images_BCHW: Tensor, labels_B: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The source's logits at some images, and the alignment losses by name."""
        return self._beside(self._taught(images_BCHW), self._parallel, images_BCHW, labels_B)

    def _beside(
        self, theirs: Sequence[Seen], sight: nn.Module, images_BCHW: Tensor, labels_B: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The same beside what the teachers make of the images."""
        logits_BK, features, places_BKHW = sight(images_BCHW)
        own = [Seen(logits_BK, features[w] if features else None, places_BKHW, labels_B) for w in range(len(theirs))]
        if not theirs:
            return logits_BK, {}
        how = self.align.over_witnesses
        return logits_BK, {
            name: over_witnesses([loss(a, b) for a, b in zip(own, theirs, strict=True)], how)
            for name, (_, loss) in self._losses.items()
        }

    def _taught(self, images_BCHW: Tensor) -> list[Seen]:
        pairs = zip(self.witnesses, self._taps, strict=True)
        return [taught(teacher, taps, images_BCHW) for teacher, taps in pairs]

    def _updated(self, gradients: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Takes the gradient by a rule of several passes, of which the first alone moves BatchNorm statistics.

        All draw the same random numbers, so that their gradients differ by the weights alone.
        """
        assert self._update is not None
        buffers: list[Tensor] = []

        def pass_over() -> dict[str, Tensor]:
            self._seed_step(1)  # not that of the step, by which images may have been mixed or perturbed
            values = gradients()
            if buffers:
                for buffer, first in zip(self.source.buffers(), buffers, strict=True):
                    buffer.copy_(first)
            else:
                buffers.extend(buffer.clone() for buffer in self.source.buffers())
            return values

        values: dict[str, Tensor] = self._update(pass_over, self._parameters)
        return values

    @property
    def leaves_parameters_unused(self) -> bool:
        """Whether the last step left parameters without a gradient, as heads do that the forward pass never uses."""
        return any(parameter.grad is None for parameter in self._parameters)

    def networks(self, batches: Callable[[], Iterable[Tensor]] = tuple) -> list[State]:
        """The networks that are kept, as weights by name: after the last step, one, or as many as were gathered.

        Args:
            batches: returns training images, of which the BatchNorm statistics of averaged weights are taken anew.

        Raises ValueError where these are needed, and there are none.
        """
        if self._keep is None:
            return [self.source.state_dict()]
        torch.manual_seed(self.seed)  # of dropout, while statistics are taken
        kept: list[State] = self._keep.networks(self.source, lambda state: refreshed(self.source, state, batches()))
        return kept

    def likeness(
        self, batches: Callable[[], Iterable[tuple[Tensor, Tensor]]], states: Sequence[State] = ()
    ) -> Likeness | None:
        """How like its teachers the source is in eval mode, or networks with its layers and other weights on average.

        Nothing of the training changes by it, and it may be called by one data-parallel worker alone.

        Args:
            batches: returns images and labels, as `step` takes them; those of its augmentation are not wanted here.
            states: weights of the networks that `networks` returns; by default the source is looked at as it is.

        Returns None where there is no teacher, or a loss is not finite.
        """

        def compared(images_BCHW: Tensor, labels_B: Tensor) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
            theirs = self._taught(images_BCHW)
            logits_BK, losses = self._beside(theirs, self._sight, images_BCHW, labels_B)
            weighted = {name: self._losses[name][0] * loss for name, loss in losses.items()}
            return logits_BK, weighted, [own.logits_BK for own in theirs]

        found: list[Likeness | None] = []
        looks: Sequence[State | None] = states or [None]
        for state in looks if self.witnesses else ():
            with looked_at(self.source, state):
                found.append(likeness_of(compared, batches()))
        return mean_likeness(found)

    def state(self) -> State:
        """Everything on which the next step depends, as tensors by name: weights, optimiser state and step number.

        The tensors are those in use, not copies: save or copy them before the next step.
        """
        state = {f"source.{name}": value for name, value in self.source.state_dict().items()}
        for index, parameter in enumerate(self._parameters):
            for name, value in self.optimizer.state[parameter].items():
                if value is not None:
                    state[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
        state |= {f"projections.{name}": value for name, value in self._sight.projections.state_dict().items()}
        if self._keep is not None:
            state |= {f"kept.{name}": value for name, value in self._keep.state().items()}
        state["step"] = torch.tensor(self.step_number)
        return state

    def restore(self, state: State) -> None:
        """Resumes from a state that `state` returned. On the CPU, later steps are bit-identical to an unbroken run's.

        Teachers are not in the state: a source that is its own teacher must have been given with its first weights.
        Raises KeyError or RuntimeError for a state that is not of such a source.
        """
        self.source.load_state_dict(_under("source.", state))
        self._sight.projections.load_state_dict(_under("projections.", state))
        if self._keep is not None and (kept := _under("kept.", state)):
            device = next(self.source.parameters()).device
            self._keep.restore({name: value.to(device) for name, value in kept.items()})
        for index, parameter in enumerate(self._parameters):
            if own := _under(f"optimizer.{index}.", state):
                self.optimizer.state[parameter] = {
                    # torch keeps AdamW's step count on the CPU, but the moments on the parameter's device.
                    name: value.clone() if name == "step" else value.to(parameter.device, copy=True)
                    for name, value in own.items()
                }
        self.step_number = int(state["step"])


def _code_of(part: str | dict[str, Any]) -> Callable[..., Any] | None:
    """The function or class of a part with its settings; None for the word that stands for none."""
    return None if isinstance(part, str) else part_code(part)


def _without(part: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key != name}


def _under(prefix: str, state: State) -> State:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
