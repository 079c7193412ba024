"""Scores: those of their definitions, whatever is odd about the images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from hpsearch.data.dataset import ImageDataset, ImagePart
from hpsearch.errors import CheckpointError
from hpsearch.results.scores import BINS, calibration_error, score
from hpsearch.results.words import score_rows
from hpsearch.training.scores import classification_scores

HANDS = ("female-dorsal", "female-palmar", "male-dorsal", "male-palmar")


def part(
    labels: Sequence[int],
    classes: Sequence[str] = ("a", "b", "c"),
    *,
    groups: Sequence[str] | None = None,
    columns: tuple[str, ...] = (),
    class_parts: tuple[tuple[str, ...], ...] = (),
) -> ImagePart:
    """Images of these labels, in the middle of a data set that has others around them."""
    whole = np.array([0, *labels, 0])
    return ImageDataset(
        name="test",
        images=np.zeros((len(whole), 2, 2, 1), np.uint8),
        labels=whole.astype(np.int64),
        classes=tuple(classes),
        groups=None if groups is None else ["first", *groups, "last"],
        columns=columns,
        class_parts=class_parts,
    ).part(np.arange(1, len(labels) + 1))


def sure(guesses: Sequence[int], classes: int = 3) -> torch.Tensor:
    logits = torch.full((len(guesses), classes), -5.0)
    logits[range(len(guesses)), list(guesses)] = 5.0
    return logits


def test_scores_by_hand() -> None:
    scores = score(sure([0, 0, 1, 1, 1, 0]), part([0, 0, 0, 1, 1, 2]))
    assert scores.matrix.tolist() == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert scores.predicted.tolist() == [0, 0, 1, 1, 1, 0]
    metrics = scores.metrics
    assert (metrics["images"], metrics["errors"]) == (6, 2)
    assert metrics["accuracy"] == pytest.approx(4 / 6)
    assert metrics["balanced_accuracy"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert metrics["macro_f1"] == pytest.approx((2 * 2 / 6 + 2 * 2 / 5 + 0) / 3)
    nothing = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    assert metrics["classes"]["c"] == nothing
    right, wrong = np.exp(5.0), np.exp(-5.0)
    total = right + 2 * wrong
    assert metrics["log_loss"] == pytest.approx(
        -(4 * np.log(right / total) + 2 * np.log(wrong / total)) / 6
    )
    # All are equally sure, so all are in one bin.
    assert metrics["calibration_error"] == pytest.approx(right / total - 4 / 6)
    assert metrics["interval"] == "Wilson"
    assert metrics["columns"] == {}
    assert scores.columns == ()
    assert scores.probabilities.sum(axis=1) == pytest.approx(np.ones(6))
    assert scores.confidence == pytest.approx(np.full(6, right / total))


@given(
    st.integers(2, 6).flatmap(
        lambda n: st.lists(
            st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), min_size=1, max_size=40
        ).map(lambda pairs: (n, pairs))
    )
)
def test_scores_are_those_of_the_training(case: tuple[int, list[tuple[int, int]]]) -> None:
    """Also where classes are absent: of the two definitions in use, one is meant everywhere."""
    n, pairs = case
    labels, guesses = ([pair[side] for pair in pairs] for side in (0, 1))
    names = [f"class {number}" for number in range(n)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = score(sure(guesses, n), part(labels, names))
    trained = classification_scores(torch.tensor(labels), torch.tensor(guesses), n)
    metrics = scores.metrics
    assert metrics["accuracy"] == pytest.approx(trained.accuracy)
    assert metrics["balanced_accuracy"] == pytest.approx(trained.balanced_accuracy)
    assert metrics["macro_f1"] == pytest.approx(trained.macro_f1)
    assert scores.matrix.sum() == len(pairs) == metrics["images"]
    assert sum(row["support"] for row in metrics["classes"].values()) == len(pairs)
    low, high = metrics["accuracy_95"]
    assert 0 <= low <= metrics["accuracy"] <= high <= 1


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_balanced_accuracy_is_that_of_scikit_learn() -> None:
    labels, guesses = [0, 0, 1, 1, 1], [0, 2, 1, 1, 0]
    found = score(sure(guesses), part(labels)).metrics["balanced_accuracy"]
    assert found == pytest.approx(balanced_accuracy_score(labels, guesses))


def test_scores_say_over_what_classes_they_are() -> None:
    """Classes a and b have images, c is predicted, of d nobody speaks."""
    metrics = score(sure([0, 2], 4), part([0, 1], "abcd")).metrics
    assert metrics["macro_f1"] == pytest.approx((1 + 0 + 0) / 3)
    assert metrics["balanced_accuracy"] == pytest.approx((1 + 0) / 2)
    rows = dict(score_rows(metrics))
    assert rows["macro F1"] == "0.3333 (over the 3 classes that occur or are predicted)"
    assert rows["balanced accuracy"] == "50.00 % (over the 2 classes that occur)"
    assert rows["classes without images"] == "2 of 4: c, d"
    rows = dict(score_rows(score(sure([0, 1], 2), part([0, 1], "ab")).metrics))
    assert rows["macro F1"] == "1.0000"
    assert "classes without images" not in rows


def test_one_image_can_be_scored() -> None:
    metrics = score(sure([1]), part([1])).metrics
    assert (metrics["accuracy"], metrics["errors"]) == (1.0, 0)
    low, high = metrics["accuracy_95"]
    assert low < 0.3
    assert high == 1.0


def test_calibration_by_hand() -> None:
    """Two bins: in one 0.95 sure and 3 of 4 right, in the other 0.55 sure and 1 of 2 right."""
    confidence = np.array([0.95] * 4 + [0.55] * 2)
    right = np.array([True, True, True, False, True, False])
    expected = 4 / 6 * abs(0.95 - 0.75) + 2 / 6 * abs(0.55 - 0.5)
    assert calibration_error(confidence, right) == pytest.approx(expected)


def test_calibration_at_the_edges_of_the_bins() -> None:
    """A bin holds its upper end, so these two images are in bins of their own."""
    edge = 10 / BINS
    confidence, right = np.array([edge, np.nextafter(edge, 1)]), np.array([True, False])
    assert calibration_error(confidence, right) == pytest.approx((1 - edge) / 2 + edge / 2)
    assert calibration_error(np.array([1.0]), np.array([True])) == 0.0
    together = np.array([edge - 0.01, edge])
    assert calibration_error(together, right) == pytest.approx(abs(1 - 2 * edge + 0.01) / 2)


def test_the_columns_of_the_label_are_scored_alone() -> None:
    """Of six hands one has the wrong gender, one the wrong aspect, one both."""
    halves = tuple(tuple(name.split("-")) for name in HANDS)
    labels, guesses = [0, 1, 2, 3, 0, 1], [0, 1, 0, 2, 3, 1]
    hands = part(labels, HANDS, columns=("gender", "aspect"), class_parts=halves)
    scores = score(sure(guesses, 4), hands)
    gender, aspect = scores.columns
    assert (gender.name, gender.values) == ("gender", ("female", "male"))
    assert gender.matrix.tolist() == [[3, 1], [1, 1]]
    assert (aspect.name, aspect.values) == ("aspect", ("dorsal", "palmar"))
    assert aspect.matrix.tolist() == [[2, 1], [1, 2]]
    for column in scores.columns:
        share = np.trace(column.matrix) / 6
        assert column.accuracy == pytest.approx(share)
        low, high = column.accuracy_95
        assert low < share < high
        assert scores.metrics["columns"][column.name] == {
            "accuracy": column.accuracy,
            "accuracy_95": [low, high],
        }
    assert scores.metrics["accuracy"] == pytest.approx(0.5)


def test_groups_make_the_interval_wider() -> None:
    """Ten people of whom each is always right or always wrong say as much as ten images."""
    labels, guesses = [0] * 200, [0] * 140 + [1] * 60
    groups = [f"person {number // 20}" for number in range(200)]
    alone = score(sure(guesses), part(labels)).metrics
    grouped = score(sure(guesses), part(labels, groups=groups)).metrics
    assert grouped["interval"] == "bootstrap over 10 groups"
    width, wide = (m["accuracy_95"][1] - m["accuracy_95"][0] for m in (alone, grouped))
    assert wide > 3 * width
    again = score(sure(guesses), part(labels, groups=groups)).metrics
    assert again == grouped


def test_outputs_that_are_no_numbers_are_refused() -> None:
    logits = sure([0, 1, 2])
    logits[1, 0] = float("nan")
    with pytest.raises(CheckpointError, match="not finite for 1 of 3 images"):
        score(logits, part([0, 1, 2]))
