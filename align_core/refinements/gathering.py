"""Weights that are gathered several times an epoch."""

from abc import ABC, abstractmethod

import torch
from torch import nn

from align_core.weights import State


def parameters_of(network: nn.Module) -> State:
    """The parameters of a network by name, as they are, without BatchNorm statistics.

    One that has several names is there under each, as in the network's state.
    """
    return {name: own.detach() for name, own in network.named_parameters(remove_duplicate=False)}


class Gathering(ABC):
    """Gathers parameters `per_epoch` times an epoch, at equal distances, the last time at the end of the epoch.

    Args:
        steps_per_epoch: steps in one epoch.
        per_epoch: how often weights are gathered in it; after every step, where there are fewer steps.
        first: number of steps before which none are gathered.
    """

    def __init__(self, steps_per_epoch: int, per_epoch: int, first: int = 0) -> None:
        self.steps_per_epoch, self.per_epoch, self.first, self.gathered = steps_per_epoch, per_epoch, first, 0

    def gather(self, network: nn.Module, step_number: int) -> None:
        """Takes in the weights after step number `step_number`, counted from 1, where it is time to."""
        before, after = (number * self.per_epoch // self.steps_per_epoch for number in (step_number - 1, step_number))
        if step_number > self.first and after > before:
            self.gathered += 1
            self.take(network)

    def state(self) -> State:
        """What it has gathered, to be saved."""
        return {**self.tensors(), "gathered": torch.tensor(self.gathered)}

    def restore(self, state: State) -> None:
        """Goes on from what `state` returned."""
        self.gathered = int(state["gathered"])
        self.restore_tensors({name: value.clone() for name, value in state.items() if name != "gathered"})

    @abstractmethod
    def take(self, network: nn.Module) -> None:
        """Takes in the weights of the network as they are now; `gathered` counts them already."""

    @abstractmethod
    def tensors(self) -> State:
        """The tensors, by name, in which the weights that were gathered are kept."""

    @abstractmethod
    def restore_tensors(self, state: State) -> None:
        """Puts back the tensors that `tensors` returned."""
