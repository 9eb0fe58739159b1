"""Files that an image set reads: regular files only, because opening a FIFO would wait for ever."""

import os
import stat
from pathlib import Path
from typing import TextIO

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def check_regular(path: Path) -> None:
    """Raises OSError, which says what is there instead, unless the path leads to a regular file."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise OSError("it is a link that leads nowhere" if path.is_symlink() else "there is no such file") from None
    if not stat.S_ISREG(mode):
        raise OSError(f"it is no file but {_KINDS.get(stat.S_IFMT(mode), 'something else')}")


def open_text(path: Path) -> TextIO:
    """Opens a text file of UTF-8, with or without the byte order mark that spreadsheets write. Raises OSError."""
    check_regular(path)
    return open(path, newline="", encoding="utf-8-sig")


def printable(name: str) -> str:
    """A file's name as text that UTF-8 can hold: bytes that are no UTF-8 are written as `\\xNN`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_utf8(name: str) -> bool:
    """Whether a file's name is UTF-8, so that it can be an image id."""
    return name.isascii() or not any("\udc80" <= character <= "\udcff" for character in name)
