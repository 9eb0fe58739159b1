"""A trial that meets a device error is tried again in another process; one that always does is lost, with the reason.

On several GPUs it is tried in `tests/pipelines/compute/test_failed_gpus.py`.
"""

from pathlib import Path

import pytest
from digits_experiment import SMALL, experiment
from digits_sweep import Swept, write_sweep
from sweeping import space_file

from pipelines.compute.device_failures import FOLDER
from pipelines.run.request import Request
from pipelines.sweep.command import search_settings
from pipelines.sweep.study import Options


@pytest.mark.slow
def test_it_is_tried_again_and_the_others_go_on(
    ray_cluster: None,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    models = experiment(weights)["models"]
    arguments = {"times": {"65": 2, "66": 1_000}, "marker": str(tmp_path / "failed"), **SMALL}
    models["cnn_a"] |= {"factory": "faulty_networks:failing_at", "args": arguments}
    request = Request(write_sweep(tmp_path, weights, models=models), quiet=True)
    space = space_file(tmp_path, {"align.batch_size": {"choices": [65, 66, 64]}})
    result = search_settings(request, Options(space, searcher="grid", max_clean_drop=100))
    trials = {trial["align.batch_size"]: trial for trial in Swept(request, space, result).trials()}
    assert {size: trial["status"] for size, trial in trials.items()} == {"64": "done", "65": "done", "66": "failed"}
    assert "CUDA error: device-side assert triggered" in trials["66"]["reason"]
    for size, times in (("65", 2), ("66", 3)):
        processes = (tmp_path / f"failed{size}").read_text().split()
        assert len(processes) == len(set(processes)) == times  # none went on after its device had failed
    said = capsys.readouterr().err
    assert "5 device errors, after which a worker was started anew" in said
    assert FOLDER not in {file.name for file in Path(result.location).parents[1].iterdir()}
