"""A device error ends the worker that meets it, and another tries the work again, on the CPUs of this machine too."""

import os
from pathlib import Path
from typing import Any

import pytest
from hand_made import HandMade, hand_made
from one_worker import WORKER

from pipelines.compute.device_failures import FOLDER, Device, DeviceFailure, left_alone
from pipelines.compute.fine_tune import fine_tune_alone
from pipelines.compute.ray_train import fine_tune
from pipelines.failure import RunFailed
from pipelines.run.command import run
from pipelines.run.request import Request
from pipelines.stages.payload import fine_tune_of

FIRST, SECOND = (Device("n", gpu, f"GPU {gpu} of node n") for gpu in "01")


def failed(device: Device, work: str) -> DeviceFailure:
    return DeviceFailure(device, work, "CUDA error: unspecified launch failure")


@pytest.mark.parametrize(
    ("failures", "alone"),
    [
        ([], set()),
        ([failed(FIRST, "a")], set()),
        ([failed(FIRST, "a"), failed(SECOND, "b")], set()),
        ([failed(FIRST, "a"), failed(SECOND, "b"), failed(FIRST, "b")], {FIRST}),
        ([failed(FIRST, "a"), failed(FIRST, "a")], {FIRST}),
        ([failed(FIRST, "a"), failed(FIRST, "a"), failed(SECOND, "a")], set()),  # the work is at fault
        ([failed(Device("n", "", "the CPUs"), work) for work in "abcd"], set()),
    ],
)
def test_a_gpu_that_failed_twice_is_left_alone_but_not_for_work_that_fails_everywhere(
    failures: list[DeviceFailure], alone: set[Device]
) -> None:
    assert set(left_alone(failures)) == alone


def failing(marker: Path, times: int) -> dict[str, Any]:
    arguments = {"width": 2, "marker": str(marker), "times": times, "spared": os.getpid()}
    return {"factory": "faulty_networks:failing", "args": arguments}


def experiment(folder: Path, times: int) -> HandMade:
    """The experiment by hand; the source and one target fail so many times. All of its tables are there but theirs."""
    made = hand_made(folder)
    models = made.content()["models"]
    for name in ("near", "twin"):
        models[name] |= failing(folder / name, times)
    made.write(models=models)
    blueprint = made.finish()
    for table in ("adversarial/source/pgd", "outcomes/aligned/pgd/twin"):
        blueprint.store.delete_folder(table)
    return made


def tables(made: HandMade) -> dict[str, bytes]:
    folder = made.output / "by-hand"
    kinds = ("adversarial/source/pgd", "outcomes/aligned/pgd/twin")
    return {str(file.relative_to(folder)): file.read_bytes() for kind in kinds for file in folder.glob(f"{kind}/*")}


@pytest.mark.usefixtures("ray_cluster")
class TestChunks:
    def test_another_process_makes_the_same_tables(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
        made = experiment(tmp_path, times=1)
        request = Request(made.file, quiet=True)
        run(request, ("craft", "evaluate"))
        unhurt = capsys.readouterr().err
        assert "after which a worker was started anew" in unhurt
        assert (tmp_path / "near").exists() and (tmp_path / "twin").exists()
        after_faults = tables(made)
        assert len(after_faults) == 2
        store = made.blueprint().store
        assert FOLDER not in store.listing()
        for name in after_faults:
            store.delete(name)
        run(request, ("craft", "evaluate"))
        assert tables(made) == after_faults
        assert "started anew" not in capsys.readouterr().err

    def test_where_it_comes_again_the_table_fails_and_the_others_are_made(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
        made = experiment(tmp_path, times=1_000)
        made.blueprint().store.delete_folder("adversarial/witness/mi")
        said = r"1 tables failed.*\n.*adversarial/source/pgd: chunk 0: CUDA error: device-side assert triggered"
        with pytest.raises(RunFailed, match=said):
            run(Request(made.file, quiet=True), ("craft",))
        assert "3 device errors" in capsys.readouterr().err
        processes = (tmp_path / "near").read_text().split()
        assert len(processes) == len(set(processes)) == 3  # none went on after its device had failed
        assert len(made.blueprint().store.listing()["adversarial/witness/mi"]) == 1


def test_a_fine_tune_is_tried_again_from_its_checkpoint(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    made = hand_made(tmp_path)
    models = made.content()["models"]
    models["near"] |= failing(tmp_path / "near", times=2)
    made.write(models=models, align={"epochs": 3, "batch_size": 2, "augment": {"crop": "none"}})
    blueprint = made.blueprint()
    (making,) = (making for making in blueprint.alignments() if making.name == "aligned")
    job = fine_tune_of(blueprint, making, WORKER)
    weights, curve, *_ = fine_tune(job, making.run_name, WORKER)
    processes = (tmp_path / "near").read_text().split()
    assert len(processes) == len(set(processes)) == 2
    whole, unbroken, *_ = fine_tune_alone(job, "cpu", "elsewhere")  # here the network fails no more
    assert weights == whole
    assert [row["loss"] for row in curve] == [row["loss"] for row in unbroken]
