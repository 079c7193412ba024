from __future__ import annotations

import collections
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from hpsearch.data.dataset import PARTS, ImageDataset
from hpsearch.data.sources import glyphs, open_catalog
from hpsearch.data.sources.glyphs import FONTS, LETTERS, GlyphReader
from hpsearch.data.spec import DataSpec
from hpsearch.data.splits import SplitSpec, make_split
from hpsearch.data.store import load_dataset
from hpsearch.errors import DataError

LUMA = np.array([0.299, 0.587, 0.114])


def spec(**options: Any) -> DataSpec:
    return DataSpec(source="glyphs", options=options)


def drawn(reader: GlyphReader, start: int, stop: int) -> np.ndarray:
    return np.stack([np.asarray(image) for image in reader.read(start, stop)])


@pytest.fixture(scope="module")
def few() -> ImageDataset:
    """Each of 26 letters in each of 21 fonts, twice."""
    return load_dataset(spec(images=2 * 26 * 21))


def test_the_defaults_are_what_the_help_says() -> None:
    catalog = open_catalog(spec())
    assert len(catalog) == 4000
    assert catalog.classes == tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert str(catalog.images.shape) == "32x32x3"
    assert f"{len(FONTS)} fonts" in glyphs.GLYPHS.help
    # No class has more than one image more than another.
    assert set(np.bincount(catalog.labels).tolist()) == {153, 154}


def test_every_font_has_every_letter(few: ImageDataset) -> None:
    assert few.groups is not None
    pairs = collections.Counter(zip(few.groups, few.labels.tolist(), strict=True))
    assert len(pairs) == 26 * 21
    assert set(pairs.values()) == {2}


def test_the_test_part_has_other_typefaces(few: ImageDataset) -> None:
    assert few.groups is not None
    assert few.official is not None
    fonts: dict[str, set[str]] = {part: set() for part in PARTS}
    for group, part in zip(few.groups, few.official.tolist(), strict=True):
        fonts[PARTS[part]].add(group)
    assert fonts["val"] == set()
    assert len(fonts["train"]) == 16
    assert fonts["test"] == {
        "STIXGeneral", "STIXGeneralBol", "STIXGeneralBolIta", "STIXGeneralItalic", "cmss10",
    }  # fmt: skip
    assert not any(name.startswith("STIX") for name in fonts["train"])


def test_the_validation_part_is_made_of_other_fonts_than_the_training_part(
    few: ImageDataset,
) -> None:
    split = make_split(few, SplitSpec())
    assert few.groups is not None
    groups = {part: {few.groups[row] for row in getattr(split, part).tolist()} for part in PARTS}
    assert groups["train"]
    assert groups["val"]
    assert not groups["train"] & groups["val"]
    assert {name for name, part in FONTS if part == "test"} == groups["test"]


def test_the_fonts_have_all_letters() -> None:
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    assert [path.parent for path in glyphs._font_paths()] == [folder] * len(FONTS)
    stencils = glyphs._stencils(64, len(LETTERS))
    assert len(stencils) == len(LETTERS) * len(FONTS)
    for path in glyphs._font_paths():
        shapes = {stencils[letter, path.stem].tobytes() for letter in LETTERS}
        # A font without a letter draws the same box for all that it lacks, or nothing.
        assert len(shapes) == len(LETTERS)
        assert all(max(shape) > 200 for shape in shapes)


def test_an_image_depends_on_its_number_alone() -> None:
    whole = drawn(GlyphReader(32, 32, 26, 1), 0, 150)
    other = GlyphReader(32, 32, 26, 1)
    numbers = np.random.default_rng(0).permutation(150).tolist()
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(lambda number: drawn(other, number, number + 1)[0], numbers))
    np.testing.assert_array_equal(np.stack(images), whole[numbers])
    assert len({image.tobytes() for image in whole}) == 150


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 8), (20, 60), (60, 20), (150, 140)])
def test_is_drawn_in_the_size_that_is_asked_for(height: int, width: int) -> None:
    catalog = open_catalog(DataSpec(source="glyphs", size=(height, width)))
    images = [np.asarray(image) for image in catalog.images.read(0, 30)]
    assert {(image.shape, image.dtype.name) for image in images} == {((height, width, 3), "uint8")}


def test_goes_through_the_store_in_colour_and_gray() -> None:
    options = {"images": 104}
    data = load_dataset(DataSpec(source="glyphs", size=(24, 24), options=options))
    assert data.folder is not None
    np.testing.assert_array_equal(data.images, drawn(GlyphReader(24, 24, 26, 1), 0, 104))
    assert data.names is not None
    assert data.names[27] == "27 B DejaVuSerif"
    gray = load_dataset(DataSpec(source="glyphs", size=(24, 24), gray=True, options=options))
    assert gray.images.shape == (104, 24, 24, 1)
    np.testing.assert_allclose(gray.images[..., 0], data.images @ LUMA, atol=1.0)


def test_classes_can_be_left_out() -> None:
    options = {"letters": 3, "images": 30}
    data = load_dataset(DataSpec(source="glyphs", exclude=("B",), options=options))
    assert data.classes == ("A", "C")
    whole = drawn(GlyphReader(32, 32, 3, 1), 0, 30)
    np.testing.assert_array_equal(data.images, whole[np.arange(30) % 3 != 1])


def test_small_letters_follow_capitals() -> None:
    catalog = open_catalog(spec(letters=len(LETTERS)))
    assert catalog.classes[24:29] == ("Y", "Z", "a", "b", "d")
    assert len({letter.lower() for letter in LETTERS[26:]} & set("cosvwxz")) == 0


