"""Files with one bit that is another than it was."""

from pathlib import Path


def damage(path: Path, content: bytes) -> None:
    """Changes one bit of a file where it has this content, which must occur once."""
    stored = bytearray(path.read_bytes())
    assert stored.count(content) == 1
    stored[stored.find(content) + len(content) // 2] ^= 1
    path.write_bytes(stored)
