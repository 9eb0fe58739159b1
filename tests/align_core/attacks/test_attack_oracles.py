"""Presets against torchattack and torchattacks, where these have the attack and do it as its paper says.

torchattack's NI and SI-NI do not accumulate their momentum, nor do its SSA and DeCowA, whose SSA takes images of 224
pixels only; its MIG untargeted climbs the label's probability, which the paper descends: targeted, it does what the
paper does untargeted. Its DI takes the nearest pixel when it resizes, as the paper's first code; Witness and
torchattacks resize bilinearly, which it is made to do. Its BSR rotates whole strips, and those of all images by one
angle, before it cuts them, where the paper rotates each block: the two are compared without rotation.

Random parts are switched off on both sides, or the oracle is given our draws. The batch size is a power of two: the
oracles take the mean over the batch and we take the sum, and only then is the one an exact multiple of the other.
Otherwise rounding would change a sign here and there.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torchattack
import torchattacks
from attack_setting import EPS, Setting, attack_of
from torch import Tensor, nn
from torch.nn import functional as F

from align_core.attacks.updates import round_inside
from align_core.randomness import image_keys, numbered_keys, part_keys, uniform

STEP, STEPS = 2 / 255, 4
CPU = torch.device("cpu")


@pytest.fixture(params=["small", "resnet20"])
def setting(request: pytest.FixtureRequest) -> Setting:
    found: Setting = request.getfixturevalue(request.param)
    return found.rows([0, 1]).double()


@dataclass(frozen=True)
class Oracle:
    """Another implementation, made of a network, and our settings that do the same."""

    of: Callable[[nn.Module], Callable[[Tensor, Tensor], Tensor]]
    settings: dict[str, Any]


def samples(name: str, **settings: Any) -> dict[str, Any]:
    return {"samples": {"name": name, **settings}}


FAR, NEAR = {"eps": EPS, "alpha": STEP, "steps": STEPS}, {"step": STEP, "steps": STEPS}
L2 = {"eps": 0.5, "step": 0.2, "steps": STEPS, "random_start": False}
ORACLES = {
    "fgsm": Oracle(lambda net: torchattack.FGSM(net, eps=EPS, device=CPU), {}),
    "ifgsm": Oracle(lambda net: torchattacks.BIM(net, **FAR), NEAR),
    "pgd": Oracle(lambda net: torchattacks.PGD(net, random_start=False, **FAR), {**NEAR, "random_start": False}),
    "mi": Oracle(lambda net: torchattack.MIFGSM(net, device=CPU, **FAR), NEAR),
    "ni": Oracle(lambda net: torchattacks.NIFGSM(net, **FAR), NEAR),
    "sini": Oracle(lambda net: torchattacks.SINIFGSM(net, m=5, **FAR), NEAR),
    "vmi": Oracle(
        lambda net: torchattacks.VMIFGSM(net, N=2, beta=0, **FAR), {**NEAR, **samples("variance", count=2, radius=0)}
    ),
    "vni": Oracle(
        lambda net: torchattacks.VNIFGSM(net, N=2, beta=0, **FAR), {**NEAR, **samples("variance", count=2, radius=0)}
    ),
    "ti": Oracle(
        lambda net: torchattacks.TIFGSM(net, decay=1.0, len_kernel=5, diversity_prob=0.0, **FAR), {**NEAR, "kernel": 5}
    ),
    "mig": Oracle(
        lambda net: torchattack.MIG(net, device=CPU, s_factor=4, targeted=True, **FAR),
        {**NEAR, **samples("integrated", count=4)},
    ),
    "pgd_l2": Oracle(lambda net: torchattacks.PGDL2(net, eps=0.5, alpha=0.2, steps=STEPS, random_start=False), L2),
    "fgm_l2": Oracle(lambda net: torchattacks.PGDL2(net, eps=0.5, alpha=0.5, steps=1, random_start=False), {}),
}


@pytest.mark.parametrize("method", ORACLES)
def test_agrees_with_another_implementation(method: str, setting: Setting) -> None:
    attack = attack_of(method, **ORACLES[method].settings)
    theirs = ORACLES[method].of(setting.net)(setting.images / 255, setting.labels).detach().float()
    rounded = round_inside(theirs, setting.images, attack.eps, attack.norm)
    assert (setting.craft(attack) == rounded).float().mean() > 0.99


def step_keys(setting: Setting, step: int, part: str, numbers: range) -> Iterator[Tensor]:
    """The keys of the points of a step, one batch after the other."""
    keys = part_keys(part_keys(image_keys(0, setting.ids), step, "step"), 0, part)
    return (numbered_keys(keys, torch.tensor([number])) for number in numbers)


def test_gra_is_torchattacks_one_which_is_given_our_neighbours(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, steps = 3, 4
    shape = setting.images.shape[1:]
    draws = [
        2 * uniform(part_keys(key, 0, "near"), shape) - 1
        for step in range(steps)
        for key in step_keys(setting, step, "relevance", range(1, count + 1))
    ]
    monkeypatch.setattr(Tensor, "uniform_", lambda _, low, high: draws.pop(0) * high)
    gra = torchattack.GRA(setting.net, device=CPU, eps=EPS, alpha=STEP, steps=steps, num_neighbors=count)
    # Their steps shrink wherever the momentum changes at all; in the paper, where its sign does.
    shrunk = gra._get_decay_indicator
    gra._get_decay_indicator = lambda pace, delta, now, before: shrunk(pace, delta, now.sign(), before.sign())
    theirs = (gra(setting.images / 255, setting.labels) * 255).round()
    assert not draws
    ours = setting.craft("gra", step=STEP, steps=steps, samples={"name": "relevance", "count": count})
    assert (ours == theirs).float().mean() > 0.99


def view_keys(setting: Setting, step: int, view: str, copies: int) -> Tensor:
    """The keys of the copies that an attack's first view makes in a step, [B, copies]."""
    keys = next(step_keys(setting, step, "gradient", range(1)))
    return numbered_keys(part_keys(keys, 0, f"0/{view}")[:, None], torch.arange(copies))


