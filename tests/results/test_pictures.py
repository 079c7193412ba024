"""Which files the names that people give mean."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpsearch.results.pictures import find_pictures


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "b.png",
        "a.jpg",
        "notes.txt",
        "in/z.PNG",
        "in/deep/y.webp",
        "in/.hidden.png",
        "odd[1].png",
        "empty/x.txt",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


@pytest.mark.parametrize(
    ("given", "paths"),
    [
        (["b.png", "a.jpg", "b.png"], ["b.png", "a.jpg", "b.png"]),
        (["notes.txt"], ["notes.txt"]),  # a file that is named is tried, whatever it is called
        (["in"], ["in/deep/y.webp", "in/z.PNG"]),
        (["./in/", "a.jpg"], ["./in/deep/y.webp", "./in/z.PNG", "a.jpg"]),
        (["*.png"], ["b.png", "odd[1].png"]),
        (["odd[1].png"], ["odd[1].png"]),  # a name before it is a pattern
        (["in/**/*.webp", "[ab].*"], ["in/deep/y.webp", "a.jpg", "b.png"]),
        (["*"], ["a.jpg", "b.png", "notes.txt", "odd[1].png"]),
    ],
)
def test_files_folders_and_patterns_are_found(given: list[str], paths: list[str]) -> None:
    found = find_pictures(given)
    assert list(found.paths) == paths
    assert found.missing == ()


def test_names_that_lead_to_nothing_are_told() -> None:
    found = find_pictures(["none.png", "a.jpg", "*.gif", "empty", "a\0b", "x" * 5000, ""])
    assert found.paths == ("a.jpg",)
    assert [(bad.name, bad.reason) for bad in found.missing] == [
        ("none.png", "there is no such file"),
        ("*.gif", "nothing matches"),
        ("empty", "there are no pictures in this folder"),
        ("a\0b", "there is no such file"),
        ("x" * 5000, "there is no such file"),
        ("", "the name is empty: name a file, a folder (. for the current one) or a pattern"),
    ]


def test_absolute_patterns_and_broken_links_are_kept(tmp_path: Path) -> None:
    Path("broken.png").symlink_to("nowhere.png")
    found = find_pictures([tmp_path / "b*.png", "broken.png"])
    assert found.paths == (f"{tmp_path}/b.png", f"{tmp_path}/broken.png", "broken.png")
    assert os.path.lexists(found.paths[-1])


def test_links_out_of_a_folder_are_told(tmp_path: Path) -> None:
    Path("in/out.png").symlink_to(tmp_path / "b.png")
    Path("in/deep/broken.jpg").symlink_to("/nowhere/at/all.jpg")
    Path("in/notes.txt").symlink_to(tmp_path / "notes.txt")
    Path("in/circle.png").symlink_to("circle.png")
    found = find_pictures(["in", "a.jpg"])
    assert found.outside == ("in/deep/broken.jpg", "in/out.png")
    assert found.paths == ("in/circle.png", "in/deep/y.webp", "in/z.PNG", "a.jpg")
    assert find_pictures(["in/deep/broken.jpg"]).outside == ()
