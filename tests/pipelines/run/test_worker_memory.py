"""The memory that `witness plan` says a worker takes, and what it advises where there is less."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hand_made import IMAGES, HandMade, hand_made

from align_core.memory import PassMemory
from pipelines.cli import main
from pipelines.run.forecast import make_forecast
from pipelines.run.machine import machine_memory
from pipelines.run.request import Request
from pipelines.run.worker_memory import Room, WorkerMemory, worker_memory

GB = 10**9
PIXELS = 64


@pytest.fixture
def experiment(tmp_path: Path) -> HandMade:
    return hand_made(tmp_path, controls=["ensemble"], align={"batch_size": 4})


def by_stage(experiment: HandMade) -> dict[str, WorkerMemory]:
    return {own.stage: own for own in worker_memory(experiment.blueprint())}


def test_each_stage_names_what_takes_the_most(experiment: HandMade) -> None:
    """Of the surrogates the ensemble, whose two networks hold their activations at one time."""
    blueprint = experiment.blueprint()
    memory = {name: network.memory for name, network in blueprint.networks.items()}
    found = {own.stage: own for own in worker_memory(blueprint)}
    gradient = [own.gradient for name in ("near", "seer") if (own := memory[name])]
    assert all(own is not None and own.per_image > 0 for own in gradient)
    own = memory["aligned"]
    assert own is not None and own == memory["near"]

    craft, evaluate, align = found["craft"], found["evaluate"], found["align"]
    assert (craft.of, craft.images, craft.key) == ("ensemble", IMAGES, "compute.pass")
    assert craft.per_image == int(1.2 * sum(own.per_image for own in gradient if own))
    assert (evaluate.of, evaluate.images, evaluate.key) == ("aligned", IMAGES, "compute.chunk")
    per_image = own.predicting.per_image + PIXELS  # as 8 bits, too
    assert evaluate.per_image == int(1.2 * per_image)
    weights = sum(own.weights for own in memory.values() if own)  # all networks, each once: aligned is one of them
    weights -= memory["other"].weights if memory["other"] else 0  # which has no role
    assert evaluate.bytes == int(1.2 * (weights + IMAGES * per_image)) + 550 * 10**6
    assert (align.of, align.images, align.key) == ("aligned", 4, "align.batch_size")


@pytest.mark.parametrize(
    ("setting", "stage", "images"),
    [
        ({"compute": {"chunk": 5}}, "craft", 5),
        ({"compute": {"chunk": IMAGES, "pass": 7}}, "craft", 7),
        ({"compute": {"chunk": 5}}, "evaluate", 5),
        ({"align": {"batch_size": 2}}, "align", 2),
        ({"align": {"batch_size": 4, "workers": 2}}, "align", 2),
        ({"align": {"batch_size": 4, "accumulate": 2}}, "align", 2),
    ],
)
def test_the_settings_decide_how_many_images_are_in_memory(
    tmp_path: Path, setting: dict, stage: str, images: int
) -> None:
    assert by_stage(hand_made(tmp_path, **setting))[stage].images == images


def test_a_batch_is_divided_among_workers_and_parts(tmp_path: Path) -> None:
    assert by_stage(hand_made(tmp_path, align={"batch_size": 4, "workers": 2, "accumulate": 2}))["align"].divided == 4


def test_the_batch_of_a_variant_is_its_own_key(tmp_path: Path) -> None:
    variants = {"big": {"align": {"batch_size": 4}}, "warm": {"align": {"temperature": 9}}}
    found = by_stage(hand_made(tmp_path, align={"batch_size": 2}, variants=variants))["align"]
    assert (found.of, found.key, found.images) == ("big", "variants.big.align.batch_size", 4)
    said = replace(found, bytes=8 * GB, per_image=GB, room=Room("a GPU", 6 * GB, 1)).warning()
    assert said is not None and "(or raise variants.big.align.accumulate or variants.big.align.workers" in said


def test_the_workers_of_a_stage_are_its_own_key(tmp_path: Path) -> None:
    found = by_stage(hand_made(tmp_path, compute={"workers": 1, "craft": {"workers": 2}}))
    assert [found[stage].room.key for stage in ("craft", "evaluate")] == ["compute.craft.workers", "compute.workers"]
    said = replace(found["craft"], bytes=8 * GB, room=replace(found["craft"].room, bytes=10 * GB, workers=2)).warning()
    assert said is not None and said.endswith("; so do fewer compute.craft.workers")


def test_copies_of_an_image_are_in_a_pass_with_it(tmp_path: Path) -> None:
    attacks = {"vmi": {"method": "vmi", "eps": "8/255", "steps": 2, "samples": {"name": "variance", "count": 3}}}
    assert by_stage(hand_made(tmp_path, attacks=attacks))["craft"].images == 4 * IMAGES


@pytest.mark.parametrize(("cards", "accelerator"), [(0, "auto"), (1, "auto"), (1, "cpu")])
def test_on_a_gpu_it_is_what_networks_take_there(
    experiment: HandMade, monkeypatch: pytest.MonkeyPatch, cards: int, accelerator: str
) -> None:
    monkeypatch.setattr("pipelines.run.worker_memory.gpu_memory", lambda: [16 * GB] * cards)
    experiment.write(compute={"accelerator": accelerator})
    blueprint = experiment.blueprint()
    near = blueprint.networks["near"]
    assert near.memory is not None
    attending = replace(near.memory, on_gpu=replace(near.memory, gradient=PassMemory(0, 10**6)))
    blueprint.networks["near"] = replace(near, memory=attending)
    craft = worker_memory(blueprint)[0]
    assert (craft.per_image == int(1.2 * 10**6)) is (cards == 1 and accelerator == "auto")


NEED = WorkerMemory("craft", "aligned", "compute.pass", 100, 8 * GB, 7 * GB // 100, Room("this machine", 16 * GB, 1))


@pytest.mark.parametrize(
    ("need", "said"),
    [
        (NEED, None),
        (replace(NEED, bytes=None), None),
        (replace(NEED, room=Room("a GPU", None, 1)), None),
        (
            replace(NEED, room=Room("this machine", 16 * GB, 2)),
            "compute.pass: a worker of the stage craft takes 8.0 GB with 100 images in a pass (aligned); this machine "
            "has 16.0 GB, and 2 share it: compute.pass of at most 94 fits (tables that were crafted with another one "
            "are then made anew); so do fewer compute.workers",
        ),
        (
            replace(NEED, room=Room("a GPU", 4 * GB, 1)),
            "compute.pass: a worker of the stage craft takes 8.0 GB with 100 images in a pass (aligned); a GPU has "
            "4.0 GB: compute.pass of at most 40 fits (tables that were crafted with another one are then made anew)",
        ),
        (
            replace(NEED, stage="align", key="align.batch_size", room=Room("a GPU", GB, 1)),
            "align.batch_size: a worker of the stage align takes 8.0 GB with 100 images in a worker's batch (aligned); "
            "a GPU has 1.0 GB: no align.batch_size fits",
        ),
        (
            replace(NEED, stage="align", key="align.batch_size", room=Room("a GPU", 4 * GB, 1), divided=6),
            "align.batch_size: a worker of the stage align takes 8.0 GB with 100 images in a worker's batch (aligned); "
            "a GPU has 4.0 GB: align.batch_size of at most 240 fits (or raise align.accumulate or align.workers, which "
            "divide it)",
        ),
        (
            replace(NEED, stage="align", of="m", key="models.m.train.batch_size", room=Room("a GPU", 4 * GB, 1)),
            "models.m.train.batch_size: a worker of the stage align takes 8.0 GB with 100 images in a batch (m); a GPU "
            "has 4.0 GB: models.m.train.batch_size of at most 40 fits (the model is then trained anew)",
        ),
    ],
)
def test_what_does_not_fit_is_said_with_what_would(need: WorkerMemory, said: str | None) -> None:
    assert need.warning() == said


def test_plan_prints_it_and_warns_first(
    experiment: HandMade, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.run.worker_memory.machine_memory", lambda: 500 * 10**6)
    assert main(["plan", str(experiment.file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.startswith("memory"))
    assert f"craft 550.0 MB a worker (ensemble, {IMAGES} images in a pass), evaluate 550." in line
    assert [line for line in lines if "compute.pass: a worker of the stage craft takes 550.0 MB" in line]
    assert main(["plan", str(experiment.file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [own["stage"] for own in found["memory"]] == ["craft", "evaluate", "align"]
    assert found["notes"][0].startswith("compute.pass: ")


@pytest.mark.parametrize("kept", [None, ("weights", "predicting", "gradient", "training")])
def test_where_an_earlier_version_inspected_a_model_it_is_unknown(
    experiment: HandMade, kept: tuple[str, ...] | None
) -> None:
    blueprint = experiment.finish()
    blueprint.inspected.save(blueprint.store)
    before = {name: network.identity for name, network in blueprint.networks.items()}
    known = blueprint.store.read_json(".seen/models.json")
    assert known
    for own in known.values():
        memory = own.pop("memory")
        if kept is not None:
            own["memory"] = {name: memory[name] for name in kept}
    blueprint.store.write_json(".seen/models.json", known)
    found = make_forecast(Request(experiment.file, quiet=True))
    assert [own.line for own in found.memory] == ["craft unknown", "evaluate unknown", "align unknown"]
    assert {name: network.identity for name, network in experiment.blueprint().networks.items()} == before


def test_a_container_may_have_less_than_the_machine(tmp_path: Path) -> None:
    everything = machine_memory(tmp_path)
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    assert machine_memory(tmp_path) == everything > GB
    (group / "memory.max").write_text("536870912\n")
    assert machine_memory(tmp_path) == 2**29
