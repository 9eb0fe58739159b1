"""A user's factory may raise anything, print, exit and change torch's settings: the result alone gets through."""

import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from align_core.errors import InputError, named
from align_core.model_config import ModelConfig, TrainConfig
from align_core.models import build, load
from align_core.own_code import own_code
from align_core.trial import try_model
from align_core.weights import read_weights, to_bytes

FACTORY = """
import os, random, sys
import numpy as np
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
def key_error():
    {}["depth"]
def zero_division():
    1 / 0
def empty_assertion():
    assert False
def exits():
    sys.exit(0)
def exits_with_words():
    sys.exit("no licence")
def interrupted():
    raise KeyboardInterrupt
def a_class():
    return nn.Flatten
def compiled():
    return torch.compile(net())
def half():
    return net().half()
def double():
    return net().double()
def meta():
    return net().to("meta")
def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
def within_module():
    outer = nn.Module()
    outer.module = net()
    outer.forward = lambda images: outer.module(images)
    return outer
def chatty():
    print("python says hello")
    os.system("echo the shell says hello")
    return net()
def meddling():
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(0)
    return net()
"""


@pytest.fixture(autouse=True)
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "odd_factories.py").write_text(FACTORY)
    (tmp_path / "exits_at_import.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "key_error_at_import.py").write_text("{}['x']\n")
    for module in ("odd_factories", "exits_at_import", "key_error_at_import"):
        sys.modules.pop(module, None)


def built(factory: str, module: str = "odd_factories") -> torch.nn.Module:
    return build(ModelConfig(factory=f"{module}:{factory}", train=TrainConfig()), classes=2, channels=3)


@pytest.mark.parametrize(
    ("factory", "complaint"),
    [
        ("key_error", "factory odd_factories:key_error: calling it raises KeyError: 'depth'"),
        ("zero_division", "calling it raises ZeroDivisionError: division by zero"),
        ("empty_assertion", "calling it raises AssertionError, without a message"),
        ("exits", "calling it raises SystemExit: 0"),
        ("exits_with_words", "calling it raises SystemExit: no licence"),
        ("a_class", "returned the class Flatten, not a network made from it"),
        ("meta", "on the meta device"),
        ("lazy", "layers without a size"),
    ],
)
def test_what_a_factory_raises_becomes_one_message(factory: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        built(factory)


@pytest.mark.parametrize(
    ("module", "kind"), [("exits_at_import", "SystemExit: 0"), ("key_error_at_import", "KeyError: 'x'")]
)
def test_so_does_what_its_module_raises(module: str, kind: str) -> None:
    with pytest.raises(InputError, match=f"factory {module}:net: importing it raises {kind}"):
        built("net", module)


def test_an_interruption_is_the_users_own() -> None:
    with pytest.raises(KeyboardInterrupt):
        built("interrupted")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"timm": "test_vit", "args": {"depth": 0, "img_size": "a"}}, "timm: test_vit: "),
        ({"timm": "test_resnet", "args": {"layers": [1, 1, 1, {}]}}, "timm: test_resnet: TypeError"),
        ({"torchvision": "resnet18", "args": {"replace_stride_with_dilation": 1}}, "torchvision: resnet18: TypeError"),
        ({"torchvision": "squeezenet1_1", "args": {"dropout": 7}}, "torchvision: squeezenet1_1: ValueError"),
    ],
)
def test_so_does_what_a_librarys_constructor_raises(settings: dict, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        build(ModelConfig(**settings, train=TrainConfig()), classes=2, channels=3)


def test_what_it_prints_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    built("chatty")
    print("a result")
    output, errors = capfd.readouterr()
    assert output == "a result\n"
    assert "python says hello" in errors
    assert "the shell says hello" in errors


@pytest.mark.parametrize("first_out", [0, 1])
def test_threads_that_overlap_leave_standard_output_as_it_was(
    first_out: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each of two that puts back what it found would leave it with standard error, where the other had put it."""
    go_in, go_out = [threading.Event(), threading.Event()], [threading.Event(), threading.Event()]

    def use(number: int) -> None:
        with own_code("printing"):
            go_in[number].set()
            assert go_out[number].wait(10)
            print(f"thread {number}")
            subprocess.run(["echo", f"the shell of thread {number}"], check=True)

    stream, threads = sys.stdout, [threading.Thread(target=use, args=(number,)) for number in range(2)]
    for number, thread in enumerate(threads):
        thread.start()
        assert go_in[number].wait(10)
    for number in (first_out, 1 - first_out):
        go_out[number].set()
        threads[number].join(10)
    assert sys.stdout is stream
    print("a result")
    subprocess.run(["echo", "a result of the shell"], check=True)
    output, errors = capfd.readouterr()
    assert output.splitlines() == ["a result", "a result of the shell"]
    assert sorted(errors.splitlines()) == [f"{what}thread {n}" for what in ("the shell of ", "") for n in range(2)]


def test_standard_error_may_be_exchanged_meanwhile(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is where a cluster is connected to in another thread, which then closes what it had put there."""
    with open(os.devnull, "w") as passing:
        monkeypatch.setattr(sys, "stderr", passing)
        begun = own_code("printing")
        begun.__enter__()
        monkeypatch.undo()
    print("said")
    begun.__exit__(None, None, None)
    assert capsys.readouterr() == ("", "said\n")


def test_settings_and_seeds_are_afterwards_as_they_were() -> None:
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    built("meddling")
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_threads_are_afterwards_as_many_as_they_were() -> None:
    before = torch.get_num_threads()
    with own_code("counting"):
        torch.set_num_threads(before + 1)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("kind", ["half", "double", "meddling"])
def test_other_types_are_used_as_float32_and_it_is_said(kind: str) -> None:
    trial = try_model(built(kind), "m", (3, 2, 2), 2, crafted_on=True)
    (note,) = trial.notes
    assert note == f"its weights were {'float16' if kind == 'half' else 'float64'}, and are used as float32"
    assert {own.dtype for own in built(kind).parameters()} == {torch.float32}


def test_a_compiled_network_is_taken_out_of_its_wrapping(tmp_path: Path) -> None:
    content = to_bytes(built("net").net.state_dict())
    (tmp_path / "w.safetensors").write_bytes(content)
    config = ModelConfig(factory="odd_factories:compiled", weights=str(tmp_path / "w.safetensors"))
    assert to_bytes(load(config, classes=2, channels=3).net.state_dict()) == content


def test_a_network_whose_only_part_is_called_module(tmp_path: Path) -> None:
    """Its names look like those that DataParallel gives, which are taken away when a file is read."""
    net = built("within_module").net
    (tmp_path / "w.safetensors").write_bytes(to_bytes(net.state_dict()))
    config = ModelConfig(factory="odd_factories:within_module", weights=str(tmp_path / "w.safetensors"))
    loaded = load(config, classes=2, channels=3).net.state_dict()
    assert {name: value.tolist() for name, value in loaded.items()} == {
        name: value.tolist() for name, value in net.state_dict().items()
    }
    assert "1.weight" in read_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (KeyError("depth"), "KeyError: 'depth'"),
        (AssertionError(), "AssertionError, without a message"),
        (SystemExit(0), "SystemExit: 0"),
        (RuntimeError("sizes differ\nand a hint"), "RuntimeError: sizes differ"),
        (OSError(2, "gone"), "OSError: [Errno 2] gone"),
    ],
)
def test_the_type_is_named(problem: BaseException, said: str) -> None:
    assert named(problem) == said.replace("OSError", type(problem).__name__)
