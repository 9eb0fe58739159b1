"""Attacks whose code is not ours: what they make, and every way in which they may misbehave."""

import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from attack_setting import EPS, Setting, random_images
from small_nets import assert_identical, cnn, tensors_of
from torch import nn

from align_core.attacks import AttackConfig, ForeignConfig, craft, crafted
from align_core.attacks.foreign import Misbehaved, check_foreign
from align_core.errors import InputError

OWN = """
import random, sys
import numpy as np
import torch
from torch.nn import functional as F

def pgd(net, images, labels, eps, step, steps, wanted_B=None, decay=0.0):
    sign = 1 if wanted_B is None else -1
    adversarial = images.clone()
    for _ in range(steps):
        adversarial.requires_grad_()
        loss = sign * F.cross_entropy(net(adversarial), labels if wanted_B is None else wanted_B)
        gradient = torch.autograd.grad(loss, adversarial)[0]
        adversarial = adversarial.detach() + step * gradient.sign()
        adversarial = adversarial.clamp(images - eps, images + eps).clamp(0, 1)
    return adversarial

def leaves_the_ball(net, images, labels, eps, **_):
    return (images + (images < 0.5) * (eps + 1 / 255)).clamp(0, 1)

def leaves_the_range(net, images, labels, eps, **_):
    return images + eps

def goes_out(net, images, labels, eps, share=1.0, **_):
    away = torch.where(images < 0.5, 1.0, -1.0)
    return images + share * eps * away / away.flatten(1).norm(dim=1)[:, None, None, None]

def nan(net, images, labels, **_):
    images[1, 0, 0, 0] = float("nan")
    return images

def shape(net, images, labels, **_):
    return images[:, :, 1:]

def eight_bits(net, images, labels, **_):
    return (images * 255).to(torch.uint8)

def a_list(net, images, labels, **_):
    return list(images)

def raises(net, images, labels, **_):
    raise KeyError("layer9")

def exits(net, images, labels, **_):
    sys.exit(3)

def no_memory(net, images, labels, **_):
    raise torch.OutOfMemoryError("too much")

def changes_weights(net, images, labels, **_):
    next(net.parameters()).data.mul_(1.5)
    return images

def replaces_weights(net, images, labels, **_):
    net[0].weight = torch.nn.Parameter(net[0].weight * 2)
    return images

def trains(net, images, labels, **_):
    net.train()
    net(images)
    return images

def litters(net, images, labels, **_):
    net[8].train()
    net.requires_grad_(True)
    net(images).sum().backward()
    net[0].register_forward_hook(lambda *_: None)
    net[2].register_full_backward_hook(lambda *_: None)
    net.maxpool = torch.nn.Identity()
    net[2] = torch.nn.SiLU()
    net.note = "mine"
    return images

def draws(net, images, labels, eps, **_):
    noise = torch.rand_like(images) + float(np.random.rand()) + random.random()
    return (images + eps * (noise - noise.floor())).clamp(0, 1)

def uses_inner_gradient(net, images, labels, eps, **_):
    x = images.clone().requires_grad_()
    with torch.no_grad():
        net(x)
    net(torch.cat([x, x])).sum().backward()
    net(x[:4]).sum().backward()
    net(input=x[:2]).sum().backward()
    return images

constant = 3
"""


@pytest.fixture
def setting() -> Setting:
    return Setting(cnn(0).train(), random_images(8, 1, 8, 8), torch.arange(8))


@pytest.fixture(autouse=True)
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_attacks.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_attacks", raising=False)


def foreign(method: str, **settings) -> ForeignConfig:
    return ForeignConfig(method=method, **{"eps": EPS, "step": 2 / 255, "steps": 5, **settings})


def own(name: str, **settings) -> ForeignConfig:
    return foreign(f"python:own_attacks:{name}", **settings)


def made(setting: Setting, attack: ForeignConfig, seed: int = 0, **further):
    return crafted(setting.net, setting.images, setting.labels, setting.ids, attack, seed, **further)


def test_torchattack_mi_is_ours(setting: Setting) -> None:
    ours = setting.craft("mi", step=2 / 255, steps=5)
    theirs = made(setting, foreign("torchattack:MIFGSM"))
    assert torch.equal(theirs.images_BCHW, ours)
    assert theirs.gradients == 5
    assert not torch.equal(ours, setting.images)


def test_torchattack_takes_the_arguments_that_it_is_given(setting: Setting) -> None:
    ours = setting.craft("mi", step=2 / 255, steps=5, momentum=0.3)
    assert torch.equal(made(setting, foreign("torchattack:MIFGSM", args={"decay": 0.3})).images_BCHW, ours)


