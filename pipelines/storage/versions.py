"""The versions of the software that made a result. They are stored beside it and are never part of a fingerprint."""

import platform
from functools import cache
from importlib.metadata import version

_PACKAGES = ("witness", "torch", "torchvision", "timm", "ray", "mlflow", "pyarrow", "numpy")


@cache
def versions() -> dict[str, str]:
    """Returns the version of Python and of each package that results depend on, without importing the packages."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
