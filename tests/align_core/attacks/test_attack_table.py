"""The table in align_core/ATTACKS.md says of every preset what is measured here."""

import os

import pytest
import torch
from attack_setting import Setting, attack_of
from attack_table import FILE, HEAD, PACKAGES, as_markdown, measured, read_table
from sklearn.datasets import load_digits
from test_attack_oracles import ORACLES
from torch import nn
from torch.nn import functional as F

from align_core.attacks import PRESETS

WRITES = "WITNESS_WRITE_TABLE" in os.environ


@pytest.fixture(scope="module")
def digits() -> Setting:
    """A small network, trained on digits of 8 x 8 pixels, and twenty of others that it classifies correctly."""
    data = load_digits()
    images = torch.from_numpy(data.images * 255 / 16).round().to(torch.uint8)[:, None]
    labels = torch.from_numpy(data.target).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(16 * 4 * 4, 10),
        )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(60):
        loss = F.cross_entropy(net(images[:1000] / 255), labels[:1000])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        right = (net(images[1000:] / 255).argmax(dim=1) == labels[1000:]).nonzero()[:20, 0] + 1000
    return Setting(net.eval(), images[right], labels[right])


@pytest.mark.skipif(WRITES, reason="the table is written, not read")
def test_every_preset_has_a_row_that_says_what_the_preset_says() -> None:
    table = read_table()
    assert FILE.read_text().startswith(HEAD)
    assert list(table) == list(PRESETS)
    assert PACKAGES.keys() == ORACLES.keys() | {"gra", "admix", "di", "bsr"}  # what test_attack_oracles compares
    for method, row in table.items():
        preset, gradients = PRESETS[method], str(attack_of(method).gradients)
        assert (row["paper"], row["year"]) == (preset.paper, str(preset.year))
        assert row["gradients"] == row["counted"] == gradients, method
        assert row["compared with"] == PACKAGES.get(method, "-")
        assert float(row["equal pixels"].removesuffix(" %")) > 99


@pytest.mark.slow
@pytest.mark.skipif(WRITES, reason="the table is written, not read")
@pytest.mark.parametrize("method", PRESETS)
def test_a_row_is_what_is_measured(method: str, tiny: Setting, digits: Setting) -> None:
    """Within a pixel or an image or two: other CPUs round differently."""
    row, found = read_table()[method], measured(method, tiny, digits)
    assert float(row["equal pixels"].removesuffix(" %")) == pytest.approx(100 * found.equal, abs=1)
    assert float(row["success"].removesuffix(" %")) == pytest.approx(100 * found.success, abs=10)
    assert float(row["counted"]) == found.counted


@pytest.mark.slow
@pytest.mark.skipif(not WRITES, reason="only when it is asked for")
def test_the_table_is_written(tiny: Setting, digits: Setting) -> None:
    FILE.write_text(as_markdown({method: measured(method, tiny, digits) for method in PRESETS}))
    assert list(read_table()) == list(PRESETS)
