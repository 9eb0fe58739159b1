"""Which versions made a result: recorded beside it, never part of its fingerprint."""

import platform
from functools import cache
from importlib.metadata import version

_PACKAGES = ("witness", "torch", "torchvision", "timm", "ray", "mlflow", "pyarrow", "numpy")


@cache
def versions() -> dict[str, str]:
    """Package -> version, and Python's, without importing any of them."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
