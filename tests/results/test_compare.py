"""Two models on the same images: McNemar's test by hand, and what follows from it."""

from __future__ import annotations

import itertools
import json
import math
import operator
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.data.dataset import ImageDataset
from hpsearch.errors import DataError
from hpsearch.results.compare import MCNEMAR, SIGN_FLIPS, compare, sign_flip_test
from hpsearch.results.folder import PREDICTIONS
from hpsearch.results.predictions import write_predictions
from hpsearch.results.scores import score


def export_of(
    folder: Path,
    right: Sequence[bool],
    *,
    names: Sequence[str] | None = None,
    labels: Sequence[int] | None = None,
    groups: Sequence[str] | None = None,
    classes: tuple[str, str] = ("cat", "dog"),
) -> Path:
    """An export's predictions, of a model that has these images right."""
    true = np.array([0] * len(right) if labels is None else labels, dtype=np.int64)
    part = ImageDataset(
        name="test",
        images=np.zeros((len(right), 2, 2, 1), np.uint8),
        labels=true,
        classes=classes,
        names=names,
        groups=groups,
    ).part()
    logits = torch.zeros(len(right), 2)
    logits[range(len(right)), np.where(right, true, 1 - true)] = 3.0
    folder.mkdir()
    write_predictions(folder / PREDICTIONS, part, score(logits, part))
    return folder


def truths(*runs: int) -> list[bool]:
    """Runs of right and wrong images in turn."""
    return [number % 2 == 0 for number, length in enumerate(runs) for _ in range(length)]


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (3, 9), (9, 3), (7, 7), (2, 30)])
def test_mcnemar_by_hand(first: int, second: int) -> None:
    """Twice the smaller tail of a binomial distribution with one half."""
    n, smaller = first + second, min(first, second)
    tail = sum(math.comb(n, k) for k in range(smaller + 1)) / 2**n
    gains = np.repeat([-1, 0, 1], [first, 5, second])
    assert sign_flip_test(gains) == pytest.approx(min(1.0, 2 * tail))


@given(st.lists(st.integers(-4, 4), max_size=9))
def test_flips_of_groups_by_hand(gains: list[int]) -> None:
    """All ways to give the answers of groups to the other model."""
    flips = itertools.product([-1, 1], repeat=len(gains))
    sums = [abs(sum(map(operator.mul, signs, gains))) for signs in flips]
    share = sum(found >= abs(sum(gains)) for found in sums) / len(sums)
    assert sign_flip_test(np.array(gains, dtype=np.int64)) == pytest.approx(share)


def test_a_clear_difference(tmp_path: Path) -> None:
    first = export_of(tmp_path / "a", truths(60, 40))  # the first 60
    second = export_of(tmp_path / "b", [*truths(0, 5), *truths(85, 10)])  # 55 of those, and 30 more
    result = compare(first, second)
    assert (result.images, result.groups) == (100, None)
    assert (result.both_right, result.both_wrong) == (55, 10)
    assert (result.only_first_right, result.only_second_right) == (5, 30)
    assert (result.first_accuracy, result.second_accuracy) == (0.6, 0.85)
    assert result.difference == pytest.approx(0.25)
    tail = sum(math.comb(35, k) for k in range(6)) / 2**35
    assert (result.method, result.p_value) == (MCNEMAR, pytest.approx(2 * tail))
    assert result.difference_95 is not None
    low, high = result.difference_95
    assert 0.1 < low < 0.25 < high < 0.4
    assert "The second is better" in result.conclusion
    back = compare(second, first)
    assert "The first is better" in back.conclusion
    assert back.difference == pytest.approx(-0.25)
    assert json.loads(json.dumps(result.to_dict()))["p_value"] == result.p_value


def test_a_difference_that_may_be_chance(tmp_path: Path) -> None:
    first = export_of(tmp_path / "a", truths(95, 5))
    second = export_of(tmp_path / "b", truths(97, 3))
    result = compare(first, second)
    assert result.p_value == pytest.approx(0.5)
    assert "cannot be told" in result.conclusion


def test_equal_predictions(tmp_path: Path) -> None:
    result = compare(
        export_of(tmp_path / "a", truths(9, 1)), export_of(tmp_path / "b", truths(9, 1))
    )
    assert (result.p_value, result.difference, result.difference_95) == (1.0, 0.0, None)
    assert "nothing here tells them apart" in result.conclusion


