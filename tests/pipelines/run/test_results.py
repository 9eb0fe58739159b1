"""Results from Python are those of the files: tables as DataFrames, images and predictions by image id."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from digits_experiment import Finished, read_table

from align_core.errors import InputError
from align_core.images import ImageSetConfig, open_image_set
from pipelines import Results, RunFailed, load_results, run_experiment
from pipelines.experiment.config import load_experiment


@pytest.fixture(scope="module")
def results(finished: Finished) -> Results:
    return load_results(finished.file)


@pytest.mark.parametrize("table", ["transfer", "contrasts", "surrogates", "times"])
def test_a_table_is_the_csv_file(results: Results, finished: Finished, table: str) -> None:
    stored = pd.read_csv(io.BytesIO((finished.folder / f"report/{table}.csv").read_bytes()), keep_default_na=False)
    found = getattr(results, table)
    assert list(found.columns) == list(stored.columns)
    assert len(found) == len(stored) > 0
    for column in stored:
        numbers = pd.to_numeric(stored[column], errors="coerce")
        if numbers.notna().any():
            np.testing.assert_array_equal(found[column].to_numpy(dtype=float), numbers.to_numpy(dtype=float))
        else:
            assert found[column].fillna("").tolist() == stored[column].tolist()


def test_images_are_the_stored_ones_and_lie_in_the_ball(results: Results, finished: Finished) -> None:
    clean, adversarial = results.clean_images(), results.adversarial_images("aligned", "pgd")
    assert list(adversarial) == list(clean) == clean.ids
    assert len(clean) == 60
    stored = read_table(finished.folder / "adversarial/aligned/pgd").set_index("image_id")
    digits = open_image_set(ImageSetConfig(kind="digits"), 16)
    for image_id in (clean.ids[0], clean.ids[-1]):
        np.testing.assert_array_equal(adversarial[image_id], stored.loc[image_id, "image"])
        np.testing.assert_array_equal(clean[image_id], digits.read(image_id))
    distance = np.abs(adversarial.pixels_NCHW.astype(int) - clean.pixels_NCHW).max()
    assert 0 < distance <= 12
    assert adversarial.labels_N.tolist() == clean.labels_N.tolist() == stored["label"].tolist()


def test_predictions_are_the_stored_ones(results: Results, finished: Finished) -> None:
    for found, folder in (
        (results.outcomes("aligned", "pgd", "mlp"), "outcomes/aligned/pgd/mlp"),
        (results.outcomes("aligned", "fgsm", "@self"), "outcomes/aligned/fgsm/@self"),
        (results.clean_predictions("aligned"), "clean/aligned"),
        (results.clean_predictions("mlp"), "clean/mlp"),
    ):
        pd.testing.assert_frame_equal(found, read_table(finished.folder / folder))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda r: r.adversarial_images("alined", "pgd"), "there is no surrogate 'alined'; did you mean 'aligned'?"),
        (lambda r: r.adversarial_images("aligned", "pdg"), "there is no attack 'pdg'; did you mean 'pgd'?"),
        (lambda r: r.outcomes("aligned", "pgd", "mpl"), "there is no target 'mpl'; did you mean 'mlp'?"),
        (lambda r: r.clean_predictions("mpl"), "there is no model or surrogate 'mpl'; did you mean 'mlp'?"),
    ],
)
def test_a_name_that_there_is_not_is_named_with_the_nearest(results: Results, ask, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        ask(results)
    with pytest.raises(KeyError):
        results.clean_images()["no such image"]


def test_a_finished_experiment_is_returned_without_work(finished: Finished) -> None:

    def times() -> dict[Path, int]:
        files = (file for file in finished.folder.rglob("*") if file.is_file() and file.name != ".lock")
        return {file: file.stat().st_mtime_ns for file in files}

    before = times()
    results = run_experiment(str(finished.file), quiet=True)
    assert results.location == str(finished.folder)
    assert times() == before


def test_what_is_missing_is_said_and_not_made(finished: Finished, tmp_path: Path) -> None:
    finished.copied(tmp_path, "report")
    with pytest.raises(RunFailed, match="report is missing or out of date; `witness report` makes it"):
        load_results(finished.file, output=str(tmp_path))
    with pytest.raises(RunFailed, match=r"`witness align` has to come first"):
        load_results(finished.file, output=str(tmp_path), overrides=["align.temperature=5"])
    assert not list(tmp_path.glob("*/report/*"))


def test_damage_is_said_with_the_way_to_mend_it(finished: Finished, tmp_path: Path) -> None:
    _, folder = finished.copied(tmp_path)
    results = load_results(finished.file, output=tmp_path)
    (file,) = (folder / "adversarial/aligned/pgd").iterdir()
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(RunFailed, match=r"adversarial/aligned/pgd is damaged .* delete this folder"):
        results.adversarial_images("aligned", "pgd")
    (folder / "report/transfer.csv").unlink()
    with pytest.raises(RunFailed, match=r"report cannot be used .* `witness report` makes it again"):
        load_results(finished.file, output=tmp_path)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda file: load_results(3), "an experiment is a file or an Experiment, not int"),
        (lambda file: load_results(file, overrides="seed=1"), "overrides is a list of KEY.PATH=VALUE"),
        (
            lambda file: load_results(load_experiment(file), output="x"),
            "overrides and output apply to an experiment file",
        ),
        (lambda file: load_results(file, output="~nobody-here/x"), "there is no such user; write ./~nobody-here/x"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(finished: Finished, ask, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ask(finished.file)
