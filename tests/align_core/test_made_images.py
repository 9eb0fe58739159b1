"""Images made elsewhere are matched with test images by their ids, and must lie in the ball around them."""

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_sets import png
from PIL import Image

from align_core.attacks import MadeElsewhere
from align_core.errors import InputError
from align_core.made_images import Ball, open_made_images

IDS = ["bird/1.JPEG", "cat/1.png", "cat/2.png"]
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
SHAPE = (3, 4, 5)


def picture(file: Path, pixels_HWC: np.ndarray, **how) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels_HWC).save(file, **how)


def read(path: Path, ids=IDS, shape=SHAPE) -> np.ndarray:
    images = open_made_images(path, ids, shape)
    return np.stack([images.read(position) for position in range(len(ids))])


class TestMatching:
    @pytest.mark.parametrize(
        "names",
        [
            ["bird/1.JPEG.png", "cat/1.png", "cat/2.png"],  # the ids, with a suffix where theirs is lossy
            ["bird/1.png", "cat/1.png", "cat/2.bmp"],  # the ids without their suffixes
        ],
    )
    def test_by_the_path(self, tmp_path: Path, names: list[str]) -> None:
        for name, pixels in zip(names, IMAGES, strict=True):
            picture(tmp_path / name, pixels)
        np.testing.assert_array_equal(read(tmp_path), IMAGES.transpose(0, 3, 1, 2))

    def test_by_the_name_of_the_file(self, tmp_path: Path) -> None:
        ids = ["a/one.JPEG", "b/two.JPEG", "00017"]
        for name, pixels in zip(["one.png", "deep/er/two.tif", "00017.png"], IMAGES, strict=True):
            picture(tmp_path / name, pixels)
        np.testing.assert_array_equal(read(tmp_path, ids), IMAGES.transpose(0, 3, 1, 2))

    def test_by_the_ids_of_an_export(self, tmp_path: Path) -> None:
        for number, pixels in enumerate(IMAGES):
            picture(tmp_path / f"{2 - number}.png", pixels)
        with open(tmp_path / "labels.csv", "w", newline="") as file:
            csv.writer(file).writerows([["filename", "label", "image_id"], *(
                [f"{2 - number}.png", 0, image_id] for number, image_id in enumerate(IDS)
            )])  # fmt: skip
        np.testing.assert_array_equal(read(tmp_path), IMAGES.transpose(0, 3, 1, 2))

    def test_paths_in_a_list_may_be_written_in_any_way(self, tmp_path: Path) -> None:
        for number, pixels in enumerate(IMAGES):
            picture(tmp_path / f"{number}.png", pixels)
        lines = [f"{way}.png,{image_id}" for way, image_id in zip(["./0", "a/../1", "2"], IDS, strict=True)]
        (tmp_path / "labels.csv").write_text("\n".join(["filename,image_id", *lines]))
        np.testing.assert_array_equal(read(tmp_path), IMAGES.transpose(0, 3, 1, 2))

    def test_a_list_of_labels_without_ids_is_no_list_of_ids(self, tmp_path: Path) -> None:
        for name, pixels in zip(IDS, IMAGES, strict=True):
            picture(tmp_path / f"{name.rpartition('.')[0]}.png", pixels)
        (tmp_path / "labels.csv").write_text("filename,label\n1.png,2\n")
        np.testing.assert_array_equal(read(tmp_path), IMAGES.transpose(0, 3, 1, 2))

    @pytest.mark.parametrize("arrays", [IMAGES, IMAGES.transpose(0, 3, 1, 2)], ids=["NHWC", "NCHW"])
    def test_by_the_ids_of_an_npz_file(self, tmp_path: Path, arrays: np.ndarray) -> None:
        order = [2, 0, 1]
        np.savez(tmp_path / "made.npz", images=arrays[order], ids=np.array(IDS)[order])
        np.testing.assert_array_equal(read(tmp_path / "made.npz"), IMAGES.transpose(0, 3, 1, 2))

    @pytest.mark.parametrize("is_folder", [False, True])
    def test_by_the_ids_of_parquet_files(self, tmp_path: Path, is_folder: bool) -> None:
        order = [2, 0, 1]
        table = {"image": [{"bytes": png(IMAGES[row]), "path": None} for row in order], "label": [0, 1, 2]}
        pq.write_table(pa.table(table | {"image_id": [IDS[row] for row in order]}), tmp_path / "made.parquet")
        path = tmp_path if is_folder else tmp_path / "made.parquet"
        np.testing.assert_array_equal(read(path), IMAGES.transpose(0, 3, 1, 2))
        images = open_made_images(path, IDS[:2], SHAPE)
        assert images.notes == ["left out, because they belong to no test image: cat/2.png"]
        assert images.files == [tmp_path / "made.parquet"]

    def test_tensors_in_parquet_by_the_order(self, tmp_path: Path) -> None:
        tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(IMAGES.transpose(0, 3, 1, 2)))
        pq.write_table(pa.table({"image": tensors, "label": [0, 1, 2]}), tmp_path / "made.parquet")
        np.testing.assert_array_equal(read(tmp_path / "made.parquet"), IMAGES.transpose(0, 3, 1, 2))
        assert open_made_images(tmp_path / "made.parquet", IDS, SHAPE).notes[0].startswith("the images have no ids")

    @pytest.mark.parametrize("suffix", ["npz", "npy"])
    def test_by_the_order(self, tmp_path: Path, suffix: str) -> None:
        save = {"npz": lambda: np.savez_compressed(tmp_path / "made.npz", images=IMAGES),
                "npy": lambda: np.save(tmp_path / "made.npy", IMAGES)}  # fmt: skip
        save[suffix]()
        images = open_made_images(tmp_path / f"made.{suffix}", IDS, SHAPE)
        assert images.notes == [
            "the images have no ids, so that they are taken to be in the order of the test images' ids"
        ]
        np.testing.assert_array_equal(images.read(1), IMAGES[1].transpose(2, 0, 1))

    def test_grey_images(self, tmp_path: Path) -> None:
        """A program that writes RGB alone writes grey test images with three equal channels."""
        grey = IMAGES[:, :, :, 0]
        np.save(tmp_path / "made.npy", grey)
        for name, pixels in zip("abc", grey, strict=True):
            picture(tmp_path / f"{name}.png", np.repeat(pixels[:, :, None], 3, axis=2))
        for path in (tmp_path / "made.npy", tmp_path):
            np.testing.assert_array_equal(read(path, ["a", "b", "c"], (1, 4, 5)), grey[:, None])

    def test_others_are_left_out_and_said(self, tmp_path: Path) -> None:
        for name, pixels in zip(IDS, IMAGES, strict=True):
            picture(tmp_path / f"{name.rpartition('.')[0]}.png", pixels)
        picture(tmp_path / "dog/9.png", IMAGES[0])
        assert open_made_images(tmp_path, IDS, SHAPE).notes == [
            "left out, because they belong to no test image: dog/9.png"
        ]
        np.savez(tmp_path / "made.npz", images=IMAGES, ids=np.array(["x", "y", "z"]))
        images = open_made_images(tmp_path / "made.npz", ["y"], SHAPE)
        assert images.notes == ["left out, because they belong to no test image: x, z"]


