"""Random sensible compositions of parts: what holds of every attack, whatever it is made of."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from attack_setting import Setting, attack_of
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from plain_attack import attacked

from align_core.attacks import OBJECTIVES, RULES, VIEWS, AttackConfig, craft

# Without shrinking: a failing attack is printed as it is, and tried again a hundred times it would take minutes.
QUICK: dict[str, Any] = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "phases": [Phase.generate],
    "suppress_health_check": list(HealthCheck),
}


@st.composite
def compositions(
    draw: st.DrawFn, most: int = 3, steps: int = 3, ways: tuple[str, ...] = ("away", "next")
) -> AttackConfig:
    """An attack of random parts that fit each other, with few steps, copies and points."""
    norm = draw(st.sampled_from(["linf", "l2"]))
    momentum = draw(st.sampled_from([0.0, 0.5, 1.0]))
    towards = draw(st.sampled_from(ways))
    objectives = [name for name, entry in OBJECTIVES.items() if towards != "away" or entry.untargeted]
    names = draw(st.lists(st.sampled_from(list(VIEWS)), max_size=2))
    written: dict[str, Any] = {
        "norm": norm,
        "eps": draw(
            st.sampled_from([1 / 255, 2.5 / 255, 8 / 255, 0.3] if norm == "linf" else [1 / 255, 0.1, 0.7, 4.0])
        ),
        "steps": draw(st.integers(1, steps)),
        "momentum": momentum,
        "towards": towards,
        "objective": draw(st.sampled_from(objectives)),
        "random_start": draw(st.booleans()),
        "kernel": draw(st.sampled_from([0, 0, 3, "auto"])),
        "views": [{"name": name, "copies": draw(st.integers(1, most))} for name in names],
        "combine": draw(st.sampled_from(["gradients", "logits"])) if names else "gradients",
    }
    rule = draw(st.sampled_from([None, *RULES]))
    if rule:
        written["samples"] = {"name": rule, "count": draw(st.integers(1, most))}
    if momentum:
        written["normalized"] = draw(st.booleans())
        written["nesterov"] = draw(st.booleans())
        if draw(st.booleans()):
            written |= {"warm_start": 1, "warm_stride": draw(st.sampled_from([1.0, 3.0]))}
        if norm == "linf" and draw(st.booleans()):
            written |= {"step_decay": 0.9, "step_decay_by": draw(st.sampled_from(["momentum", "gradient"]))}
    eps = written.pop("eps")
    return AttackConfig(method="ifgsm", eps=eps, step=eps * draw(st.sampled_from([0.31, 1.0])), **written)


@given(attack=compositions(), seed=st.integers(0, 2**32))
@settings(max_examples=25, **QUICK)
def test_a_composition_is_the_plain_one_pixel_by_pixel(tiny: Setting, attack: AttackConfig, seed: int) -> None:
    few = tiny.rows([0, 1])
    assert (few.craft(attack, seed) == attacked(few, attack, seed)).float().mean() > 0.98


@given(attack=compositions(), levels=st.lists(st.sampled_from([0, 1, 2, 100, 254, 255]), min_size=2, max_size=2))
@settings(max_examples=40, **QUICK)
def test_the_result_lies_in_the_ball_in_whole_levels(tiny: Setting, attack: AttackConfig, levels: list[int]) -> None:
    """In exact whole numbers, also at the ends of the range."""
    few = tiny.rows([0, 1, 2])
    few.images[0], few.images[1, :, :6] = levels[0], levels[1]
    crafted = few.craft(attack)
    assert crafted.dtype == torch.uint8 and crafted.shape == few.images.shape
    away = crafted.long() - few.images.long()
    # 255 eps lies a rounding error above or below the whole number that is meant.
    if attack.norm == "linf":
        assert int(away.abs().max()) <= attack.eps * 255 + 1e-4
    else:
        assert int(away.flatten(1).square().sum(dim=1).max()) <= (attack.eps * 255 + 1e-4) ** 2


@pytest.mark.parametrize("objective", OBJECTIVES)
@given(attack=compositions(ways=("next",)), seed=st.integers(0, 2**32))
@settings(max_examples=12, **QUICK)
def test_a_targeted_attack_raises_the_logit_of_its_class(
    small: Setting, objective: str, attack: AttackConfig, seed: int
) -> None:
    """In six short steps, whatever the parts; all of them maximise something that grows with this logit.

    Blocks and images that change their places are other images to a random network, to which few copies lead anywhere:
    there it is at least half of the images.
    """
    eps, step = (8 / 255, 2 / 255) if attack.norm == "linf" else (0.7, 0.15)
    crafted = small.craft(replace(attack, objective=objective, eps=eps, step=step, steps=6), seed)
    rows = torch.arange(len(small.images)), small.wanted
    with torch.no_grad():
        before, after = (small.net(images / 255)[rows] for images in (small.images, crafted))
    moved = {"operators", "block_shuffle"} & {view["name"] for view in attack.views}
    assert int((after > before).sum()) >= len(small.images) * (0.5 if moved else 0.875)


@given(attack=compositions(), seed=st.integers(0, 2**32))
@settings(max_examples=20, **QUICK)
def test_an_image_is_attacked_alike_in_any_batch_and_pass(tiny: Setting, attack: AttackConfig, seed: int) -> None:
    whole = tiny.crafted(attack, seed, 1000)
    assert torch.equal(whole, tiny.crafted(attack, seed, 1000))  # the same chunk and pass: the same bytes
    assert (whole == tiny.crafted(attack, seed, 1)).float().mean() > 0.99
    assert (whole == tiny.crafted(attack, seed, 5)).float().mean() > 0.99
    rows = [3, 1]  # the order and the other images of a batch are no part of what is drawn
    wanted = tiny.wanted[rows] if attack.is_targeted else None
    ids = [tiny.ids[row] for row in rows]
    some = craft(tiny.net, tiny.images[rows], tiny.labels[rows], ids, attack, seed, wanted_B=wanted, others=tiny.others)
    assert (whole[rows] == some).float().mean() > 0.99


@given(attack=compositions())
@settings(max_examples=20, **QUICK)
def test_the_global_random_state_is_neither_used_nor_changed(tiny: Setting, attack: AttackConfig) -> None:
    few = tiny.rows([0, 1])
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = few.craft(attack)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(few.craft(attack), first)


@given(method=st.sampled_from(["mi", "vmi", "gi", "bsr", "pgn", "admix", "decowa", "ops", "dem", "logit"]),
       budget=st.integers(5, 600))  # fmt: skip
@settings(max_examples=60, **QUICK)
def test_a_budget_is_kept_with_five_steps_or_more(method: str, budget: int) -> None:
    try:
        attack = attack_of(method, budget=budget)
    except ValueError as refusal:
        least = int(str(refusal).split("at least ")[1].split()[0])
        assert budget < least <= 50 and attack_of(method, budget=least).gradients == least
        return
    assert attack.gradients <= budget and attack.steps >= 5
    more = {"steps": attack.steps + 1, "views": attack.views, "samples": attack.samples}
    assert attack_of(method, **more).gradients > budget  # not one step more would fit
    whole = attack_of(method)
    assert attack.step * attack.steps == pytest.approx(min(whole.step * whole.steps, 2 * attack.eps * attack.steps))
