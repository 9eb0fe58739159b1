"""What is known of every preset, measured: agreement, white-box success and cost. It is written as a table."""

from pathlib import Path
from typing import NamedTuple

import torch
from attack_setting import TARGETED, Setting, attack_of, quick
from plain_attack import attacked
from test_attack_cost import rows_per_image
from test_attack_oracles import STEPS

from align_core.attacks import PRESETS

FILE = Path(__file__).parents[3] / "align_core" / "ATTACKS.md"
EPS, EPS_L2 = 0.3, 3.0
PACKAGES = {
    **dict.fromkeys(("fgsm", "mi", "mig", "gra", "admix", "di", "bsr"), "torchattack"),
    **dict.fromkeys(("ifgsm", "pgd", "ni", "sini", "vmi", "vni", "ti", "pgd_l2", "fgm_l2"), "torchattacks"),
}
"""Preset -> the package with which `test_attack_oracles` compares it, besides the second implementation."""

HEAD = f"""# What is known of every attack

For every preset, `tests/align_core/attacks/test_attack_table.py` measured:

* *equal pixels*: share of pixels that are those of a second, plain implementation in the tests, written from the paper,
  which draws the same random numbers. The attack has at most three steps, copies and points here; a random network and
  four images of noise show every mistake at once.
* *compared with*: the package whose code is compared besides, in `test_attack_oracles.py`, which asks for more than
  99 % equal pixels in {STEPS} steps (one for Admix and attacks of one step). There a random part is switched off, or
  the package is given our draws. A dash: neither torchattack nor torchattacks has the attack as its paper says.
* *success*: of twenty images of digits that a small network classifies correctly, how many it gets wrong when they are
  attacked at the preset's own number of steps, copies and points; of targeted attacks, how many it takes for the class
  that they are led to. The radius is {EPS}, or {EPS_L2} in the l2 ball. The network is the one attacked: this says
  nothing of transfer. Few pixels are left of a digit of 8 x 8 that is cut into blocks or turned, so that BSR and OPS
  find little here; `test_attack_methods.py` asks for every image on a CIFAR-10 ResNet-20, but of four images.
* *gradients*: per image, as the preset states them, and as hooks counted them on the network.

The table is written anew by
`WITNESS_WRITE_TABLE=1 pytest -m "slow or not slow" tests/align_core/attacks/test_attack_table.py`.

"""
COLUMNS = ("preset", "paper", "year", "equal pixels", "compared with", "success", "gradients", "counted")


class Measured(NamedTuple):
    """What was measured of a preset: two shares, and gradients per image."""

    equal: float
    success: float
    counted: float


def measured(method: str, tiny: Setting, digits: Setting) -> Measured:
    """Compares the preset with the plain one on one setting, and attacks the other as the paper has it."""
    short = attack_of(method, **quick(method, most=3))
    equal = (tiny.craft(short) == attacked(tiny, short)).float().mean().item()
    whole = attack_of(method, eps=EPS_L2 if attack_of(method).norm == "l2" else EPS)
    with torch.no_grad():
        after = digits.net(digits.crafted(whole, 0, 1000) / 255).argmax(dim=1)
    fooled = after == digits.wanted if method in TARGETED else after != digits.labels
    return Measured(equal, fooled.float().mean().item(), rows_per_image(attack_of(method), 1000))


def as_markdown(found: dict[str, Measured]) -> str:
    """The whole file: a row for each preset."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for method, own in found.items():
        preset = PRESETS[method]
        cells = [
            f"`{method}`", preset.paper, str(preset.year), f"{100 * own.equal:.1f} %", PACKAGES.get(method, "-"),
            f"{100 * own.success:.0f} %", str(attack_of(method).gradients), f"{own.counted:g}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return HEAD + "\n".join(lines) + "\n"


def read_table() -> dict[str, dict[str, str]]:
    """Preset -> column -> cell, as the file has it."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in FILE.read_text().splitlines()
        if line.startswith("| `")
    ]
    return {cells[0].strip("`"): dict(zip(COLUMNS, cells, strict=True)) for cells in rows}
