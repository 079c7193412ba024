from __future__ import annotations

import csv
import dataclasses
import itertools
import math
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpsearch.errors import CheckpointError
from hpsearch.training.epoch import EpochResult
from hpsearch.training.history import (
    read_batches,
    read_history,
    write_batches,
    write_history,
)

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
RESULTS = st.builds(
    EpochResult,
    epoch=st.integers(0, 10**6),
    is_best=st.booleans(),
    batch_losses=st.lists(NUMBERS, max_size=4).map(tuple),
    **{
        field.name: NUMBERS
        for field in dataclasses.fields(EpochResult)
        if field.name not in ("epoch", "is_best", "batch_losses")
    },
)


FIRST_HEADER = (
    "epoch,train_loss,train_accuracy,val_loss,val_accuracy,"
    "lr,dropout,seconds,images_per_second,is_best"
)


def without_batches(history: Iterable[EpochResult]) -> tuple[EpochResult, ...]:
    return tuple(dataclasses.replace(row, batch_losses=()) for row in history)


def results(n: int) -> tuple[EpochResult, ...]:
    return tuple(
        EpochResult(
            epoch=epoch,
            train_loss=2.3 / (epoch + 1),
            train_accuracy=0.1 * epoch,
            train_balanced_accuracy=0.11 * epoch,
            train_macro_f1=0.12 * epoch,
            val_loss=2.4 / (epoch + 1),
            val_accuracy=1 / 3,
            val_balanced_accuracy=1 / 6,
            val_macro_f1=1 / 7,
            lr=1e-3,
            dropout=0.25,
            seconds=0.123456789,
            images_per_second=14567.123456789,
            is_best=epoch in (0, n - 1),
            batch_losses=(2.5, 2.3 / (epoch + 1)),
        )
        for epoch in range(n)
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(RESULTS, min_size=1, max_size=5))
def test_numbers_keep_all_their_digits(tmp_path: Path, history: list[EpochResult]) -> None:
    write_history(tmp_path / "history.csv", history)
    read = read_history(tmp_path / "history.csv")
    assert repr(read) == repr(without_batches(history))  # tells 0.0 from -0.0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(RESULTS, min_size=1, max_size=5, unique_by=lambda row: row.epoch))
