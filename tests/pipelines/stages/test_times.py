"""How long crafting took: added up by table and kind of worker, kept between runs, and never believed when edited."""

from pathlib import Path

import pandas as pd
import pytest
from hand_made import HandMade, hand_made

from pipelines.report.page import computed_report, make_report
from pipelines.run.verification import Verification
from pipelines.run.verify_report import check_report
from pipelines.stages.times import FILE, CraftingTimes, Spent
from pipelines.storage.store import Store


def test_times_add_up_over_chunks_and_runs(tmp_path: Path) -> None:
    store = Store(str(tmp_path), "tiny")
    first = CraftingTimes(store)
    first.note("table", "cpu, 1 thread", 100, 2.0)
    first.note("table", "cpu, 1 thread", 50, 1.5)
    first.note("other", "a GPU", 50, 0.5)
    first.save()
    second = CraftingTimes(store)
    second.note("table", "cpu, 1 thread", 10, 0.25)
    second.note("table", "a GPU", 40, 0.125)
    second.save()
    kept = CraftingTimes(store)
    assert kept.of("table") == [Spent("a GPU", 40, 0.125), Spent("cpu, 1 thread", 160, 3.75)]
    assert kept.of("other") == [Spent("a GPU", 50, 0.5)]
    assert kept.of("unknown") == []


@pytest.mark.parametrize("spent", ["3", [], [0, 1.0], [1, 0.0], [1, -1.0], ["1", 1.0], [1, 2.0, 3], [1, None]])
def test_what_somebody_edited_is_left_out(tmp_path: Path, spent: object) -> None:
    store = Store(str(tmp_path), "tiny")
    store.write_json(FILE, {"table": {"cpu, 1 thread": spent, "a GPU": [2, 1.0]}, "broken": 5})
    times = CraftingTimes(store)
    assert times.of("table") == [Spent("a GPU", 2, 1.0)]
    assert times.of("broken") == []


@pytest.fixture
def experiment(tmp_path: Path) -> HandMade:
    return hand_made(tmp_path)


def test_the_table_has_a_row_for_each_kind_of_worker(experiment: HandMade) -> None:
    blueprint = experiment.finish()
    times = CraftingTimes(blueprint.store)
    table = blueprint.adversarial(blueprint.by_name["aligned"], "mi")
    times.note(table.fingerprint, "cpu, 1 thread", 8, 2.0)
    times.note(table.fingerprint, "a GPU", 4, 0.125)
    times.save()
    report, _ = make_report(blueprint)
    rows = pd.read_csv(experiment.report / "times.csv").to_dict("records")
    common = {"surrogate": "aligned", "attack": "mi", "gradients": 4}
    (made, *rows), (of_fine_tune, *crafted) = rows, report.times
    assert rows == [
        common | {"worker": "a GPU", "images": 4, "seconds": 0.125, "images_per_second": 32.0},
        common | {"worker": "cpu, 1 thread", "images": 8, "seconds": 2.0, "images_per_second": 4.0},
    ]
    assert rows == crafted
    # The card says a second, and the alignment is an epoch over four training images.
    assert of_fine_tune == {
        "surrogate": "aligned", "attack": "(fine-tune)", "worker": "", "gradients": None, "images": 4, "seconds": 1.0,
        "images_per_second": 4.0,
    }  # fmt: skip
    assert {key: value for key, value in made.items() if key not in ("worker", "gradients")} == {
        key: value for key, value in of_fine_tune.items() if key not in ("worker", "gradients")
    }


@pytest.mark.parametrize("seconds", [None, "1", 0.0, -1.0, float("inf")])
def test_a_fine_tune_whose_card_does_not_say_how_long_it_took_has_no_row(experiment: HandMade, seconds: object) -> None:
    blueprint = experiment.finish()
    card = blueprint.store.read_json("models/aligned/card.json") or {}
    blueprint.store.write_json("models/aligned/card.json", {**card, "seconds": seconds})
    report = computed_report(blueprint)
    assert report.times == []


def test_further_crafting_is_no_finding_of_verify_but_an_edit_is(experiment: HandMade) -> None:
    blueprint = experiment.finish()
    make_report(blueprint)
    times = CraftingTimes(blueprint.store)
    times.note(blueprint.adversarial(blueprint.by_name["aligned"], "mi").fingerprint, "cpu, 1 thread", 8, 2.0)
    times.save()
    found = Verification()
    check_report(blueprint, found)
    assert found.findings == [] and found.trusted == []
    (experiment.report / "times.csv").write_text("surrogate\n")
    check_report(blueprint, found)
    (finding,) = found.findings
    assert "report/times.csv: edited, damaged or missing since it was made" in finding