def test_torchattack_leads_towards_a_class(setting: Setting) -> None:
    wanted = (setting.labels + 1) % 10
    attack = AttackConfig(method="mi", eps=EPS, step=2 / 255, steps=5, towards="next")
    ours = craft(setting.net, setting.images, setting.labels, setting.ids, attack, 0, wanted_B=wanted)
    assert torch.equal(made(setting, foreign("torchattack:MIFGSM", towards="next"), wanted_B=wanted).images_BCHW, ours)
    attack = own("pgd", towards="next")
    plain = AttackConfig(method="ifgsm", eps=EPS, step=2 / 255, steps=5, towards="next")
    ours = craft(setting.net, setting.images, setting.labels, setting.ids, plain, 0, wanted_B=wanted)
    assert torch.equal(made(setting, attack, wanted_B=wanted).images_BCHW, ours)


def test_torchattack_may_look_at_a_layer_and_in_l2(setting: Setting) -> None:
    inside = made(setting, foreign("torchattack:FIA", args={"feature_layer_cfg": "4", "num_ens": 3}))
    assert inside.gradients == 3 + 5
    assert not torch.equal(inside.images_BCHW, setting.images)
    assert not any(parameter.grad is not None for parameter in setting.net.parameters())
    far = made(setting, foreign("torchattack:PGDL2", norm="l2", eps=0.5, step=0.1)).images_BCHW
    lengths = (far.double() - setting.images.double()).flatten(1).norm(dim=1) / 255
    assert 0.4 < lengths.max() <= 0.5 + 1e-6


def test_a_callable_is_plain_gradient_signs(setting: Setting) -> None:
    result = made(setting, own("pgd"))
    assert torch.equal(result.images_BCHW, setting.craft("ifgsm", step=2 / 255, steps=5))
    assert result.gradients == 5
    assert result.images_BCHW.dtype == torch.uint8


def test_gradients_are_counted_by_images_and_passes(setting: Setting) -> None:
    assert made(setting, own("uses_inner_gradient")).gradients == 2 + 4 / 8 + 2 / 8


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("leaves_the_ball", r"leaves the linf ball of radius 0\.03137: one is 0\.03529 away from its image \(0000, "),
        ("leaves_the_range", r"returns pixels outside \[0, 1\] \(0000, "),
        ("nan", r"returns pixels that are not finite \(0001\)"),
        ("shape", r"returns pixels of shape \(8, 1, 7, 8\) for images of shape \(8, 1, 8, 8\)"),
        ("eight_bits", r"returns torch\.uint8, and must return a tensor of float pixels"),
        ("a_list", r"returns list, and must return a tensor"),
        ("raises", r"raises KeyError: 'layer9'"),
        ("exits", r"raises SystemExit: 3"),
        ("changes_weights", r"changes the surrogate's weights \(0\.weight\)"),
        ("replaces_weights", r"changes the surrogate's weights \(0\.weight\)"),
        ("trains", r"changes the surrogate's weights \(1\.running_mean and 5 more\)"),
    ],
)
def test_what_no_attack_may_do(setting: Setting, name: str, message: str) -> None:
    before, weight = tensors_of(setting.net), setting.net[0].weight
    with pytest.raises(Misbehaved, match=f"^attack python:own_attacks:{name} {message}"):
        made(setting, own(name))
    assert_identical(tensors_of(setting.net), before)
    assert setting.net[0].weight is weight


def test_an_l2_ball_is_measured_in_l2(setting: Setting) -> None:
    """Every pixel moves by a sixteenth only: its 64 pixels together go to the surface, or beyond it."""
    attack = own("goes_out", norm="l2", eps=0.5)
    away = made(setting, attack).images_BCHW.int() - setting.images.int()
    assert 0.47 < float((away.flatten(1) / 255).norm(dim=1).min()) <= 0.5
    with pytest.raises(
        Misbehaved, match=r"leaves the l2 ball of radius 0\.5: one is 0\.51 away from its image \(0000, "
    ):
        made(setting, replace(attack, args={"share": 1.02}))


def test_memory_may_suffice_another_time(setting: Setting) -> None:
    with pytest.raises(RuntimeError, match=r"no_memory: memory does not hold a chunk; lower compute\.chunk"):
        made(setting, own("no_memory"))


def test_rounding_of_floats_is_no_reason_to_refuse(setting: Setting) -> None:
    """0.1 + 0.2 in float32: pixels on the ball's surface are off by a rounding error."""
    eps = 0.1
    assert made(setting, own("pgd", eps=eps, step=0.09)).images_BCHW.dtype == torch.uint8


def test_the_surrogate_is_left_as_it_was_found(setting: Setting) -> None:
    net = setting.net
    net[1].eval()
    net[0].weight.requires_grad_(False)
    net[3].register_forward_hook(lambda *_: None)
    net[0].bias.grad = kept = torch.ones_like(net[0].bias)
    parts = list(net.named_modules())

    def state() -> list:
        hooks = [[len(own) for name, own in sorted(vars(part).items()) if "hooks" in name] for _, part in parts]
        return [hooks, [part.training for _, part in parts], [own.requires_grad for own in net.parameters()]]

    before = state()
    made(setting, own("litters"))
    assert state() == before
    assert list(net.named_modules()) == parts
    assert net[0].bias.grad is kept and torch.equal(kept, torch.ones_like(kept))
    assert net[0].weight.grad is None
    assert not hasattr(net, "note")
    assert type(net[2]) is nn.ReLU