def test_the_losses_of_all_batches_are_a_table(tmp_path: Path, history: list[EpochResult]) -> None:
    write_batches(tmp_path / "batches.csv", history)
    with (tmp_path / "batches.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["epoch", "step", "loss"]
    read = {
        epoch: [(int(step), float(loss)) for _, step, loss in group]
        for epoch, group in itertools.groupby(rows, key=lambda row: int(row[0]))
    }
    expected = {row.epoch: list(enumerate(row.batch_losses)) for row in history if row.batch_losses}
    assert repr(read) == repr(expected)
    flat = tuple((epoch, *pair) for epoch, pairs in expected.items() for pair in pairs)
    assert repr(read_batches(tmp_path / "batches.csv")) == repr(flat)


def test_the_tables_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    broken = dataclasses.replace(results(1)[0], batch_losses=5)  # type: ignore[arg-type]
    for write, path in ((write_batches, tmp_path / "b.csv"), (write_history, tmp_path / "h.csv")):
        write(path, results(2))
        before = path.read_bytes()
        with pytest.raises((TypeError, AttributeError)):
            write(path, [*results(2), broken if write is write_batches else None])  # type: ignore[list-item]
        assert path.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.csv", "h.csv"]


def test_a_history_of_the_first_version_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_bytes(
        f"{FIRST_HEADER}\r\n"
        "0,2.1,0.25,2.0,0.3,0.001,0.1,0.5,1000.0,1\r\n"
        "1,1.1,0.5,1.0,0.6,0.0005,0.1,0.25,2000.0,0\r\n".encode()
    )
    first, second = read_history(path)
    assert (first.epoch, first.train_loss, first.val_accuracy) == (0, 2.1, 0.3)
    assert (second.lr, second.images_per_second, second.is_best) == (0.0005, 2000.0, False)
    for name in ("train_balanced_accuracy", "train_macro_f1"):
        assert math.isnan(getattr(first, name))
        assert math.isnan(getattr(second, name.replace("train", "val")))
    write_history(path, [first, second])  # as an export does
    assert repr(read_history(path)) == repr((first, second))


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text(f"{FIRST_HEADER}\n{'1' * (csv.field_size_limit() + 1)}\n")
    with pytest.raises(CheckpointError, match="field larger than field limit"):
        read_history(path)


def test_a_history_that_lacks_some_of_the_new_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    write_history(path, results(2))
    lines = [line.split(",") for line in path.read_text().splitlines()]
    column = lines[0].index("val_macro_f1")
    path.write_text("\n".join(",".join(line[:column] + line[column + 1 :]) for line in lines))
    with pytest.raises(CheckpointError, match="columns"):
        read_history(path)


@pytest.mark.parametrize("value", [5e-324, sys.float_info.max, 0.1 + 0.2, 1e22, -0.0, 1e-7])
def test_extreme_numbers(tmp_path: Path, value: float) -> None:
    history = (dataclasses.replace(results(1)[0], train_loss=value, lr=value),)
    write_history(tmp_path / "history.csv", history)
    assert repr(read_history(tmp_path / "history.csv")) == repr(without_batches(history))


def test_it_is_a_table_with_a_header_and_a_row_an_epoch(tmp_path: Path) -> None:
    write_history(tmp_path / "history.csv", results(3))
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == [field.name for field in dataclasses.fields(EpochResult)][:-1]
    assert [row[0] for row in rows[1:]] == ["0", "1", "2"]
    assert [row[-1] for row in rows[1:]] == ["1", "0", "1"]


def test_a_cut_history_is_refused_or_ends_with_a_whole_row(tmp_path: Path) -> None:
    history = without_batches(results(3))
    path = tmp_path / "history.csv"
    write_history(path, history)
    whole = path.read_bytes()
    misread, refused = [], 0
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        try:
            read = read_history(path)
        except CheckpointError:
            refused += 1
        else:
            if read != history[: len(read)]:
                misread.append(whole[:length].splitlines()[-1])
    assert not misread
    assert refused > len(whole) / 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\x01\x02\xff\xfe",
        b"not a history\nat all\n",
        b"epoch,train_loss\r\n0,0.5\r\n",
    ],
    ids=["empty", "binary", "text", "other columns"],
)
def test_what_is_no_history_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "history.csv"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_history(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"0.25", b"0,25"),
        (b"0.25", b"much"),
        (b"0.25", b""),
        (b"\r\n1,", b"\r\n1.5,"),
        (b",1\r\n", b",yes\r\n"),
    ],
    ids=["one column more", "word", "nothing", "half an epoch", "no flag"],
)
def test_a_changed_row_is_refused(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = tmp_path / "history.csv"
    write_history(path, results(3))
    whole = path.read_bytes()
    assert old in whole
    path.write_bytes(whole.replace(old, new, 1))
    with pytest.raises(CheckpointError, match="history"):
        read_history(path)


def test_cut_losses_of_batches_are_refused_or_end_with_a_whole_row(tmp_path: Path) -> None:
    path = tmp_path / "batches.csv"
    write_batches(path, results(3))
    whole, rows = path.read_bytes(), read_batches(path)
    assert len(rows) == 6
    kept = []
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            found = read_batches(path)
        except CheckpointError:
            continue
        assert found == rows[: len(found)]
        kept.append(len(found))
    assert sorted(set(kept)) == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "content", [b"\xff\n", b"a,b\n1,2\n", b"epoch,step,loss\n0,0\n", b"epoch,step,loss\n0,0,x\n"]
)
def test_what_is_no_table_of_batches_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b.csv").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"b\.csv") as caught:
        read_batches(tmp_path / "b.csv")
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_batches(tmp_path / "missing.csv")


def test_a_missing_history_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_history(tmp_path / "missing.csv")
