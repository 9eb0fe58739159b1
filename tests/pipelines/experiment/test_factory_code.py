"""The code of a factory is a hash of what its modules do, wherever they lie beside the experiment."""

import ast
import py_compile
import sys
from pathlib import Path

import pytest

from align_core.errors import InputError
from pipelines.experiment.factory_code import _tokens, factory_code

NETS = '''"""Networks."""
from torch import nn

def net(width=4):
    """A network."""
    return nn.Linear(3, width)  # small
'''


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def code(folder: Path, factory: str = "nets:net") -> dict[str, str]:
    return factory_code(factory, str(folder))


@pytest.mark.parametrize(
    ("change", "is_other"),
    [
        (lambda text: text.replace("  # small", "  # very small"), False),
        (lambda text: text.replace("\n\n", "\n\n\n\n").replace("(3, width)", "(\n        3, width\n    )"), False),
        (lambda text: text.replace('"""A network."""', '"""Another text."""'), False),
        (lambda text: text.replace('    """A network."""\n', ""), False),
        (lambda text: text.replace('"""Networks."""\n', ""), False),
        (lambda text: text.replace("\n", "\r\n"), False),
        (lambda text: text.replace("width=4", "width=5"), True),
        (lambda text: text.replace("(3, width)", "(width, 3)"), True),
        (lambda text: text.replace("width=4", "width=4.0"), True),
        (lambda text: text.replace("width=4", "width=True"), True),
        (lambda text: text.replace("nn.Linear(3, width)", "nn.Linear(3, width, 'a')"), True),
        (lambda text: text + "net = lambda: None\n", True),
        (lambda text: text.replace("    return", "    'not a docstring: the second text'\n    return"), True),
    ],
    ids=["comment", "format", "docstring", "no docstring", "no module docstring", "line ends", "default", "order",
         "float", "bool", "argument", "statement", "text"],
)  # fmt: skip
def test_only_what_the_code_does_counts(tmp_path: Path, change, is_other: bool) -> None:
    before = code(written(tmp_path, {"nets.py": NETS}))
    assert list(before) == ["nets"]
    (tmp_path / "nets.py").write_bytes(change(NETS).encode())
    assert (code(tmp_path) != before) is is_other


MODULES = {
    "layers.py": "x = 1\n",
    "later.py": "x = 1\n",
    "unused.py": "x = 1\n",
    "pack/__init__.py": "from .inner import *\n",
    "pack/inner.py": "from . import sibling\nfrom .. import impossible\n",
    "pack/sibling.py": "from .deep.down import x\nimport pack\n",
    "pack/other.py": "x = 1\n",
    "pack/deep/down.py": "from ..deep import namespace_sibling as x\n",  # pack/deep has no __init__
    "pack/deep/namespace_sibling.py": "import nets\n",  # a cycle
    "starred/__init__.py": "",
    "starred/one.py": "x = 1\n",
    "a/b/c.py": "x = 1\n",
    "a/__init__.py": "x = 1\n",
    "a/b/__init__.py": "x = 1\n",
    "a/d.py": "x = 1\n",
}
IMPORTING = """
import torch, layers
import a.b.c
from starred import *
if True:
    import pack.inner as own
def net():
    import later
    import unheard_of
    __import__("unused")
"""
FOLLOWED = [
    "a", "a.b", "a.b.c", "later", "layers", "nets", "pack", "pack.deep.down", "pack.deep.namespace_sibling",
    "pack.inner", "pack.sibling", "starred", "starred.one",
]  # fmt: skip


def test_everything_that_it_imports_from_beside_is_followed(tmp_path: Path) -> None:
    """`from .inner import *` may import every module of a package, and `pack.inner` is no package."""
    written(tmp_path, MODULES | {"nets.py": IMPORTING})
    before = code(tmp_path)
    assert list(before) == FOLLOWED
    for module in before:
        path = tmp_path / module.replace(".", "/")
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        text = file.read_text()
        file.write_text(text + "y = 2\n")
        assert {name for name, own in code(tmp_path).items() if own != before[name]} == {module}
        file.write_text(text)
    for name in ("unused.py", "pack/other.py", "a/d.py"):
        (tmp_path / name).write_text("x = 2\n")
    assert code(tmp_path) == before


def test_nothing_is_imported(tmp_path: Path) -> None:
    written(tmp_path, {"never_run.py": "import layers_never_run\nopen('ran', 'w')\n", "layers_never_run.py": "1 / 0\n"})
    assert list(code(tmp_path, "never_run:net")) == ["layers_never_run", "never_run"]
    assert not {"never_run", "layers_never_run"} & sys.modules.keys()


def test_a_factory_in_a_package_counts_with_the_package(tmp_path: Path) -> None:
    written(tmp_path, MODULES)
    assert list(code(tmp_path, "a.b.c:net")) == ["a", "a.b", "a.b.c"]
    assert list(code(tmp_path, "pack.deep.namespace_sibling:x"))[:1] == ["pack"]


