"""The numeric policy of every process that computes."""

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import align_core
from align_core.model_config import Precision
from align_core.numerics import set_policy

ATTENTION = {
    name: (getattr(torch.backends.cuda, f"{name}_sdp_enabled"), getattr(torch.backends.cuda, f"enable_{name}_sdp"))
    for name in ("math", "flash", "mem_efficient", "cudnn")
}


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Restores the threads and flags that a test sets."""
    threads, attention = torch.get_num_threads(), {name: enabled() for name, (enabled, _) in ATTENTION.items()}
    is_deterministic, warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    fills = torch.utils.deterministic.fill_uninitialized_memory
    yield
    set_policy(threads, "fp32")
    torch.use_deterministic_algorithms(is_deterministic, warn_only=warns)
    torch.utils.deterministic.fill_uninitialized_memory = fills
    for name, was in attention.items():
        ATTENTION[name][1](was)


@pytest.mark.parametrize(("precision", "products"), [("fp32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee")])
def test_float32_is_rounded_only_where_that_is_asked_for(precision: Precision, products: str) -> None:
    other = "ieee" if products == "tf32" else "tf32"
    torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.conv.fp32_precision = other
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True
    set_policy(1, precision)
    assert torch.get_num_threads() == 1
    assert torch.backends.cuda.matmul.fp32_precision == products
    assert torch.backends.cudnn.conv.fp32_precision == products
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark


def test_on_a_gpu_only_what_is_deterministic_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every form of fused attention has gradients that differ from run to run, which torch only warns of."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    torch.use_deterministic_algorithms(False)
    for name, (_, enable) in ATTENTION.items():
        enable(name != "math")
    set_policy(1, "fp32")
    assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert {name for name, (enabled, _) in ATTENTION.items() if enabled()} == {"math"}


def test_without_a_gpu_attention_is_as_torch_chooses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ATTENTION["flash"][1](True)
    set_policy(1, "fp32")
    assert ATTENTION["flash"][0]()  # the same switch is that of the CPU's own kernel, which is deterministic


def test_nothing_samples_a_grid() -> None:
    """The gradient of `grid_sample` is not deterministic on a GPU: what resizes or warps gathers, or multiplies."""

    def names(file: Path) -> set[str]:
        nodes = list(ast.walk(ast.parse(file.read_text())))
        called = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        imported = {own.name for node in nodes if isinstance(node, ast.ImportFrom) for own in node.names}
        return called | imported | {node.id for node in nodes if isinstance(node, ast.Name)}

    files = list(Path(align_core.__file__).parent.rglob("*.py"))
    assert len(files) > 50
    assert [file for file in files if any(name.startswith("grid_sample") for name in names(file))] == []