class TestBadInput:
    @pytest.mark.parametrize(
        ("given", "wanted", "hint"),
        [
            (["0", "1", "12"], ["00000", "00001", "00012"], r". Names .* as the ids: 00000 in place of 0$"),
            (["007", "008"], ["7", "8"], r". Names .* as the ids: 7 in place of 007$"),
            (["0", "1"], ["00002", "a"], r"such as 0(.png)?$"),
        ],
    )
    def test_names_that_lack_leading_zeros(
        self, tmp_path: Path, given: list[str], wanted: list[str], hint: str
    ) -> None:
        for name in given:
            picture(tmp_path / f"{name}.png", IMAGES[0])
        np.savez(tmp_path / "made.npz", images=IMAGES[: len(given)], ids=np.array(given))
        for path in (tmp_path, tmp_path / "made.npz"):
            with pytest.raises(InputError, match=hint):
                open_made_images(path, wanted, SHAPE)

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"images": IMAGES / 255}, "its images are float64; save them as uint8, rounded to 8 bits inside the ball"),
            ({"images": IMAGES[:, :3]}, r"of shape \[3, 3, 5, 3\], and the test images are \[N, 4, 5, 3\] or"),
            ({"images": IMAGES[..., 0]}, r"of shape \[3, 4, 5\], and the test images are"),
            ({"images": IMAGES[:2]}, "holds 2 images without ids, and there are 3 test images"),
            ({"images": IMAGES, "ids": np.array(["bird/1.JPEG", "cat/1.png", "no"])},
             "1 of the 3 test images have no image there: cat/2.png; it holds 3, such as bird/1.JPEG"),
            ({"images": IMAGES, "ids": np.array(["bird/1.JPEG"] * 3)}, "3 ids and some of them twice"),
            ({"images": IMAGES, "ids": np.array(IDS[:2])}, "2 ids and 3 images"),
            ({"images": IMAGES, "ids": np.arange(3)}, "`ids` must be text, one for each image, not int64"),
            ({"pictures": IMAGES}, "it has the arrays pictures, and not `images`"),
            ({"images": np.array([None] * 3)}, "made.npz: cannot be read"),
        ],
    )  # fmt: skip
    def test_an_npz_file(self, tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
        np.savez(tmp_path / "made.npz", **arrays)
        with pytest.raises(InputError, match=message):
            open_made_images(tmp_path / "made.npz", IDS, SHAPE)

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("made.npz", b"PK\3\4 damaged", "made.npz: cannot be read"),
            ("made.npy", b"\x93NUMPY", "made.npy: cannot be read"),
            ("made.parquet", b"PAR1", "made.parquet: cannot be read as Parquet"),
            ("made.pt", b"", "are a folder of picture files, or a .parquet, .npz or .npy file"),
            (None, b"", "there is no such file or folder"),
        ],
    )
    def test_a_file_that_is_none(self, tmp_path: Path, name: str | None, content: bytes, message: str) -> None:
        if name is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message):
            open_made_images(tmp_path / (name or "gone.npz"), IDS, SHAPE)

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"image": [png(IMAGES[0])] * 2, "label": [0, 0]}, "holds 2 images without ids, and there are 3 test imag"),
            ({"image": [png(IMAGES[0])], "label": [0], "image_id": ["cat/1.png"]}, "2 of the 3 test images have no im"),
            ({"image": [png(IMAGES[0])] * 2, "label": [0, 0], "image_id": IDS[:1] * 2}, "'bird/1.JPEG' occurs twice"),
            ({"picture": [png(IMAGES[0])], "label": [0]}, "needs the columns `image` and `label`"),
            ({"image": [png(IMAGES[0][:3])] * 3, "label": [0] * 3, "image_id": IDS},
             "made.parquet: image bird/1.JPEG: it is 5 x 3 pixels, and the test images are 5 x 4"),
            ({"image": [b"none"] * 3, "label": [0] * 3, "image_id": IDS}, "image bird/1.JPEG: cannot be decoded"),
        ],
    )  # fmt: skip
    def test_a_parquet_file(self, tmp_path: Path, columns: dict[str, list], message: str) -> None:
        pq.write_table(pa.table(columns), tmp_path / "made.parquet")
        with pytest.raises(InputError, match=message):
            read(tmp_path / "made.parquet")

    def test_a_pickled_array_is_not_unpickled(self, tmp_path: Path) -> None:
        np.save(tmp_path / "made.npy", np.array([{}] * 3), allow_pickle=True)
        with pytest.raises(InputError, match=r"made.npy: cannot be read"):
            open_made_images(tmp_path / "made.npy", IDS, SHAPE)

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="there are no picture files in this folder"):
            open_made_images(tmp_path, IDS, SHAPE)
        picture(tmp_path / "cat/1.png", IMAGES[0])
        with pytest.raises(
            InputError, match=r"2 of the 3 test images have no image there: bird/1.JPEG, cat/2.png; it holds 1"
        ):
            open_made_images(tmp_path, IDS, SHAPE)
        (tmp_path / "labels.csv").write_text("filename,label,image_id\ncat/1.png,0,a\ncat/1.png,0,b\n")
        with pytest.raises(InputError, match=r"cat/1.png: it would belong to several test images"):
            open_made_images(tmp_path, ["a", "b"], SHAPE)
        (tmp_path / "labels.csv").write_text("filename,label,image_id\ncat/9.png,0,cat/1.png\n")
        with pytest.raises(
            InputError, match=r"labels.csv: 1 of the files that it lists are not in the folder, such as cat/9"
        ):
            open_made_images(tmp_path, ["cat/1.png"], SHAPE)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("filename,image_id\n1.png,a\n2.png,a\n", "labels.csv, line 3: a has another file, 1.png, already"),
            ("filename,image_id\n1.png,\n", "labels.csv, line 2: names no id"),
            ("filename,image_id\n1.png\n", "labels.csv, line 2: names no id"),
            ("filename,image_id\n,a\n", "labels.csv, line 2: names no file"),
            ("filename,image_id,image_id\n1.png,a,b\n", "has 2 columns `image_id`; rename all but one"),
        ],
    )
    def test_a_list_of_a_folder(self, tmp_path: Path, text: str, message: str) -> None:
        for name in ("1.png", "2.png"):
            picture(tmp_path / name, IMAGES[0])
        (tmp_path / "labels.csv").write_text(text)
        with pytest.raises(InputError, match=message):
            open_made_images(tmp_path, ["a"], SHAPE)

    def test_a_coloured_picture_of_a_grey_test_image(self, tmp_path: Path) -> None:
        """Its grey version is another image than that which was made."""
        picture(tmp_path / "a.png", IMAGES[0])
        with pytest.raises(InputError, match=r"a.png: it is coloured, and the test images are grey; save it with one"):
            read(tmp_path, ["a"], (1, 4, 5))

    def test_names_that_several_files_have(self, tmp_path: Path) -> None:
        """Which of them is meant cannot be told, so that none is taken; nor one that several images have."""
        for folder in ("a", "b"):
            picture(tmp_path / folder / "1.png", IMAGES[0])
        with pytest.raises(
            InputError, match=r"have no image there: c/1\.png; a/1.png and b/1.png have the same name, .* labels.csv"
        ):
            open_made_images(tmp_path, ["c/1.png"], SHAPE)
        with pytest.raises(InputError, match=r"no image there: c/1\.png; it holds 2, such as a/1.png"):
            open_made_images(tmp_path, ["a/1.png", "c/1.png"], SHAPE)
        with pytest.raises(InputError, match="1 of the 2 test images have no image there: d/1"):
            open_made_images(tmp_path, ["a/1", "d/1"], SHAPE)

    def test_python_objects(self, tmp_path: Path) -> None:
        objects = np.array(IDS, dtype=object)
        np.save(tmp_path / "a.npy", objects)
        np.savez(tmp_path / "b.npz", images=objects)
        np.savez(tmp_path / "c.npz", images=IMAGES, ids=objects)
        for name, said in (("a.npy", "it holds"), ("b.npz", "`images` holds"), ("c.npz", "`ids` holds")):
            with pytest.raises(InputError, match=rf"{name}: cannot be read \({said} Python objects, .*; save it as"):
                open_made_images(tmp_path / name, IDS, SHAPE)

    @pytest.mark.parametrize(
        ("listed", "said"),
        [
            (
                ["0", "1"],
                "2 of the 2 .*: 00000, 00001; it lists 2 ids, such as 0. .* leading zeros .*: 00000 in place of 0",
            ),
            (["a", "00001"], "1 of the 2 test images have no image there: 00000; it lists 2 ids, such as 00001$"),
        ],
    )
    def test_a_list_of_other_ids(self, tmp_path: Path, listed: list[str], said: str) -> None:
        for number, pixels in enumerate(IMAGES[:2]):
            picture(tmp_path / f"0000{number}.png", pixels)
        lines = [f"0000{number}.png,{image_id}" for number, image_id in enumerate(listed)]
        (tmp_path / "labels.csv").write_text("\n".join(["filename,image_id", *lines]))
        with pytest.raises(InputError, match=rf"labels\.csv: {said}"):
            open_made_images(tmp_path, ["00000", "00001"], SHAPE)

    def test_a_picture(self, tmp_path: Path) -> None:
        picture(tmp_path / "small.png", IMAGES[0][:3])
        Image.fromarray(np.dstack([IMAGES[0], np.full((4, 5), 128, np.uint8)])).save(tmp_path / "clear.png")
        (tmp_path / "damaged.png").write_bytes(b"\x89PNG")
        for name, message in (
            ("small", "it is 5 x 3 pixels, and the test images are 5 x 4"),
            ("clear", "it has alpha beside its pixels"),
            ("damaged", "cannot be decoded"),
        ):
            with pytest.raises(InputError, match=f"{name}.png: {message}"):
                open_made_images(tmp_path, [name], SHAPE).read(0)


