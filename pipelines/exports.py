"""Lazy exports: a package's public names, each imported from its module when it is first asked for (PEP 562).

So that `import pipelines` and `from pipelines.storage import Store` import neither torch nor Ray nor MLflow.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_exports(package: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package; `names`: each public name and its module, as `.store` or `align_core.errors`."""

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(names[name], package), name)

    return get
