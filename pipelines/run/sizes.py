"""How a number of bytes is said."""


def size_text(count: int) -> str:
    """Bytes as `witness plan` prints them."""
    for unit, length in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count / 1000:.0f} kB"
