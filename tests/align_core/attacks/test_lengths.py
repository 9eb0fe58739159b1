"""Radii as messages have them, and when two balls hold the same 8-bit images."""

import pytest

from align_core.attacks.lengths import ball_named, is_same_ball, lost_to_8_bits


@pytest.mark.parametrize(
    ("eps", "norm", "name"),
    [
        (8 / 255, "linf", "8/255"),
        (0.0313725, "linf", "8/255"),
        (0.031, "linf", "7.905/255 (eps 0.031)"),
        (0.0314, "linf", "8.007/255 (eps 0.0314)"),
        (0.031, "l2", "0.031"),
    ],
)
def test_a_radius_is_named_in_levels_where_these_are_whole(eps: float, norm: str, name: str) -> None:
    assert ball_named(eps, norm) == name


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ((4 / 255, "linf"), (0.015686, "linf"), True),
        ((4 / 255, "linf"), (0.0157, "linf"), True),  # 4.0035/255
        ((4 / 255, "linf"), (0.0156, "linf"), False),  # 3.978/255, which permits 3
        ((0.5, "linf"), (0.5, "l2"), False),
        ((0.5, "l2"), (0.5, "l2"), True),
        ((0.5, "l2"), (0.501, "l2"), False),
    ],
)
def test_balls_are_the_same_where_as_many_levels_are_permitted(
    one: tuple[float, str], other: tuple[float, str], is_same: bool
) -> None:
    assert is_same_ball(one, other) == is_same_ball(other, one) == is_same


@pytest.mark.parametrize("whole", [1, 2, 4, 8, 16, 255])
def test_whole_levels_lose_nothing(whole: int) -> None:
    assert lost_to_8_bits(whole / 255, "linf") is None


def test_what_is_lost_is_said_with_the_mend() -> None:
    assert lost_to_8_bits(0.063, "linf") == (  # nearer to the level that it permits than to the next
        "eps 0.063 is 16.065/255; images are stored with 8 bits, so that they change by at most 16/255"
    )
    assert str(lost_to_8_bits(0.0627, "linf")).endswith("by at most 15/255; `eps: 16/255` permits 16")
