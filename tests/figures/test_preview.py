from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from hpsearch.data.dataset import ImageDataset
from hpsearch.figures.examples import VARIANTS, examples_figure
from hpsearch.figures.png import save_png
from hpsearch.figures.preview import TALLEST, PreviewRow, preview_figure

NAMES = ["$x_1^2$", "$", "a_b", "\x1b[31mred\n", "\\frac{", "日本語", "{0} %s", "W" * 300, ""]


def row(
    count: int = 3,
    *,
    title: str = "ant",
    shape: tuple[int, int, int] = (8, 8, 1),
    variants: int = 0,
    name: str = "image",
) -> PreviewRow:
    """Images that are all of one value: 10, 20, 30 and so on; variants are 1, 2, ... lighter."""
    images = [np.full(shape, 10 * (n + 1), np.uint8) for n in range(count)]
    return PreviewRow(
        title=title,
        images=images,
        names=[f"{name} {n}" if name == "image" else name for n in range(count)],
        variants=[[image + np.uint8(v + 1) for image in images] for v in range(variants)],
    )


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def values(figure: Figure) -> list[int]:
    """The value of each image that is drawn, from above, and from left to right."""
    drawn = [(image.get_extent(), image) for image in figure.axes[0].images]
    ordered = sorted(drawn, key=lambda item: (round(item[0][3], 3), item[0][0]))
    return [int(np.asarray(image.get_array()).flat[0]) for _, image in ordered]


