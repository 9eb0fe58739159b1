"""Lazy exports: the public names of a package, each imported from its module when it is first used (PEP 562).

With them, `import pipelines` or `from pipelines.storage import Store` imports neither torch nor Ray nor MLflow.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_exports(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """What a package needs as its `__getattr__`, `__dir__` and `__all__`.

    Args:
        package: its `__name__`.
        modules: the public names that each of its modules holds. A module with a dot in it is named whole.
    """
    home = {name: module if "." in module else f"{package}.{module}" for module in modules for name in modules[module]}

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(home[name]), name)

    def names() -> list[str]:
        return sorted(home)

    return get, names, sorted(home)
