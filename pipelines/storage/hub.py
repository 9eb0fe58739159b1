"""Files and folders on Hugging Face's hub, which its own library fetches and keeps in its own cache.

The library is a part of timm's installation. Where it keeps files (`HF_HOME`) and which token it uses (`HF_TOKEN`) is
said in its documentation.
"""

import glob
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from align_core.downloads import hub_offline_unless_reachable
from align_core.errors import InputError, reason_of
from pipelines.storage.credentials import without_credentials

_URI = re.compile(r"hf://(datasets/)?(?!datasets/|spaces/)([^/@]+/[^/@]+)(?:@([^/]+))?/(.+?)/*")
_FORM = "hf://OWNER/NAME/PATH or hf://datasets/OWNER/NAME/PATH, where NAME may be NAME@REVISION"


def fetched_from_hub(uri: str) -> Path:
    """Returns the file or folder on this machine. Raises InputError where it is not there or may not be read.

    A file that was fetched before is used where the hub does not answer. Of a folder, nobody could say whether it is
    complete.
    """
    parts, shown = _URI.fullmatch(uri), without_credentials(uri)
    if parts is None:
        raise InputError(f"{shown}: an address on Hugging Face's hub is written {_FORM}")
    kind, name, revision, path = parts.groups()
    repository: dict[str, Any] = {"repo_id": name, "repo_type": "dataset" if kind else "model"}
    if revision:
        repository["revision"] = unquote(revision)
    try:
        import huggingface_hub as hub
    except ImportError as problem:
        raise InputError(f"{shown}: to read from Hugging Face's hub, pip install huggingface_hub") from problem
    try:
        with hub_offline_unless_reachable():
            found = _file(repository, path)
            if found is None and not hub.constants.HF_HUB_OFFLINE:
                folder = glob.escape(path)
                found = Path(hub.snapshot_download(allow_patterns=f"{folder}/*", **repository), path)
            elif found is None:
                raise InputError(f"{shown}: the hub does not answer, and no copy of a file of this name is here")
    except InputError:
        raise
    except Exception as problem:  # of the network, the hub, the disk and the library, which share no class
        reason = reason_of(problem).rstrip(".")
        raise InputError(
            f"{shown}: cannot be fetched ({reason}). Check the address, the network and, for what is private, $HF_TOKEN"
        ) from problem
    if not found.exists():
        raise InputError(f"{shown}: there is no file or folder {path} in {name}. Check the address")
    return found


def _file(repository: dict[str, Any], path: str) -> Path | None:
    """The file of this path, or None where there is none, as for a folder."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        found = Path(hf_hub_download(filename=path, **repository))
    except EntryNotFoundError:
        return None
    return found if found.is_file() else None  # without a network, what is there of a folder counts as one