def test_images_of_few_people_prove_less(tmp_path: Path) -> None:
    """All that the second gains is of one person of ten: McNemar's test alone would be sure."""
    groups = [f"person {number // 20}" for number in range(200)]
    first = export_of(tmp_path / "a", truths(180, 20), groups=groups)
    second = export_of(tmp_path / "b", truths(200), groups=groups)
    result = compare(first, second)
    assert result.groups == 10
    assert (result.method, result.p_value) == (SIGN_FLIPS, 1.0)
    assert result.difference_95 is not None
    assert result.difference_95[0] <= 0 < result.difference_95[1]
    assert "cannot be told" in result.conclusion
    spread = [number % 20 >= 2 for number in range(200)]  # two more of each person
    better = compare(
        export_of(tmp_path / "c", spread, groups=groups),
        export_of(tmp_path / "d", truths(200), groups=groups),
    )
    assert better.p_value == pytest.approx(2 / 2**10)
    assert "The second is better" in better.conclusion
    alone = [f"person {number // 200}" for number in range(200)]
    one = export_of(tmp_path / "e", spread, groups=alone)
    result = compare(one, export_of(tmp_path / "f", truths(200), groups=alone))
    assert (result.difference_95, result.groups, result.p_value) == (None, 1, 1.0)
    assert "cannot be told" in result.conclusion


def test_classes_may_be_in_another_order(tmp_path: Path) -> None:
    first = export_of(tmp_path / "a", truths(3, 1), labels=[0, 1, 1, 0])
    swapped = export_of(tmp_path / "b", truths(4), labels=[1, 0, 0, 1], classes=("dog", "cat"))
    assert compare(first, swapped).only_second_right == 1


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"right": truths(3)}, "4 and 3"),
        ({"names": ["a", "b", "x\ny", "d"]}, r"row 3 the image is 'c' in one and 'x\\ny'"),
        ({"labels": [0, 1, 0, 0]}, "row 2 the true class is 'cat' in one and 'dog'"),
        ({"groups": ["p", "p", "q", "r"]}, "row 4 the group is 'q' in one and 'r'"),
        ({"groups": None}, "only one of them has groups"),
    ],
    ids=["number", "names", "classes", "groups", "no groups"],
)
def test_other_images_are_refused(tmp_path: Path, other: dict[str, object], message: str) -> None:
    same: dict[str, object] = {
        "right": truths(4),
        "names": ["a", "b", "c", "d"],
        "groups": ["p", "p", "q", "q"],
    }
    if "right" in other:
        other = {"names": ["a", "b", "c"], "groups": ["p", "p", "q"], **other}
    first = export_of(tmp_path / "one", **same)  # type: ignore[arg-type]
    second = export_of(tmp_path / "two", **{**same, **other})  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message):
        compare(first, second)


def test_a_folder_without_predictions_is_an_error(tmp_path: Path) -> None:
    first = export_of(tmp_path / "a", truths(2))
    with pytest.raises(DataError, match=r"none has no predictions\.csv"):
        compare(first, tmp_path / "none")


def test_other_pixels_under_the_same_names_are_no_pairs(tmp_path: Path) -> None:
    folders = [export_of(tmp_path / name, truths(3, 2)) for name in "abc"]
    for folder, print_ in zip(folders, ("one", "one", "two"), strict=True):
        document = {"origin": {"data_fingerprint": print_}}
        (folder / "metrics.json").write_text(json.dumps(document), encoding="utf-8")
    assert compare(folders[0], folders[1]).images == 5
    with pytest.raises(DataError, match="same names, but other pixels"):
        compare(folders[0], folders[2])
    for folder, channels in zip(folders[::2], (1, 3), strict=True):
        document = json.loads((folder / "metrics.json").read_text())
        document["data"] = {"images": {"height": 8, "width": 9, "channels": channels, "fit": "pad"}}
        (folder / "metrics.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(
        DataError, match=r"--size.*a has 8x9 \(pad, gray\) and .*c has 8x9 \(pad\)$"
    ):
        compare(folders[0], folders[2])
    (folders[2] / "metrics.json").unlink()  # then nobody knows
    assert compare(folders[0], folders[2]).images == 5


def test_what_makes_an_evaluation_worth_less_is_passed_on(tmp_path: Path) -> None:
    folders = [export_of(tmp_path / name, truths(3, 2)) for name in "ab"]
    for folder, warnings in zip(folders, (["of 5 images 4 were trained on"], []), strict=True):
        document = {"evaluation": {}, "data": {"fingerprint": "same"}, "warnings": warnings}
        (folder / "metrics.json").write_text(json.dumps(document), encoding="utf-8")
    assert compare(*folders).warnings == (f"{folders[0]}: of 5 images 4 were trained on",)
