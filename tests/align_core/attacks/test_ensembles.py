"""Attacks on several networks: by the mean of their logits, the mean of their losses, or one after the other."""

import torch
from small_nets import mlp
from torch import Tensor
from torch.nn import functional as F

from align_core.attacks import AttackConfig, craft
from align_core.models import Ensemble

IMAGES = torch.randint(256, (4, 3, 2, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = torch.tensor([0, 1, 2, 3])
IDS = ["a", "b", "c", "d"]
MEMBERS = [mlp(1), mlp(2), mlp(3)]
ATTACK = AttackConfig(method="ifgsm", eps=32 / 255, step=4 / 255, steps=5)


def by_hand(value_at: "object") -> Tensor:
    """Iterated signs of the gradient of `value_at(step, images)`, written out."""
    centre = IMAGES.float() / 255
    now = centre
    for step in range(ATTACK.steps):
        leaf = now.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(value_at(step, leaf), leaf)  # type: ignore[operator]
        now = torch.clamp(now + ATTACK.step * gradient.sign(), centre - ATTACK.eps, centre + ATTACK.eps).clamp(0, 1)
    return (now * 255).round().to(torch.uint8)


def loss_of(member: int, images: Tensor) -> Tensor:
    return F.cross_entropy(MEMBERS[member](images), LABELS, reduction="sum")


def crafted(combine: str, seed: int = 7) -> Tensor:
    return craft(Ensemble(MEMBERS, combine), IMAGES, LABELS, IDS, ATTACK, seed)  # type: ignore[arg-type]


def test_losses_are_averaged() -> None:
    expected = by_hand(lambda step, images: sum(loss_of(member, images) for member in range(3)) / 3)
    assert torch.equal(crafted("loss"), expected)
    assert not torch.equal(crafted("loss"), crafted("logits"))


def test_logits_are_averaged() -> None:
    def value(step: int, images: Tensor) -> Tensor:
        mean = torch.stack([member(images) for member in MEMBERS]).mean(dim=0)
        return F.cross_entropy(mean, LABELS, reduction="sum")

    assert torch.equal(crafted("logits"), by_hand(value))


def test_a_cycle_sees_one_network_a_step_in_the_order_of_its_seed() -> None:
    order = torch.randperm(3, generator=torch.Generator().manual_seed(7)).tolist()
    assert torch.equal(crafted("cycle"), by_hand(lambda step, images: loss_of(order[step % 3], images)))
    orders = {tuple(torch.randperm(3, generator=torch.Generator().manual_seed(seed)).tolist()) for seed in range(9)}
    assert len(orders) > 1


def test_a_cycle_does_not_depend_on_the_batch() -> None:
    ensemble = Ensemble(MEMBERS, "cycle")
    alone = [craft(ensemble, IMAGES[i : i + 1], LABELS[i : i + 1], [IDS[i]], ATTACK, 7) for i in range(4)]
    assert torch.equal(torch.cat(alone), crafted("cycle"))


def test_the_mean_of_losses_through_views_is_that_of_each_network() -> None:
    attack = AttackConfig(method="si", eps=32 / 255, steps=1)
    found = craft(Ensemble([MEMBERS[0]] * 2, "loss"), IMAGES, LABELS, IDS, attack, 0)
    assert torch.equal(found, craft(MEMBERS[0], IMAGES, LABELS, IDS, attack, 0))
