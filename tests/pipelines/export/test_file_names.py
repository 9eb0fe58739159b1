"""What an image id becomes as the name of a file: itself where that is safe, and else the number of its row."""

import pytest

from pipelines.export.file_names import png_names


def test_an_id_keeps_its_folders_and_gets_the_suffix_of_its_form() -> None:
    assert png_names(["a/b/1.JPEG", "a/b/2.png", "00017", "v1.2", "x.tar"]) == [
        "a/b/1.png", "a/b/2.png", "00017.png", "v1.2.png", "x.tar.png",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "image_id",
    [
        "../outside", "a/../../outside", "/etc/passwd", "a//b", "a/", "", ".", "..", ".hidden", "a/.hidden/b", "_a",
        "a\\b", "C:a", "a\nb", "a\0b", "a*", "a?", "a /b", "x" * 300, "/".join(["abc"] * 300), "\udc80",
        "nul", "a/COM1.x/b", "good.jpg", "GOOD", "good.png/1",
    ],
)  # fmt: skip
def test_where_one_id_is_no_safe_name_all_are_numbered(image_id: str) -> None:
    """The last three are safe by themselves, but not beside `good.png`."""
    assert png_names(["good.png", image_id]) == ["00000.png", "00001.png"]


def test_two_ways_to_write_an_accent_are_one_name() -> None:
    assert png_names(["\u00e9", "e\u0301"]) == ["00000.png", "00001.png"]
    assert png_names(["\u00e9", "console"]) == ["\u00e9.png", "console.png"]
