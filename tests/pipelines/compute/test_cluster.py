"""What a worker reserves of a cluster, how many workers fit, and which settings are refused before any work."""

from pathlib import Path

import pytest
from digits_experiment import Finished

from pipelines.cli import main
from pipelines.compute.cluster import worker_of, workers_that_fit
from pipelines.experiment.config import ComputeConfig
from pipelines.run.command import run


@pytest.mark.usefixtures("ray_cluster")
class TestWorkers:
    """Runs on the shared cluster, which has three CPUs, no GPU and one `mock_gpu`."""

    def test_auto_means_the_cpu_where_there_is_no_gpu(self) -> None:
        worker = worker_of(ComputeConfig(accelerator="auto", threads=2))
        assert (worker.device, worker.threads, worker.cpus, worker.gpus) == ("cpu", 2, 2, 0)

    @pytest.mark.parametrize(
        ("settings", "fit"),
        [
            ({"workers": 2}, 2),
            ({"workers": 64}, 3),
            ({"workers": 2, "threads": 2}, 1),
            ({"workers": 64, "resources": {"mock_gpu": 1}}, 1),
            ({"workers": 3, "resources": {"mock_gpu": 0.5}}, 2),
        ],
        ids=str,
    )
    def test_there_are_as_many_workers_as_fit(self, settings: dict, fit: int) -> None:
        compute = ComputeConfig(**settings)
        assert workers_that_fit(worker_of(compute)) == fit

    def test_a_stage_reserves_what_its_own_settings_say_and_otherwise_the_common_ones(self) -> None:
        compute = ComputeConfig(
            workers=2, resources={"mock_gpu": 1}, evaluate={"workers": 5, "resources": {"mock_gpu": 0.25}}
        )
        crafting, evaluating = (worker_of(compute, stage) for stage in ("craft", "evaluate"))
        assert crafting.resources == {"mock_gpu": 1}
        assert evaluating.resources == {"mock_gpu": 0.25}
        # Crafting takes the whole mock GPU; evaluation takes a quarter, and three CPUs are the limit.
        assert (workers_that_fit(crafting), workers_that_fit(evaluating)) == (1, 3)

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ("compute.resources={mock_gpu: 2}", "mock_gpu: 2 wanted, 1 there"),
            ("compute.resources={unheard_of: 1}", "unheard_of: 1 wanted, 0 there"),
            ("compute.threads=64", "CPU: 64 wanted, 3 there"),
            ("compute.accelerator=cuda", "GPU: 1 wanted, 0 there"),
            ("compute.evaluate.resources={mock_gpu: 2}", "mock_gpu: 2 wanted, 1 there"),
            ("align.workers=64", "align.workers: aligned wants 64 at once, and this cluster has room for"),
        ],
    )
    def test_workers_that_can_never_fit_are_refused_with_the_numbers(
        self, finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, message: str
    ) -> None:
        assert main(["run", str(finished.file), "--output", str(tmp_path / "runs"), "--set", setting]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "setting",
    ["compute.resources={mock_gpu: 1}", "compute.craft.resources={mock_gpu: 0.4}", "compute.workers=64"],
    ids=["one mock GPU", "two on a mock GPU", "more workers than CPUs"],
)
def test_work_is_finished_even_if_workers_hold_all_resources(finished: Finished, tmp_path: Path, setting: str) -> None:
    """Workers that hold every CPU leave none for tasks beside them, such as joins, which must not deadlock."""
    request, folder = finished.copied(tmp_path, "adversarial/source", overrides=[setting])
    assert run(request, ("craft",)).made == {"craft": 6}
    assert len(list((folder / "adversarial/source").glob("*/*.parquet"))) == 2