@pytest.mark.parametrize("package", ["torchattack", "torchattacks"])
def test_di_is_the_oracles_one_which_is_given_our_sizes_and_places(
    package: str, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    probability, side = 0.7, setting.images.shape[-1]
    far = {**FAR, "decay": 1.0, "diversity_prob": probability}
    if package == "torchattack":
        oracle = torchattack.DIFGSM(setting.net, device=CPU, **far)
        resized = F.interpolate
        monkeypatch.setattr(F, "interpolate", lambda x, size, mode: resized(x, size, mode="bilinear"))
    else:
        oracle = torchattacks.DIFGSM(setting.net, **far)
    numbers: list[float] = []
    monkeypatch.setattr(torch, "rand", lambda _: torch.tensor([numbers.pop(0)]))
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor([int(numbers.pop(0))]))
    theirs, applied = [], []
    for row in range(len(setting.images)):
        for step in range(STEPS):
            which, across, down, chance = uniform(view_keys(setting, step, "resize_pad", 1)[row], (4,))[0].tolist()
            lowest = int(0.9 * side)
            small = lowest + int(which * (side - lowest))
            places = [small, int(down * (side - small + 1)), int(across * (side - small + 1))]
            applied.append(chance < probability)
            # torchattack draws first whether the image is resized, and nothing more if it is not; torchattacks last.
            numbers += [chance, *places * applied[-1]] if package == "torchattack" else [*places, chance]
        theirs.append(oracle(setting.images[row : row + 1] / 255, setting.labels[row : row + 1])[0])
    assert not numbers and len(set(applied)) == 2
    ours = setting.craft("di", **NEAR, views=[{"name": "resize_pad", "probability": probability}])
    assert (ours == (torch.stack(theirs) * 255).round()).float().mean() > 0.99


