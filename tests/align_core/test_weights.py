"""Weights files: what is found in them, what is refused, that no code in them is run, and their hashes."""

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from align_core.errors import InputError
from align_core.weights import State, hash_weights, load_into, read_weights, to_bytes


def small_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


STATE: State = {name: value.clone() for name, value in small_net().state_dict().items()}
MEAN: State = {name: value / 2 for name, value in STATE.items()}


def saved(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def assert_equal(state: State, expected: State) -> None:
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


class TestReading:
    def test_safetensors(self, tmp_path: Path) -> None:
        save_file(STATE, tmp_path / "w.safetensors")
        assert_equal(read_weights(tmp_path / "w.safetensors"), STATE)

    @pytest.mark.parametrize("name", ["w.SAFETENSORS", "w.pt", "w.bin"])
    def test_safetensors_under_any_name(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(to_bytes(STATE))
        assert_equal(read_weights(tmp_path / name), STATE)

    @pytest.mark.parametrize("modern", [True, False], ids=["zip", "before PyTorch 1.6"])
    def test_a_file_of_torch_that_is_called_safetensors(self, tmp_path: Path, modern: bool) -> None:
        path = saved(tmp_path / "w.safetensors", STATE, _use_new_zipfile_serialization=modern)
        assert_equal(read_weights(path), STATE)

    @pytest.mark.filterwarnings("ignore:.*(torch.jit|quant)")
    def test_torchscript_is_refused_without_the_advice_to_unpickle_it(self, tmp_path: Path) -> None:
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(tmp_path / "w.pt"))
        with pytest.raises(InputError, match="is a TorchScript archive") as refusal:
            read_weights(tmp_path / "w.pt")
        assert "weights_only" not in str(refusal.value)

    @pytest.mark.filterwarnings("ignore::UserWarning")
    @pytest.mark.parametrize(
        ("changed", "kind"),
        [
            (lambda value: value.to_sparse(), "torch.sparse_coo"),
            (lambda value: value.to("meta"), "on the meta device"),
            (lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8), "quantised"),
        ],
    )
    def test_tensors_that_are_not_plain(self, tmp_path: Path, changed: Any, kind: str) -> None:
        path = saved(tmp_path / "w.pt", STATE | {"0.weight": changed(STATE["0.weight"])})
        with pytest.raises(InputError, match=rf"0\.weight is no plain tensor but {kind}"):
            read_weights(path)

    @pytest.mark.parametrize("suffix", [".pt", ".pth", ".th", ".bin"])
    @pytest.mark.parametrize("modern", [True, False], ids=["zip", "before PyTorch 1.6"])
    def test_torch(self, tmp_path: Path, suffix: str, modern: bool) -> None:
        path = saved(tmp_path / f"w{suffix}", OrderedDict(STATE), _use_new_zipfile_serialization=modern)
        assert_equal(read_weights(path), STATE)

    @pytest.mark.parametrize(
        "nested",
        [
            {"state_dict": STATE, "epoch": 90, "best": 91.5},
            {"model": STATE, "args": {"lr": 0.1}},
            {"model_state_dict": STATE},
            {"net": STATE, "acc": 95},
            {"state_dict": {"model": STATE}},
            {f"module.{name}": value for name, value in STATE.items()},
            {"state_dict": {f"module.{name}": value for name, value in STATE.items()}},
            {name: nn.Parameter(value) if value.is_floating_point() else value for name, value in STATE.items()},
        ],
        ids=["state_dict", "model", "model_state_dict", "net", "twice", "module.", "state_dict/module.", "parameters"],
    )
    def test_weights_are_found_where_training_code_puts_them(self, tmp_path: Path, nested: Any) -> None:
        assert_equal(read_weights(saved(tmp_path / "w.pt", nested)), STATE)

    @pytest.mark.parametrize(
        ("content", "named"),
        [
            ({"state_dict": MEAN, "epoch": 3, "state_dict_ema": STATE}, "state_dict, state_dict_ema"),
            ({"model": MEAN, "model_ema": STATE, "optimizer": {"state": {}}}, "model, model_ema"),
            ({"state_dict": MEAN, "model": STATE}, "state_dict, model"),
            ({"state_dict": {"net": MEAN, "shadow": STATE}}, "net, shadow"),
            ({"student": MEAN, "teacher": STATE}, "student, teacher"),
        ],
    )
    def test_of_several_sets_of_weights_none_is_taken(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any, named: str
    ) -> None:
        """And what the message advises saves the one that it names."""
        with pytest.raises(InputError, match=rf"w\.pt: holds several sets of weights, {named}\.") as found:
            read_weights(saved(tmp_path / "w.pt", content))
        monkeypatch.chdir(tmp_path)
        exec(str(found.value).split("`")[1], {"torch": torch})
        assert_equal(read_weights(tmp_path / "weights.pt"), STATE)

    def test_prefix_of_data_parallel_in_safetensors(self, tmp_path: Path) -> None:
        save_file({f"module.{name}": value for name, value in STATE.items()}, tmp_path / "w.safetensors")
        assert_equal(read_weights(tmp_path / "w.safetensors"), STATE)

    def test_a_part_called_module_keeps_its_name(self, tmp_path: Path) -> None:
        state = {"module.weight": torch.ones(1), "head.weight": torch.ones(2)}
        assert_equal(read_weights(saved(tmp_path / "w.pt", state)), state)

    @pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
    def test_missing(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(InputError, match="no such weights file"):
            read_weights(tmp_path / name)

    @pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
    @pytest.mark.parametrize("form", ["safetensors", "zip", "before PyTorch 1.6"])
    def test_truncated(self, tmp_path: Path, form: str, share: float) -> None:
        path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
        if form == "safetensors":
            save_file(STATE, path)
        else:
            torch.save(STATE, path, _use_new_zipfile_serialization=form == "zip")
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        refusal = rf"{path.name}: cannot be read as weights|{path.name}: .* is not a weights file"
        with pytest.raises(InputError, match=refusal):
            read_weights(path)

    @pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (
                "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
                "is a Git LFS pointer, .*pull",
            ),
            ("\ufeff\n<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page, .* again"),
            ("<html>Not found</html>", "is a web page, .* again"),
            ("hello", "is not a weights file|cannot be read as weights"),
        ],
    )
    def test_something_else_altogether(self, tmp_path: Path, name: str, content: str, said: str) -> None:
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=rf"{name}: .*({said})"):
            read_weights(tmp_path / name)

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="is a folder; name the weights file in it"):
            read_weights(tmp_path)

    @pytest.mark.parametrize("modern", [True, False], ids=["zip", "before PyTorch 1.6"])
    def test_code_in_a_file_is_never_run(self, tmp_path: Path, modern: bool) -> None:
        marker = tmp_path / "marker"
        content = {**STATE, "extra": MakesFolder(marker)}
        path = saved(tmp_path / "w.pt", content, _use_new_zipfile_serialization=modern)
        with pytest.raises(InputError, match="never unpickles"):
            read_weights(path)
        assert not marker.exists()
        torch.load(path, weights_only=False)
        assert marker.exists()  # the file did contain code that runs when it is unpickled

    def test_a_whole_model_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"Save the model's state_dict\(\) alone"):
            read_weights(saved(tmp_path / "w.pt", small_net()))

    @pytest.mark.parametrize(
        "content",
        [torch.ones(3), [torch.ones(3)], {}, {"epoch": 3}, {**STATE, "epoch": 3}, {"state_dict": {}}],
        ids=["tensor", "list", "empty", "number", "tensors and a number", "empty inside"],
    )
    def test_not_a_state_dict(self, tmp_path: Path, content: Any) -> None:
        with pytest.raises(InputError, match="not a state_dict"):
            read_weights(saved(tmp_path / "w.pt", content))

    def test_one_that_is_within_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(
            InputError, match=r"not tensors: epoch, model_state\)\. Under 'model_state' there is one: save"
        ):
            read_weights(saved(tmp_path / "w.pt", {"epoch": 3, "model_state": STATE}))


