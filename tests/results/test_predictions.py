"""The table of predictions: all of it comes back, and it agrees with the matrix."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpsearch.data.dataset import ImageDataset, ImagePart
from hpsearch.errors import DataError
from hpsearch.results.predictions import (
    read_predictions,
    write_predictions,
)
from hpsearch.results.scores import score

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
NASTY = st.one_of(
    st.sampled_from(
        ["=1+1", "+1", "-1", "@x", "'", '"', '","', "a\nb", "\r", "\r\n", "p x", "日本 \U0001f600"]
    ),
    st.builds("{}{}".format, st.sampled_from([*"=+-@'\t\r\n\"", ""]), TEXTS),
)


def part(
    labels: np.ndarray,
    classes: tuple[str, ...],
    names: list[str] | None = None,
    groups: list[str] | None = None,
) -> ImagePart:
    """The images of a data set in reverse."""
    n = len(labels)
    return ImageDataset(
        name="test",
        images=np.zeros((n, 2, 2, 1), np.uint8),
        labels=labels[::-1].astype(np.int64),
        classes=classes,
        names=None if names is None else names[::-1],
        groups=None if groups is None else groups[::-1],
    ).part(np.arange(n)[::-1])


def random_logits(n: int, classes: int, seed: int = 0) -> torch.Tensor:
    return 4 * torch.randn((n, classes), generator=torch.Generator().manual_seed(seed))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.data(), st.booleans())
def test_nasty_names_come_back(tmp_path: Path, data: st.DataObject, grouped: bool) -> None:
    classes = tuple(data.draw(st.lists(NASTY, min_size=2, max_size=4, unique=True)))
    n = data.draw(st.integers(1, 6))
    labels = np.array(data.draw(st.lists(st.integers(0, len(classes) - 1), min_size=n, max_size=n)))
    names = data.draw(st.lists(NASTY, min_size=n, max_size=n))
    groups = data.draw(st.lists(NASTY, min_size=n, max_size=n)) if grouped else None
    images = part(labels, classes, names, groups)
    scores = score(random_logits(n, len(classes)), images)
    write_predictions(tmp_path / "p.csv", images, scores)
    found = read_predictions(tmp_path / "p.csv")
    assert found.names == tuple(names)
    assert found.groups == (None if groups is None else tuple(groups))
    assert found.true == tuple(classes[label] for label in labels)
    assert found.predicted == tuple(classes[guess] for guess in scores.predicted)
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.reader(file))
    probabilities = np.array([row[-len(classes) :] for row in table[1:]], dtype=np.float64)
    np.testing.assert_allclose(probabilities, scores.probabilities, rtol=1e-6)
    for row in table:
        assert not [cell for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


def test_the_matrix_is_that_of_the_table(tmp_path: Path) -> None:
    classes = tuple("abcde")
    labels = np.random.default_rng(0).integers(0, 5, 300)
    images = part(labels, classes)
    scores = score(random_logits(300, 5), images)
    write_predictions(tmp_path / "p.csv", images, scores)
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "image",
        "true",
        "predicted",
        "confidence",
        *(f"p {c}" for c in classes),
    ]
    counted = Counter((row["true"], row["predicted"]) for row in rows)
    for number, true in enumerate(classes):
        for other, predicted in enumerate(classes):
            assert counted[true, predicted] == scores.matrix[number, other]
    for row in rows:
        shares = {name: float(row[f"p {name}"]) for name in classes}
        assert max(shares, key=shares.__getitem__) == row["predicted"]
        assert float(row["confidence"]) == shares[row["predicted"]]
    # Without names, an image is called by its row in the data set: here from the last to the first.
    assert [row["image"] for row in rows] == [str(row) for row in range(299, -1, -1)]


def test_a_file_name_that_is_no_text_can_be_written(tmp_path: Path) -> None:
    images = part(np.array([0, 1]), ("a", "b"), ["im\udcff.png", "b.png"])
    write_predictions(tmp_path / "p.csv", images, score(random_logits(2, 2), images))
    assert read_predictions(tmp_path / "p.csv").names == ("im\\udcff.png", "b.png")


def test_a_cut_table_is_refused_or_ends_with_a_whole_row(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    images = part(np.array([0, 1, 0]), ("a", "b"), ["x", "y\nz", "'"], ["g", "h", "g"])
    write_predictions(path, images, score(random_logits(3, 2), images))
    whole, names = path.read_bytes(), ("x", "y\nz", "'")
    refused = 0
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            found = read_predictions(path)
        except DataError:
            refused += 1
        else:
            assert found.names == names[: len(found.names)]
            assert len(found.predicted) == len(found.names)
    assert refused > 0.9 * len(whole)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00\x01\n",
        b"a,b\r\n1,2\r\n",
        b"image,true,predicted,confidence,p a,p b\r\nx,a,c,0.5,0.5,0.5\r\n",
        b"image,true,predicted,confidence,p a,p b\r\nx,a,b,0.5,0.5\r\n",
        b"image,true,predicted,confidence,p a,p b\r\n",
    ],
    ids=["binary", "other", "unknown class", "short row", "no rows"],
)
def test_what_is_no_table_of_predictions_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"p\.csv") as caught:
        read_predictions(tmp_path / "p.csv")
    assert "\n" not in str(caught.value)


def test_a_missing_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_predictions(tmp_path / "none.csv")
