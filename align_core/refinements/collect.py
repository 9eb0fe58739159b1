"""Networks collected along a fine-tune at a high learning rate (LGV; Gubri et al., ECCV 2022, 2207.13129)."""

from collections.abc import Callable

from torch import nn

from align_core.refinements.gathering import Gathering
from align_core.weights import State


class Collect(Gathering):
    """A copy of the network `per_epoch` times an epoch, with its BatchNorm statistics as they stand.

    The weights before the first step are not among them, as in the authors' code.
    """

    def __init__(self, steps_per_epoch: int, total_steps: int, seed: int, per_epoch: int) -> None:
        super().__init__(steps_per_epoch, per_epoch)
        self.copies: list[State] = []

    def take(self, network: nn.Module) -> None:
        """Keeps a copy of the network's whole state, BatchNorm statistics included."""
        self.copies.append({name: value.detach().clone() for name, value in network.state_dict().items()})

    def tensors(self) -> State:
        """The copies, each under its number."""
        return {f"{number}.{name}": value for number, own in enumerate(self.copies) for name, value in own.items()}

    def restore_tensors(self, state: State) -> None:
        """Goes on from what `tensors` returned."""
        copies: dict[int, State] = {}
        for key, value in state.items():
            number, _, name = key.partition(".")
            copies.setdefault(int(number), {})[name] = value
        self.copies = [copies[number] for number in sorted(copies)]

    def networks(self, network: nn.Module, refreshed: Callable[[State], State]) -> list[State]:
        """All copies in their order; the last weights where there are none."""
        return list(self.copies) or [network.state_dict()]