def test_bsr_without_rotation_is_torchattacks_one_which_is_given_our_cuts_and_orders(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies, blocks = 3, 3
    cuts: list[Any] = []
    orders: list[list[int]] = []

    def shuffle(pieces: list[Any]) -> None:
        pieces[:] = [pieces[place] for place in orders.pop(0)]

    monkeypatch.setattr("torchattack.bsr.RandomRotation", lambda *_, **__: lambda strip: strip)
    monkeypatch.setattr("torchattack.bsr.random.shuffle", shuffle)
    monkeypatch.setattr("torchattack.bsr.np.random.uniform", lambda _, size: cuts.pop(0))
    oracle = torchattack.BSR(setting.net, device=CPU, num_scale=copies, num_block=blocks, **FAR)
    theirs = []
    for row in range(len(setting.images)):
        for step in range(STEPS):
            for key in view_keys(setting, step, "block_shuffle", copies)[row][:, None]:
                strip_key, block_key = (part_keys(key, 0, part) for part in ("strips", "blocks"))
                strips = uniform(part_keys(strip_key, 0, "order"), (blocks,))[0].argsort().tolist()
                by_rows = float(uniform(part_keys(key, 0, "axis"), (1,))) < 0.5
                orders += [[0, 1] if by_rows else [1, 0], strips]
                cuts.append(1 + uniform(strip_key, (blocks,))[0].numpy())
                block_orders = uniform(part_keys(block_key, 0, "order"), (blocks, blocks))[0].argsort(dim=-1).tolist()
                block_cuts = 1 + uniform(block_key, (blocks, blocks))[0].numpy()
                orders += [block_orders[strip] for strip in strips]
                cuts += [block_cuts[strip] for strip in strips]
        theirs.append(oracle(setting.images[row : row + 1] / 255, setting.labels[row : row + 1])[0])
    assert not cuts and not orders
    view = {"name": "block_shuffle", "copies": copies, "blocks": blocks, "degrees": 0.0}
    ours = setting.craft("bsr", **NEAR, views=[view])
    assert (ours == (torch.stack(theirs) * 255).round()).float().mean() > 0.99


def test_admix_takes_torchattacks_first_step_when_it_mixes_in_our_images(
    small: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its later steps the oracle mixes in what became of the other images of the batch; Witness the clean ones."""
    setting = small.double()
    images, labels = setting.others
    keys = view_keys(setting, 0, "admix", 3)
    theirs = []
    for image, label, keys_of_image in zip(setting.images, setting.labels, keys, strict=True):
        others = images[labels != label]
        rows = (uniform(keys_of_image, (1,))[:, 0] * len(others)).long().tolist()
        batch = torch.cat([image[None], others]) / 255
        # The oracle adds row `permutation[0]` of the batch to the image, which is row 0: a permutation for each copy.
        drawn = [torch.full((len(batch),), 1 + row) for row in rows]
        monkeypatch.setattr(torch, "randperm", lambda _, drawn=drawn: drawn.pop(0))
        oracle = torchattack.Admix(setting.net, device=CPU, eps=EPS, alpha=EPS, steps=1, num_classes=10)
        theirs.append(oracle(batch, torch.full((len(batch),), int(label)))[0])
    ours = setting.craft("admix", steps=1, step=EPS)
    assert (ours == (torch.stack(theirs) * 255).round()).float().mean() > 0.99


def test_the_oracles_that_are_not_used_are_wrong_as_stated(small: Setting) -> None:
    """If one of them is mended, it may become an oracle: its momentum is still thrown away in every step."""
    net = small.double().net
    for oracle, plain in ((torchattack.NIFGSM, torchattacks.NIFGSM), (torchattack.SINIFGSM, torchattacks.SINIFGSM)):
        one, other = oracle(net, device=CPU, **FAR), plain(net, **FAR)
        equal = one(small.images / 255, small.labels).isclose(
            other(small.images / 255, small.labels).float(), atol=1e-4
        )
        assert equal.float().mean() < 0.98
