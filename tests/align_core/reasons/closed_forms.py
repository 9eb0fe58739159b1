"""A network whose cross-entropy is a quadratic function of the pixels, so that every reason has a closed form."""

import torch
from torch import Tensor, nn


class Quadratic(nn.Module):
    """Two logits, 0 and log(exp(q) - 1), so that the cross-entropy with label 0 is q(x) = c + b.x + x A x / 2."""

    def __init__(self, a_PP: Tensor, b_P: Tensor, c: float = 50.0) -> None:
        super().__init__()
        self.a_PP, self.b_P, self.c = a_PP, b_P, c

    def loss(self, x_BCHW: Tensor) -> Tensor:
        x_BP = x_BCHW.flatten(1)
        return self.c + x_BP @ self.b_P + ((x_BP @ self.a_PP) * x_BP).sum(dim=1) / 2

    def forward(self, x_BCHW: Tensor) -> Tensor:
        q_B = self.loss(x_BCHW)
        return torch.stack([torch.zeros_like(q_B), q_B + torch.log(-torch.expm1(-q_B))], dim=1)


def with_eigenvalues(values: list[float], seed: int = 0) -> Tensor:
    """A symmetric float64 matrix with these eigenvalues in random directions."""
    generator = torch.Generator().manual_seed(seed)
    basis_PP, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64))
    return basis_PP @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ basis_PP.T


def inner_images(count: int, *shape: int, seed: int = 1) -> Tensor:
    """Float64 pixels between 0.3 and 0.7, away from black and white."""
    generator = torch.Generator().manual_seed(seed)
    return 0.3 + 0.4 * torch.rand((count, *shape), generator=generator, dtype=torch.float64)


def ids_of(count: int) -> list[str]:
    return [f"{number:05d}" for number in range(count)]