@pytest.fixture(scope="module")
def letters_alone() -> np.ndarray:
    """(1092, 32, 32): how much darker or brighter an image is for its letter."""
    reader = GlyphReader(32, 32, 26, 3)
    with_letters = drawn(reader, 0, 1092) @ LUMA
    colour_of_letter = glyphs._far

    def invisible(random: np.random.Generator, luma: float, is_dark: bool) -> Any:
        colour_of_letter(random, luma, is_dark)  # the generator goes on as before
        return (round(luma),) * 3

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(glyphs, "_far", invisible)
        return np.abs(with_letters - drawn(reader, 0, 1092) @ LUMA)


def test_every_letter_stands_out(letters_alone: np.ndarray) -> None:
    seen = [image[image > 25] for image in letters_alone]
    assert min(len(pixels) for pixels in seen) > 10
    assert max(len(pixels) for pixels in seen) < 32 * 32 / 2
    assert min(float(np.median(pixels)) for pixels in seen) > 35


def test_the_letter_is_that_of_the_label(letters_alone: np.ndarray) -> None:
    """Cut out, and so easy that a linear model reads it."""
    cut = []
    for image in letters_alone:
        rows, columns = np.nonzero(image > 25)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        letter = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).crop(box)
        cut.append(np.asarray(letter.resize((10, 10))).ravel() / 255)
    pixels, labels = np.array(cut), np.arange(len(cut)) % 26
    model = LogisticRegression(C=10, max_iter=100).fit(pixels[:800], labels[:800])
    assert model.score(pixels[800:], labels[800:]) > 0.6


def test_is_too_hard_for_a_linear_model(few: ImageDataset) -> None:
    assert few.official is not None
    pixels = few.images.reshape(len(few), -1).astype(np.float32)
    train, test = few.official == PARTS.index("train"), few.official == PARTS.index("test")
    scaler = StandardScaler().fit(pixels[train])
    model = LogisticRegression(C=1e-3, max_iter=30, tol=0.1)
    model.fit(scaler.transform(pixels[train]), few.labels[train])
    assert model.score(scaler.transform(pixels[test]), few.labels[test]) < 0.3


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"letters": 1}, "letters must be from 2 to 37, but is 1"),
        ({"letters": 38}, "letters must be from 2 to 37, but is 38"),
        ({"images": 103}, "images must be from 104 (4 of each letter) to 1000000, but is 103"),
        ({"images": 10**9}, "but is 1000000000"),
        ({"letters": 10, "images": 39}, "from 40 "),
        ({"images": "many"}, "'many'"),
        ({"seed": 0}, "'seed' must be a whole number of at least 1"),
        ({"fonts": 3}, "there is no option 'fonts'"),
    ],
)
def test_other_options_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=re.escape(told)) as caught:
        open_catalog(spec(**options))
    assert "\n" not in str(caught.value)


def test_the_fewest_images_can_be_split() -> None:
    data = load_dataset(spec(letters=2, images=8))
    split = make_split(data, SplitSpec())
    assert split.counts["test"] == 2


class TestIdentity:
    def test_every_setting_counts(self) -> None:
        readers = [
            GlyphReader(32, 32, 26, 1),
            GlyphReader(33, 32, 26, 1),
            GlyphReader(32, 33, 26, 1),
            GlyphReader(32, 32, 25, 1),
            GlyphReader(32, 32, 26, 2),
        ]
        assert len({reader.content_key() for reader in readers}) == len(readers)
        assert len({reader.signature() for reader in readers}) == len(readers)
        images = [drawn(reader, 26, 30).tobytes() for reader in readers]
        assert len(set(images)) == len(readers)

    @pytest.mark.parametrize("what", ["pil", "freetype2", "numpy", "renderer"])
    def test_every_version_counts(self, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
        reader = GlyphReader(32, 32, 26, 1)
        before = (reader.signature(), reader.content_key())
        known = glyphs.features.version
        if what == "renderer":
            monkeypatch.setattr(glyphs, "VERSION", glyphs.VERSION + 1)
        elif what == "numpy":
            monkeypatch.setattr(np, "__version__", "0.1")
        else:
            other = {what: "0.1"}
            monkeypatch.setattr(
                glyphs.features, "version", lambda name: other.get(name) or known(name)
            )
        assert reader.signature() != before[0]
        assert reader.content_key() != before[1]

    def test_the_fonts_count_but_not_where_they_are(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reader = GlyphReader(32, 32, 26, 1)
        before = (reader.signature(), reader.content_key())
        copies = []
        for path in glyphs._font_paths():
            copies.append(tmp_path / path.name)
            copies[-1].write_bytes(path.read_bytes())
        monkeypatch.setattr(glyphs, "_font_paths", lambda: tuple(copies))
        assert reader.signature() != before[0]
        assert reader.content_key() == before[1]
        copies[7].write_bytes(copies[7].read_bytes() + b" ")
        assert reader.content_key() != before[1]

    def test_a_font_that_is_missing_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gone = tmp_path / "cmr10.ttf"
        monkeypatch.setattr(glyphs, "_font_paths", lambda: (gone,))
        glyphs._stencils.cache_clear()
        with pytest.raises(DataError, match="install matplotlib again") as caught:
            load_dataset(spec(seed=77))
        assert str(gone) in str(caught.value)
        assert "\n" not in str(caught.value)
