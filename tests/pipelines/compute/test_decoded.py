"""A worker keeps chunks as they are decoded, as many as there is room for."""

from collections import Counter

import numpy as np
import pytest

from align_core.images.decoding import Pixels
from pipelines.compute.decoded import _Decoded

SIZE = 2 * 3 * 4 * 4


def test_what_there_is_room_for_is_decoded_once() -> None:
    decoded, read = _Decoded(), Counter[str]()
    decoded.room = 2 * SIZE + SIZE // 2

    def images_of(name: str) -> Pixels:
        def decode() -> Pixels:
            read[name] += 1
            return np.full((2, 3, 4, 4), ord(name), np.uint8)

        return decoded.read([name, name], decode)

    for name in "abcabc":
        assert (images_of(name) == ord(name)).all()
    assert read == {"a": 1, "b": 1, "c": 2}
    with pytest.raises(ValueError, match="read-only"):
        images_of("a")[0] = 0


def test_nothing_is_kept_where_no_room_is_given() -> None:
    decoded = _Decoded()
    first, second = (decoded.read(["a"], lambda: np.zeros((1, 3, 4, 4), np.uint8)) for _ in range(2))
    assert first is not second