class TestBall:
    clean = np.full((3, 1, 2, 2), 100, np.uint8)

    def moved(self, *levels: int) -> np.ndarray:
        made = self.clean.copy()
        made[:, 0, 0, 0] += np.array(levels, np.uint8)
        return made

    def test_images_inside_pass(self) -> None:
        ball = Ball(MadeElsewhere(images="x", eps=8 / 255))
        ball.look(["a", "b", "c"], self.moved(8, 1, 0), self.clean)
        ball.check()
        assert ball.notes == ["1 of 3 images are the test images as they are, without a perturbation"]

    def test_images_outside_are_named_with_their_distances(self) -> None:
        ball = Ball(MadeElsewhere(images="x", eps="8/255"))  # type: ignore[arg-type]
        for _ in range(2):
            ball.look(["a", "b", "c"], self.moved(9, 8, 20), self.clean)
        with pytest.raises(
            InputError,
            match=r"4 of 6 images lie outside the linf ball of 8/255 around their test images: a \(9/255\), "
            r"c \(20/255\), a \(9/255\) and 1 more. The furthest is 20/255 away; eps must be at least that",
        ):
            ball.check()

    def test_a_radius_is_named_as_it_was_written(self) -> None:
        ball = Ball(MadeElsewhere(images="x", eps=0.0156))
        ball.look(["a", "b", "c"], self.moved(3, 4, 0), self.clean)
        with pytest.raises(
            InputError,
            match=r"1 of 3 images lie outside the linf ball of 3.978/255 \(eps 0.0156\) around their test images: "
            r"b \(4/255\). The furthest is 4/255 away; eps must be at least that, .* another order$",
        ):
            ball.check()

    @pytest.mark.parametrize(
        ("furthest", "file", "hint"),
        [
            (9, "a.png", "or are in another order. One level beyond is what rounding to 8 bits can add"),
            (10, "a.png", "or are in another order$"),
            (
                9,
                "a.JPG",
                "in another order. JPEG and WebP do not keep pixels as they were: save PNG files",
            ),
        ],
    )
    def test_what_may_have_taken_them_out_is_said(self, furthest: int, file: str, hint: str) -> None:
        ball = Ball(MadeElsewhere(images="x", eps=8 / 255))
        ball.look(["a", "b", "c"], self.moved(furthest, 8, 0), self.clean)
        with pytest.raises(InputError, match=hint):
            ball.check([Path(file)])

    def test_the_round_ball(self) -> None:
        """Two pixels moved by 3 and 4 levels are 5 levels away."""
        made = self.clean[:1].copy()
        made[0, 0, 0] += np.array([3, 4], np.uint8)
        inside, outside = (Ball(MadeElsewhere(images="x", eps=eps, norm="l2")) for eps in (5 / 255, 4.99 / 255))
        inside.look(["a"], made, self.clean[:1])
        inside.check()
        outside.look(["a"], made, self.clean[:1])
        with pytest.raises(InputError, match=r"a \(0\.0197\)"):
            outside.check()
        admitted = Ball(MadeElsewhere(images="x", eps=0.0197, norm="l2"))  # as the message has it
        admitted.look(["a"], made, self.clean[:1])
        admitted.check()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eps": 8}, "did you mean 8/255"),
        ({"eps": 0.001}, "eps must lie between 1/255 and 1"),
        ({"eps": 0.1, "norm": "l1"}, "norm must be one of linf, l2, not l1"),
        ({"eps": 0.1, "towards": "next"}, "towards must be one of away, column, not next"),
        ({"eps": 0.1, "compare_with": 3}, "compare_with must be text"),
    ],
)
def test_settings_that_mean_nothing(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MadeElsewhere(images="x", **settings)
