"""Scores of predicted classes, beside scikit-learn's."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from hpsearch.training.scores import Scores, classification_scores


@st.composite
def predictions(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    """Labels, predicted classes, and how many classes there are; some of them may be absent."""
    classes = draw(st.integers(1, 12))
    used = st.integers(0, draw(st.integers(0, classes - 1)))
    pairs = draw(st.lists(st.tuples(used, used), min_size=1, max_size=60))
    labels, predicted = (list(column) for column in zip(*pairs, strict=True))
    return labels, predicted, classes


def scored(labels: list[int], predicted: list[int], classes: int) -> Scores:
    return classification_scores(torch.tensor(labels), torch.tensor(predicted), classes)


@given(predictions())
def test_they_are_those_of_scikit_learn(case: tuple[list[int], list[int], int]) -> None:
    labels, predicted, classes = case
    scores = scored(labels, predicted, classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are absent
        assert scores.accuracy == accuracy_score(labels, predicted)
        assert scores.balanced_accuracy == pytest.approx(
            balanced_accuracy_score(labels, predicted), abs=1e-12
        )
        assert scores.macro_f1 == pytest.approx(
            f1_score(labels, predicted, average="macro", zero_division=0), abs=1e-12
        )


@given(predictions(), st.randoms(use_true_random=False))
def test_neither_the_order_nor_the_names_of_the_classes_matter(case, random) -> None:  # type: ignore[no-untyped-def]
    labels, predicted, classes = case
    names, order = list(range(classes)), list(range(len(labels)))
    random.shuffle(names)
    random.shuffle(order)
    other = scored([names[labels[i]] for i in order], [names[predicted[i]] for i in order], classes)
    first = scored(labels, predicted, classes)
    assert other.accuracy == first.accuracy
    assert other.balanced_accuracy == pytest.approx(first.balanced_accuracy, abs=1e-12)
    assert other.macro_f1 == pytest.approx(first.macro_f1, abs=1e-12)


def test_by_hand() -> None:
    # Of class 0, 3 of 4 are right; of class 1, 0 of 1; class 2 is guessed once; 3 never occurs.
    scores = scored([0, 0, 0, 0, 1], [0, 0, 0, 2, 0], 4)
    assert scores.accuracy == 3 / 5
    assert scores.balanced_accuracy == pytest.approx((3 / 4 + 0) / 2)
    assert scores.macro_f1 == pytest.approx((2 * 3 / (4 + 4) + 0 + 0) / 3)


def test_a_thousand_classes_and_a_single_image() -> None:
    assert scored([999], [999], 1000) == Scores(1.0, 1.0, 1.0)
    assert scored([999], [0], 1000) == Scores(0.0, 0.0, 0.0)
    assert scored([0, 0], [0, 0], 1) == Scores(1.0, 1.0, 1.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_it_waits_for_a_gpu_once() -> None:
    labels = torch.randint(0, 50, (3000,))
    predicted = torch.where(torch.rand(3000) < 0.7, labels, torch.randint(0, 50, (3000,)))
    there = labels.cuda(), predicted.cuda()
    classification_scores(*there, 50)  # what is loaded at the first call may wait
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            scores = classification_scores(*there, 50)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert sum("called a synchronizing" in str(w.message) for w in caught) == 1
    assert scores == classification_scores(labels, predicted, 50)
