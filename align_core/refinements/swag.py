"""Networks drawn from a Gaussian around the mean of the weights, as in MBA (Li et al., ICLR 2023, 2302.05086)."""

from collections.abc import Callable

import torch
from torch import nn

from align_core.refinements.gathering import Gathering, parameters_of
from align_core.weights import State


class Swag(Gathering):
    """The mean and the variance of every parameter, gathered `per_epoch` times an epoch, and networks drawn from them.

    The Gaussian is diagonal: mean + `scale` * deviation * N(0, 1), where `scale` multiplies the standard deviation, as
    in the authors' code. All networks have the BatchNorm statistics of the mean, taken anew from training images.
    """

    def __init__(
        self, steps_per_epoch: int, total_steps: int, seed: int, per_epoch: int, samples: int, scale: float
    ) -> None:
        super().__init__(steps_per_epoch, per_epoch)
        self.seed, self.samples, self.scale = seed, samples, scale
        self.mean: State = {}
        self.spread: State = {}  # the sum of squared deviations from the mean (Welford 1962), which cancels nothing

    def take(self, network: nn.Module) -> None:
        """Takes the parameters into their mean and their spread around it."""
        for name, value in parameters_of(network).items():
            if name not in self.mean:
                self.mean[name], self.spread[name] = value.clone(), torch.zeros_like(value)
                continue
            before = value - self.mean[name]
            self.mean[name].add_(before / self.gathered)
            self.spread[name].add_(before * (value - self.mean[name]))

    def tensors(self) -> State:
        """What has been gathered, by name."""
        means = {f"mean.{name}": value for name, value in self.mean.items()}
        return means | {f"spread.{name}": value for name, value in self.spread.items()}

    def restore_tensors(self, state: State) -> None:
        """Goes on from what `tensors` returned."""
        self.mean = {key.removeprefix("mean."): own for key, own in state.items() if key.startswith("mean.")}
        self.spread = {key.removeprefix("spread."): own for key, own in state.items() if key.startswith("spread.")}

    def networks(self, network: nn.Module, refreshed: Callable[[State], State]) -> list[State]:
        """The networks that are drawn, the same for the same seed."""
        if not self.mean:
            return [network.state_dict()]
        middle = refreshed(network.state_dict() | self.mean)
        generator = torch.Generator().manual_seed(self.seed)
        # In the network's order of names, which a saved state does not keep.
        names = list(parameters_of(network))
        return [middle | self._drawn(names, generator) for _ in range(self.samples)]

    def _drawn(self, names: list[str], generator: torch.Generator) -> State:
        drawn: State = {}
        for name in names:
            mean = self.mean[name]
            normal = torch.randn(mean.shape, generator=generator).to(mean)
            drawn[name] = mean + self.scale * (self.spread[name] / self.gathered).sqrt() * normal
        return drawn