class TestElsewhere:
    def test_a_module_on_the_path_is_followed_in_its_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files = {"elsewhere_nets.py": "import elsewhere_layers\nimport torch\n", "elsewhere_layers.py": "x = 1\n"}
        monkeypatch.syspath_prepend(str(written(tmp_path / "code", files)))
        assert list(code(tmp_path, "elsewhere_nets:net")) == ["elsewhere_layers", "elsewhere_nets"]

    def test_a_package_on_the_path_is_followed_within_itself(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files = {"own_pack/__init__.py": "", "own_pack/nets.py": "from own_pack import layers\nimport own_other\n",
                 "own_pack/layers.py": "", "own_other.py": ""}  # fmt: skip
        monkeypatch.syspath_prepend(str(written(tmp_path / "code", files)))
        assert list(code(tmp_path, "own_pack.nets:net")) == ["own_pack", "own_pack.layers", "own_pack.nets"]

    def test_an_installed_module_is_not_followed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        files = {"wheel_nets.py": "import wheel_layers\n", "wheel_layers.py": ""}
        monkeypatch.syspath_prepend(str(written(tmp_path / "site-packages", files)))
        assert list(code(tmp_path, "wheel_nets:net")) == ["wheel_nets"]
        assert list(code(tmp_path, "torchvision.models:resnet18")) == ["torchvision.models"]

    def test_the_code_of_witness_itself_is_told_by_its_revisions(self, tmp_path: Path) -> None:
        assert list(code(tmp_path, "pipelines.recipes.cifar_models:resnet")) == [
            "pipelines.recipes",
            "pipelines.recipes.cifar_models",
        ]

    def test_what_lies_beside_comes_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(str(written(tmp_path / "code", {"twice.py": "x = 1\n"})))
        beside = written(tmp_path / "mine", {"twice.py": "x = 2\n"})
        assert code(beside, "twice:net") != code(tmp_path, "twice:net")

    def test_built_in_modules_have_no_code(self, tmp_path: Path) -> None:
        assert code(tmp_path, "sys:exit") == {}


class TestNoSource:
    def test_compiled_modules_count_with_their_bytes(self, tmp_path: Path) -> None:
        written(tmp_path, {"nets.py": "import fast\nimport old\n", "text.py": "x = 1\n"})
        (tmp_path / f"fast{_extension()}").write_bytes(b"\x7fELF 1")
        py_compile.compile(str(tmp_path / "text.py"), cfile=str(tmp_path / "old.pyc"))
        before = code(tmp_path)
        assert list(before) == ["fast", "nets", "old"]
        (tmp_path / f"fast{_extension()}").write_bytes(b"\x7fELF 2")
        assert {name for name, own in code(tmp_path).items() if own != before[name]} == {"fast"}

    def test_an_imported_module_that_cannot_be_parsed_counts_with_its_bytes(self, tmp_path: Path) -> None:
        """It may be for another version of Python, and imported only there."""
        written(tmp_path, {"nets.py": "import broken\n", "broken.py": "def ("})
        before = code(tmp_path)
        (tmp_path / "broken.py").write_text("def (:")
        assert {name for name, own in code(tmp_path).items() if own != before[name]} == {"broken"}

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"x = 1\ndef (:\n", r"factory nets: .*nets\.py, line 2: not valid Python \(invalid syntax\)"),
            (b"x = '\xff'\n", r"nets\.py, line 1: not valid Python \(\(unicode error\) 'utf-8' codec"),
            (b"x = 1\0\n", r"nets\.py.*: not valid Python \(.*null bytes"),
            (b"# coding: nonsense\n", r"nets\.py.*: not valid Python \(.*nonsense"),
        ],
    )
    def test_a_factory_that_cannot_be_parsed_is_one_message(self, tmp_path: Path, content: bytes, message: str) -> None:
        (tmp_path / "nets.py").write_bytes(content)
        with pytest.raises(InputError, match=message):
            code(tmp_path)

    def test_another_encoding_that_is_declared_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "nets.py").write_bytes("# coding: latin-1\nx = 'é'\n".encode("latin-1"))
        latin = code(tmp_path)
        (tmp_path / "nets.py").write_text("x = 'é'\n")
        assert code(tmp_path) == latin

    @pytest.mark.parametrize(
        ("files", "factory", "message"),
        [
            ({}, "gone:net", r"factory gone: no module 'gone' beside the experiment file or on PYTHONPATH"),
            ({"pack/__init__.py": ""}, "pack.gone:net", r"factory pack\.gone: there is no such module in the package"),
            ({"plain.py": ""}, "plain.gone:net", r"there is no such module in the package 'plain'"),
        ],
    )
    def test_a_missing_module_is_named(self, tmp_path: Path, files: dict[str, str], factory: str, message: str) -> None:
        with pytest.raises(InputError, match=message):
            code(written(tmp_path, files), factory)

    def test_code_that_is_nested_deeply_or_has_long_numbers_is_read(self, tmp_path: Path) -> None:
        number = f"0x{'f' * 9000}"
        written(tmp_path, {"nets.py": f"x = {' + '.join(['1'] * 3000)}\ny = {number}\nz = {'(' * 190}1{')' * 190}\n"})
        before = code(tmp_path)
        written(tmp_path, {"nets.py": (tmp_path / "nets.py").read_text().replace("f\n", "e\n")})
        assert code(tmp_path) != before


def _extension() -> str:
    from importlib.machinery import EXTENSION_SUFFIXES

    return EXTENSION_SUFFIXES[0]


def test_the_hash_of_a_text_is_pinned(tmp_path: Path) -> None:
    """It is part of fingerprints, so it must be the same in every version of Python and of Witness."""
    assert code(written(tmp_path, {"nets.py": NETS})) == {"nets": "5d4fb35ce79a9405"}


def test_fields_that_newer_versions_of_python_add_change_nothing() -> None:
    tree = ast.parse("def f(x): return x\n")
    before = list(_tokens(tree))
    tree.body[0]._fields = (*tree.body[0]._fields, "new_list", "new_value")
    tree.body[0].new_list, tree.body[0].new_value = [], None
    assert list(_tokens(tree)) == before