def saved(figure: Figure, path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_png(figure, path)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_each_class_has_a_row_with_its_names() -> None:
    figure = preview_figure([row(3), row(2, title="bee")], title="Examples")
    assert texts(figure)[0] == "Examples"
    shown = texts(figure)[1:]
    assert shown == ["ant", "image 0", "image 1", "image 2", "bee", "image 0", "image 1"]
    assert values(figure) == [10, 20, 30, 10, 20]


def test_variants_are_rows_below_the_images() -> None:
    figure = preview_figure([row(3, variants=2), row(1)], title="t")
    assert values(figure) == [10, 20, 30, 11, 21, 31, 12, 22, 32, 10]


def test_nothing_overlaps_and_all_is_on_the_page() -> None:
    figure = preview_figure(
        [row(4, variants=1), row(2, shape=(16, 8, 3)), row(2, shape=(8, 30, 1))], title="t"
    )
    axes = figure.axes[0]
    boxes = [image.get_extent() for image in axes.images]
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for x0, x1, y1, y0 in boxes:
        assert left <= x0 < x1 <= right
        assert top <= y0 < y1 <= bottom
    for n, (x0, x1, y1, y0) in enumerate(boxes):
        for a0, a1, b1, b0 in boxes[:n]:
            assert x1 <= a0 or a1 <= x0 or y1 <= b0 or b1 <= y0


@pytest.mark.parametrize(
    "shape", [(8, 8, 1), (64, 64, 3), (20, 60, 3), (60, 20, 1), (1, 1, 1), (300, 2, 1)]
)
def test_images_keep_their_proportions(shape: tuple[int, int, int]) -> None:
    figure = preview_figure([row(2, shape=shape)], title="t")
    for image in figure.axes[0].images:
        left, right, bottom, top = image.get_extent()
        assert (right - left) / (bottom - top) == pytest.approx(shape[1] / shape[0])


def test_gray_levels_and_colours_are_those_of_the_image(tmp_path: Path) -> None:
    colours = [np.full((4, 4, 3), color, np.uint8) for color in ((200, 30, 60), (10, 90, 250))]
    grays = [np.full((4, 4, 1), level, np.uint8) for level in (7, 130)]
    rows = [
        PreviewRow(title="a", images=colours, names=["", ""]),
        PreviewRow(title="b", images=grays, names=["", ""]),
    ]
    pixels = saved(preview_figure(rows, title="t"), tmp_path / "p.png").reshape(-1, 3).tolist()
    counts = {tuple(pixel) for pixel in pixels}
    assert {(200, 30, 60), (10, 90, 250), (7, 7, 7), (130, 130, 130)} <= counts


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_as_it_is(tmp_path: Path, name: str) -> None:
    figure = preview_figure([row(2, title=name, name=name)], title=f"{name} & more")
    saved(figure, tmp_path / "p.png")
    safe = name.replace("\x1b", "\\x1b").replace("\n", "\\n")
    for shown in texts(figure)[1:]:
        start, _, end = shown.partition("…")
        assert shown == safe or (len(end) > 8 and safe.startswith(start) and safe.endswith(end))
    assert not any(text.get_parse_math() for text in figure.axes[0].texts)
    assert texts(figure)[0].replace("\n", "")[:20] == f"{safe} & more"[:20]


def test_a_long_name_does_not_reach_into_the_next_cell(tmp_path: Path) -> None:
    figure = preview_figure([row(2, name="W" * 300)], title="")
    pixels = saved(figure, tmp_path / "p.png")
    first, second = (image.get_extent() for image in figure.axes[0].images)
    bottom = round(150 * first[2])
    between = pixels[
        bottom + 2 :, round(150 * (first[1] + second[0]) / 2) + 1 : round(150 * second[0]) - 1
    ]
    assert between.size
    assert (between == 255).all()
    assert (pixels[bottom + 2 :, : round(150 * first[1])] < 255).any()


def test_101_classes_fit_on_one_picture(tmp_path: Path) -> None:
    rows = [row(1, title=f"class {n}") for n in range(101)]
    figure = preview_figure(rows[:101], title="t")
    height = figure.get_size_inches()[1]
    assert height <= TALLEST + 1
    shown = [text for text in texts(figure) if text.startswith("class")]
    left = [text for text in texts(figure) if "more classes" in text]
    assert len(shown) > 50
    assert left == [f"and {101 - len(shown)} more classes"]
    assert saved(figure, tmp_path / "p.png").shape[0] == pytest.approx(150 * height, abs=1)


def test_few_classes_are_all_there() -> None:
    figure = preview_figure([row(1, title=f"class {n}") for n in range(30)], title="t")
    assert not [text for text in texts(figure) if "more classes" in text]


@pytest.mark.parametrize(
    "rows", [[], [row(0)], [row(0), row(2)]], ids=["none", "empty", "one empty"]
)
def test_a_class_without_images_can_be_drawn(tmp_path: Path, rows: list[PreviewRow]) -> None:
    saved(preview_figure(rows, title="t"), tmp_path / "p.png")


def test_examples_are_mixed_with_those_of_other_classes() -> None:
    images = np.stack([np.full((4, 4, 1), level, np.uint8) for level in (0, 200)])
    data = ImageDataset("two", images, np.array([0, 1]), ("dark", "bright"))
    rows = [np.array([0]), np.array([1])]
    assert values(examples_figure(data, rows, {})) == [0, 200]
    dark, *mixed_dark, bright, _, _, _ = values(examples_figure(data, rows, {"mixup": 1.0}))
    assert (dark, bright) == (0, 200)
    assert len(mixed_dark) == VARIANTS
    assert len(set(mixed_dark)) == VARIANTS
    assert all(0 < level < 200 for level in mixed_dark)


def test_each_example_has_its_own_versions_below_it() -> None:
    images = np.stack([np.full((4, 4, 1), level, np.uint8) for level in (10, 40, 90, 160, 250)])
    data = ImageDataset("five", images, np.array([0, 0, 1, 2, 2]), ("a", "b", "c"))
    rows = [np.array([0, 1]), np.array([], np.int64), np.array([3, 4])]
    drawn = values(examples_figure(data, rows, {"vflip": 0.5}))
    assert drawn == [10, 40] * (1 + VARIANTS) + [160, 250] * (1 + VARIANTS)
