"""The folders of exports: what fails in them is told of what it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hpsearch.data.dataset import ImageDataset
from hpsearch.errors import SearchError
from hpsearch.results.bundle import write_figures
from hpsearch.results.folder import new_folder, read_metrics, writing
from hpsearch.results.scores import score


def make(out: Path, error: OSError | None = None, *, written: bool = False) -> None:
    with new_folder(out, "export", is_ours=lambda _: False, replace=False) as folder:
        (folder / "file").touch()
        if error is not None and written:
            with writing(out):
                raise error
        if error is not None:
            raise error


def test_only_what_is_written_is_blamed_for_an_error(tmp_path: Path) -> None:
    elsewhere = OSError(5, "Input/output error", "/data/images.h5")
    with pytest.raises(OSError, match=r"/data/images\.h5"):
        make(tmp_path / "out", elsewhere)
    with pytest.raises(SearchError, match=r"out cannot be written: No space left on device$"):
        make(tmp_path / "out", OSError(28, "No space left on device"), written=True)
    (tmp_path / "file").touch()
    with pytest.raises(SearchError, match=r"file/out cannot be written: [A-Z]"):
        make(tmp_path / "file" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    make(tmp_path / "out")
    with pytest.raises(SearchError, match="exists already"):
        make(tmp_path / "out")


def test_a_folder_that_appears_meanwhile_is_named_once(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def lose_a_race() -> None:
        with new_folder(out, "export", is_ours=lambda _: False, replace=False):
            out.mkdir()

    with pytest.raises(SearchError, match=r"out cannot be written: File exists$"):
        lose_a_race()


@pytest.mark.parametrize("content", [None, b"{", b"[]", b"\xff"])
def test_metrics_that_are_none_are_empty(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "metrics.json").write_bytes(content)
    assert read_metrics(tmp_path) == {}


def test_columns_with_names_alike_have_files_of_their_own(tmp_path: Path) -> None:
    columns = ("left/right", "left-right", "LEFT RIGHT")
    part = ImageDataset(
        "hands",
        np.zeros((2, 2, 2, 1), dtype=np.uint8),
        np.array([0, 1]),
        ("a a a", "b b b"),
        columns=columns,
        class_parts=(("a",) * 3, ("b",) * 3),
    ).part()
    pictures = write_figures(tmp_path, part, score(torch.eye(2), part), title="hands")
    assert [pictures[f"confusion matrix of {name} alone"].name for name in columns] == [
        "confusion_matrix-left-right.png",
        "confusion_matrix-left-right-2.png",
        "confusion_matrix-LEFT-RIGHT-3.png",
    ]
    assert all(path.is_file() for path in pictures.values())
