"""Whether a worker lives is known at once to others on its machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpsearch.engine.place import Place
from hpsearch.engine.presence import _KEPT_SECONDS, dead, forget_dead, new_owner, present

CODE = """
import sys
from hpsearch.engine.place import Place
from hpsearch.engine.presence import present
with present(Place.of(sys.argv[1]), sys.argv[2]):
    print("here", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def other(place: Place) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A process that is present, and its name."""
    owner = new_owner()
    with subprocess.Popen(
        [sys.executable, "-c", CODE, str(place.runs), owner],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        yield owner, process
        process.kill()


def files(place: Place) -> list[str]:
    return sorted(path.name for path in (place.private / "workers").iterdir())


def age(place: Place, seconds: float) -> None:
    for path in (place.private / "workers").iterdir():
        then = time.time() - seconds
        os.utime(path, (then, then))


def test_a_killed_process_is_dead_and_a_living_one_is_not(
    place: Place, other: tuple[str, subprocess.Popen[str]]
) -> None:
    owner, process = other
    assert dead(place, [owner]) == set()
    assert dead(place, [owner]) == set()  # looking does not end it
    age(place, _KEPT_SECONDS + 60)
    forget_dead(place)
    assert files(place) == [owner.rpartition("/")[2]]
    process.kill()
    process.wait()
    with present(place, new_owner()):
        assert dead(place, [owner]) == {owner}
        assert dead(place, [owner]) == {owner}  # others see it, too
        age(place, _KEPT_SECONDS + 60)
        forget_dead(place)
        assert len(files(place)) == 1  # of the living
    assert dead(place, [owner]) == set()  # known no more: there is its grace


def test_one_that_leaves_in_order_is_forgotten(
    place: Place, other: tuple[str, subprocess.Popen[str]]
) -> None:
    owner, process = other
    process.communicate("")
    assert process.returncode == 0
    assert files(place) == []
    assert dead(place, [owner]) == set()


def test_one_that_an_error_ends_is_dead(place: Place) -> None:
    """Perhaps it could not give back what it had: the disk was full."""
    owner = new_owner()
    with pytest.raises(OSError, match="full"), present(place, owner):
        raise OSError("full")
    assert dead(place, [owner]) == {owner}


def test_nothing_is_known_of_another_machine(place: Place) -> None:
    owner = new_owner()
    elsewhere = f"another-machine/{owner.rpartition('/')[2]}"
    with pytest.raises(OSError, match="full"), present(place, owner):
        raise OSError("full")
    assert dead(place, [elsewhere, new_owner()]) == set()


def test_young_files_are_left_alone(place: Place) -> None:
    owner = new_owner()
    with pytest.raises(OSError, match="full"), present(place, owner):
        raise OSError("full")
    forget_dead(place)
    assert len(files(place)) == 1
    age(place, _KEPT_SECONDS + 60)
    forget_dead(place)
    assert files(place) == []


def test_where_no_file_can_be_made_the_worker_works_all_the_same(place: Place) -> None:
    place.private.mkdir()
    (place.private / "workers").write_text("in the way", encoding="utf-8")
    with present(place, owner := new_owner()):
        assert dead(place, [owner]) == set()
    forget_dead(place)


def test_names_are_unique() -> None:
    owners = {new_owner() for _ in range(100)}
    assert len(owners) == 100
    assert len({owner.partition("/")[0] for owner in owners}) == 1
    assert max(map(len, owners)) <= 100  # as the table of leases has room for
