"""What an experiment consists of is found out once, and again where networks were made since."""

from pathlib import Path

from hand_made import hand_made


def test_tables_are_made_once_and_follow_the_networks(tmp_path: Path) -> None:
    experiment = hand_made(tmp_path)
    blueprint = experiment.blueprint()
    before = blueprint.cell("aligned", "pgd", "twin").table
    assert blueprint.cell("aligned", "pgd", "twin").table is before
    assert blueprint.chunks is blueprint.chunks and blueprint.rows is blueprint.rows
    assert blueprint.all_adversarial() is blueprint.all_adversarial()
    assert blueprint.clean()["twin"] is blueprint.clean()["twin"]
    blueprint.refresh()
    assert blueprint.cell("aligned", "pgd", "twin").table is before
    experiment.finish()
    assert blueprint.cell("aligned", "pgd", "twin").table.fingerprint == before.fingerprint
    blueprint.refresh()
    after = blueprint.cell("aligned", "pgd", "twin").table
    assert after.fingerprint != before.fingerprint and after.is_finished(blueprint.store.listing())
    assert blueprint.missing("evaluate") == []


def test_a_cell_is_found_by_its_names(tmp_path: Path) -> None:
    blueprint = hand_made(tmp_path).blueprint()
    cells = list(blueprint.cells())
    assert len(cells) == 3 * 2 * 4  # surrogates, attacks, the surrogate itself and three targets
    assert all(blueprint.cell(cell.surrogate, cell.attack, cell.target) is cell for cell in cells)