class MakesFolder:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


class TestLoading:
    def test_exactly(self) -> None:
        net = small_net(seed=1)
        load_into(net, STATE, "w.pt")
        assert_equal(net.state_dict(), STATE)

    def test_every_misfit_is_named(self) -> None:
        state = {name: value for name, value in STATE.items() if name != "0.bias"}
        state |= {"2.weight": torch.ones(2, 5), "3.weight": torch.ones(1)}
        with pytest.raises(InputError) as refusal:
            load_into(small_net(), state, "w.pt")
        message = str(refusal.value)
        assert message.startswith("w.pt:")
        assert "missing: 0.bias;" in message
        assert "unexpected: 3.weight;" in message
        assert "2.weight is (2, 5), the model's (2, 4)" in message

    @pytest.mark.parametrize("more", [{}, {"loss.scale": torch.ones(1)}], ids=["all", "most"])
    def test_a_prefix_of_the_keys_is_named(self, more: dict[str, Tensor]) -> None:
        state = {f"model.net.{name}": value for name, value in STATE.items()} | more
        with pytest.raises(
            InputError, match=r"\. Take 'model\.net\.' from the beginning of its keys, and save it anew$"
        ):
            load_into(small_net(), state, "w.pt")

    def test_a_prefix_that_the_keys_lack_is_named(self) -> None:
        net = nn.Module()
        net.body = small_net()
        with pytest.raises(InputError, match=r"\. Put 'body\.' at the beginning of its keys, and save it anew$"):
            load_into(net, STATE, "w.pt")

    def test_of_other_keys_no_prefix_is_named(self) -> None:
        with pytest.raises(InputError, match=r"unexpected: a\.weight, b\.weight$"):
            load_into(small_net(), {"a.weight": torch.ones(1), "b.weight": torch.ones(1)}, "w.pt")

    def test_a_refusal_changes_nothing(self) -> None:
        net = small_net(seed=1)
        with pytest.raises(InputError):
            load_into(net, STATE | {"more": torch.ones(1)}, "w.pt")
        assert_equal(net.state_dict(), small_net(seed=1).state_dict())

    def test_a_long_list_is_cut(self) -> None:
        with pytest.raises(InputError, match=r"and 3 more$"):
            load_into(small_net(), {f"left_over.{index}": torch.ones(1) for index in range(9)} | STATE, "w.pt")

    @pytest.mark.parametrize("kind", [torch.int8, torch.int64, torch.bool, torch.complex64])
    def test_numbers_of_another_kind_are_refused(self, kind: torch.dtype) -> None:
        with pytest.raises(InputError, match=rf"of another type: 0\.weight is {str(kind)[6:]}, the model's float32"):
            load_into(small_net(), STATE | {"0.weight": STATE["0.weight"].to(kind)}, "w.pt")

    @pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
    def test_another_precision_is_none(self, kind: torch.dtype) -> None:
        net = small_net(seed=1)
        load_into(net, STATE | {"0.weight": STATE["0.weight"].to(kind)}, "w.pt")
        assert torch.equal(net[0].weight, STATE["0.weight"].to(kind).float())

    def test_integers_may_be_of_another_size(self) -> None:
        net = small_net()
        net.register_buffer("mask", torch.ones(2, dtype=torch.bool))
        load_into(net, STATE | {"mask": torch.tensor([0, 1], dtype=torch.uint8)}, "w.pt")
        assert net.get_buffer("mask").tolist() == [False, True]

    def test_files_older_than_batch_counters(self) -> None:
        net = small_net(seed=1)
        load_into(net, {name: value for name, value in STATE.items() if "num_batches" not in name}, "w.pt")
        assert torch.equal(net[0].weight, STATE["0.weight"])


