"""Fixtures of the dashboard's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from searches_by_hand import make_search

from hpsearch.engine.place import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Where there is no search yet."""
    return Place.of(tmp_path / "runs")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A place with a search, which tests only look at."""
    place = Place.of(tmp_path_factory.mktemp("shown") / "runs")
    make_search(place)
    return place