def test_random_numbers_come_from_seed_and_first_image_alone(setting: Setting) -> None:
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    states = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    first = made(setting, own("draws")).images_BCHW
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()
    assert states[2] == random.getstate()
    torch.manual_seed(6), np.random.seed(6), random.seed(6)
    assert torch.equal(made(setting, own("draws")).images_BCHW, first)
    assert not torch.equal(made(setting, own("draws"), seed=1).images_BCHW, first)
    later = replace(setting, images=setting.images[1:], labels=setting.labels[1:])
    assert not torch.equal(made(later, own("draws")).images_BCHW, first[1:])  # they depend on the batch


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "torchattack:NoSuch"}, r"torchattack has no attack 'NoSuch'; there are ATT, Admix"),
        ({"method": "torchattack:mifgsm"}, r"no attack 'mifgsm'; did you mean 'MIFGSM'\?"),
        ({"method": "torchattack:CDA"}, r"CDA cannot be used: it downloads a generator"),
        ({"method": "torchattack:SSP"}, r"SSP cannot be used: it downloads"),
        ({"method": "torchattack:DeepFool"}, r"DeepFool cannot be used: it has no radius"),
        ({"method": "torchattack:TGR"}, r"TGR cannot be used: it looks for layers"),
        ({"method": "torchattack:MuMoDIG"}, r"MuMoDIG, tried on images of 1 x 8 x 8 values, raises Import"),
        ({"method": "torchattack:SSA"}, r"SSA, tried on images of 1 x 8 x 8 values, raises RuntimeError: The size"),
        ({"method": "torchattack:FIA"}, r"FIA looks at a layer of the surrogate; name it in args"),
        ({"method": "torchattack:Admix"}, r"Admix takes images for those of ImageNet; set args"),
        ({"method": "torchattack:DR", "towards": "next", "args": {"feature_layer_cfg": "1"}}, r"DR cannot lead"),
        ({"method": "torchattack:PGDL2"}, r"PGDL2 keeps to the l2 ball; set norm: l2"),
        ({"method": "torchattack:MIFGSM", "norm": "l2"}, r"MIFGSM keeps to the linf ball; set norm: linf"),
        ({"method": "torchattack:FGSM", "step": EPS}, r"FGSM takes one step; set steps: 1"),
        ({"method": "torchattack:FGSM", "steps": 1}, r"FGSM steps as far as eps; leave out step"),
        ({"method": "torchattack:MIFGSM", "args": {"dekay": 1}}, r"no argument 'dekay'; args may have decay"),
        ({"method": "python:no_such:pgd"}, r"attack no_such:pgd: No module named 'no_such'"),
        ({"method": "python:own_attacks:none"}, r"own_attacks:none: module 'own_attacks' has no attribute"),
        ({"method": "python:own_attacks:constant"}, r"own_attacks:constant: it is a int, which cannot be"),
        ({"method": "python:own_attacks:pgd", "args": {"k": 1}}, r"own_attacks:pgd: got an unexpected keyword"),
    ],
)  # fmt: skip
def test_what_can_be_told_beforehand(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_foreign(foreign(**settings), (1, 8, 8), 10)


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "torchattack:MIFGSM", "towards": "random"},
        {"method": "torchattack:FGSM", "steps": 1, "step": EPS},
        {"method": "torchattack:Admix", "args": {"num_classes": 10}},
        {"method": "torchattack:FIA", "args": {"feature_layer_cfg": "net.layer2"}},
        {"method": "python:own_attacks:pgd", "args": {"decay": 1.0}, "towards": "next"},
        {"method": "python:own_attacks:draws"},
    ],
)
def test_what_passes(settings: dict) -> None:
    check_foreign(foreign(**settings), (1, 8, 8), 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "torchattack:"}, "method must be written as torchattack:NAME"),
        ({"method": "python:module"}, "method must be written as python:module:callable"),
        ({"method": "other:x"}, "torchattack:NAME, autoattack:VERSION or python:module:callable"),
        ({"eps": 8}, r"did you mean 8/255\?"),
        ({"steps": 0}, "steps must be from 1 to 100,000, not 0"),
        ({"norm": "l1"}, "norm must be one of linf, l2, not l1"),
        ({"towards": "there"}, "towards must be one of away, column"),
        ({"args": {"eps": 1}}, r"args\.eps: eps, step, steps and towards are keys beside args"),
    ],
)
def test_settings_that_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        foreign(**{"method": "torchattack:MIFGSM", **settings})


def test_settings_have_what_is_asked_of_an_attack() -> None:
    attack = ForeignConfig(method="torchattack:MIFGSM", eps="8/255", steps=4)
    assert attack.step == EPS / 4
    assert (attack.gradients, attack.is_targeted, attack.needs_others) == (None, False, False)
    with pytest.raises(InputError, match="eps must be at most 8 in the l2 ball"):
        replace(attack, norm="l2", eps=9.0).for_images(1, 8)
    assert replace(attack, args={"decay": 0.5}).deciding != attack.deciding