def contents(state: State) -> str:
    """The part of the hash that knows no names."""
    return hash_weights(state).partition("-")[0]


class TestHash:
    def test_same_weights_under_other_names_in_another_order(self) -> None:
        renamed = {f"backbone.{name}": value for name, value in reversed(STATE.items())}
        assert contents(renamed) == contents(STATE)
        assert hash_weights(dict(reversed(STATE.items()))) == hash_weights(STATE)

    def test_tells_of_tensors_that_changed_places(self) -> None:
        swapped = STATE | {"1.weight": STATE["1.bias"], "1.bias": STATE["1.weight"]}
        assert hash_weights(swapped) != hash_weights(STATE)
        assert contents(swapped) == contents(STATE)

    def test_same_weights_in_another_format(self, tmp_path: Path) -> None:
        (tmp_path / "w.safetensors").write_bytes(to_bytes(STATE))
        torch.save({"state_dict": STATE}, tmp_path / "w.pt")
        hashes = {hash_weights(read_weights(tmp_path / name)) for name in ("w.safetensors", "w.pt")}
        assert hashes == {hash_weights(STATE)}

    def test_same_values_in_another_memory_layout(self) -> None:
        weight = torch.randn(4, 3, 3, 3)
        assert hash_weights({"w": weight.to(memory_format=torch.channels_last)}) == hash_weights({"w": weight})

    def test_batch_counters_do_not_count(self) -> None:
        assert hash_weights(STATE | {"1.num_batches_tracked": torch.tensor(7)}) == hash_weights(STATE)

    @pytest.mark.parametrize(
        "change",
        [
            {"1.running_mean": torch.tensor([0.0, 0.0, 0.0, 1e-45])},
            {"0.bias": STATE["0.bias"].double()},
            {"2.weight": STATE["2.weight"].reshape(4, 2)},
            {"more": torch.zeros(1)},
            {"2.bias": STATE["2.bias"].bfloat16()},
            {"2.bias": STATE["2.bias"].view(torch.int32)},
        ],
        ids=["smallest change of a value", "dtype", "shape", "one more", "bfloat16", "dtype of the same bytes"],
    )
    def test_tells_of_a_change(self, change: dict[str, Tensor]) -> None:
        assert hash_weights(STATE | change) != hash_weights(STATE)

    def test_tells_of_the_same_values_distributed_otherwise(self) -> None:
        one, two = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
        swapped = torch.tensor([1.0, 3.0]), torch.tensor([2.0, 4.0])
        assert hash_weights(dict(zip("ab", (one, two), strict=True))) != hash_weights(
            dict(zip("ab", swapped, strict=True))
        )


def test_tied_weights_survive_the_file(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    (tmp_path / "w.safetensors").write_bytes(to_bytes(net.state_dict()))
    restored = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    load_into(restored, read_weights(tmp_path / "w.safetensors"), "w")
    assert_equal(restored.state_dict(), net.state_dict())
