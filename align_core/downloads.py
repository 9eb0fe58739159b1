"""Weights that a library downloads: whether their host answers is found out in seconds, before the library tries.

Without a network the libraries try again and again, or wait without a limit. Weights that they hold in their caches are
found without one.
"""

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from align_core.errors import InputError

ANSWERS_WITHIN_S = 5.0


def is_reachable(url: str, seconds: float = ANSWERS_WITHIN_S) -> bool:
    """Whether the server of a URL answers at all within so many seconds, through a proxy where one is set."""
    answered = threading.Event()

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            # `urlopen` would keep the proxies of its first call for the whole process.
            urllib.request.build_opener().open(request, timeout=seconds).close()
        except urllib.error.HTTPError:
            pass  # an answer, if not a welcome one
        except (OSError, ValueError):
            return
        answered.set()

    # In a thread, because no time-out ends a look-up of the host's name.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return answered.is_set()


@contextmanager
def hub_offline_unless_reachable() -> Iterator[None]:
    """Within the block, Hugging Face's hub uses its cache alone if its server does not answer."""
    from huggingface_hub import constants

    was_offline = constants.HF_HUB_OFFLINE
    if not was_offline and not is_reachable(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = was_offline


def hub_revision(model: str) -> str | None:
    """The commit that a model of Hugging Face's hub was loaded from, as the hub's cache on this machine has it.

    None for a name of timm's that is no `hf-hub:USER/MODEL` or `hf-hub:USER/MODEL@REVISION`, and where the cache does
    not hold the model.
    """
    if not is_on_hub(model):
        return None
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = model.partition(":")[2].partition("@")
    found = try_to_load_from_cache(repository, "config.json", revision=revision or None)
    return Path(found).parent.name if isinstance(found, str) else None


def is_on_hub(model: str) -> bool:
    """Whether a name of timm's leads to Hugging Face's hub: timm takes both spellings."""
    return model.startswith(("hf-hub:", "hf_hub:"))


def check_torch_can_load(url: str) -> None:
    """Raises InputError where torch has not cached the file at `url`, and its server does not answer."""
    import torch

    cached = os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(url))
    if not os.path.exists(cached) and not is_reachable(url):
        raise InputError(f"{url} does not answer within {ANSWERS_WITHIN_S:.0f} s")
