"""Whether files can be written below a folder of this machine, which need not be there yet. Nothing is left behind."""

import errno
import os
import tempfile
from pathlib import Path

from align_core.errors import InputError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""The errors of a disk on which there is no room, or no more for this user."""
LASTING = (*FULL, errno.EFBIG, errno.EROFS, errno.EACCES)
"""The errors of writing that come again until someone mends the cause."""
_SAID = {errno.ENOENT: "all that is there comes from the system itself"}
"""What the error means that creating a file in a folder raises, as in /proc."""
_TRIED = 2**16  # bytes that are written to see whether there is room


def check_writable(folder: Path, mend: str) -> None:
    """Raises InputError, which ends with `mend`, unless files can be created in the folder, or it and files in it."""
    nearest = nearest_folder(folder)
    try:
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(bytes(_TRIED))
            file.flush()
    except OSError as problem:
        room = "free some space there, or " if problem.errno in FULL else ""
        why = _SAID.get(problem.errno or 0, problem.strerror)
        raise InputError(f"{nearest} cannot be written ({why}); {room}{mend}") from problem


def nearest_folder(folder: Path) -> Path:
    """The folder itself or, where it is not there, the nearest one above it that is.

    Raises InputError where there is a file in place of it, or where it cannot be read.
    """
    nearest = folder
    try:
        while not _is_there(nearest):
            nearest = nearest.parent
        with os.scandir(nearest) as entries:
            next(entries, None)
    except NotADirectoryError as problem:
        raise InputError(f"{nearest} is a file; name a folder that can be written") from problem
    except OSError as problem:
        raise InputError(f"{nearest} cannot be read ({problem.strerror}); name another folder") from problem
    return nearest


def _is_there(path: Path) -> bool:
    """Whether there is anything at the path. Raises OSError where that cannot be told, or the name is not possible."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
