"""An early stop: which of the checks along a training was the best, and whether to go on."""

import torch

from align_core.early_stop_config import EarlyStopConfig
from align_core.weights import State


class EarlyStop:
    """The checks of one training so far, and the weights at the best of them.

    Args:
        config: the settings.
        steps_per_epoch, total_steps: of the training.

    Attributes:
        checks: the step, counted from 1, and the value of every check.
        kept: the weights at the best check, which is the first of several that are equal.
    """

    def __init__(self, config: EarlyStopConfig, steps_per_epoch: int, total_steps: int) -> None:
        self.config, self.total_steps = config, total_steps
        self.every = config.every or steps_per_epoch
        self.checks: list[tuple[int, float]] = []
        self.kept: State = {}

    def is_due(self, step: int) -> bool:
        """Whether there is a check after this step, counted from 1."""
        return step % self.every == 0 or step == self.total_steps

    def note(self, step: int, value: float, weights: State) -> None:
        """Takes in a check: its value, and the weights, which are copied where it is the best so far."""
        if not self.checks or value > self.best[1]:
            self.kept = {name: own.detach().clone() for name, own in weights.items()}
        self.checks.append((step, value))

    @property
    def best(self) -> tuple[int, float]:
        """The step and the value of the best check."""
        return max(self.checks, key=lambda check: check[1])

    @property
    def is_over(self) -> bool:
        """Whether as many checks in a row as `patience` says were no better than one before."""
        if not self.checks:
            return False
        return len(self.checks) - 1 - self.checks.index(self.best) >= self.config.patience

    def state(self) -> State:
        """All of it, as tensors by name."""
        kept = {f"kept.{name}": value for name, value in self.kept.items()}
        return {"checks": torch.tensor(self.checks, dtype=torch.float64).reshape(-1, 2), **kept}

    def restore(self, state: State) -> None:
        """Goes on from what `state` returned. Raises KeyError for anything else."""
        self.checks = [(int(step), value) for step, value in state["checks"].tolist()]
        self.kept = {name.removeprefix("kept."): value.clone() for name, value in state.items() if name != "checks"}
