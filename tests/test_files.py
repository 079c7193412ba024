from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hpsearch.files import whole_folder, write_whole


class BrokenOffError(Exception):
    pass


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old and longer")
    write_whole(path, lambda temporary: temporary.write_text("new"))
    assert path.read_text() == "new"
    assert names(tmp_path) == {"file"}


def test_a_file_has_the_permissions_of_a_plain_one(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_whole(tmp_path / "file", Path.touch)
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "file")}
    assert len(modes) == 1


@pytest.mark.parametrize("error", [BrokenOffError, KeyboardInterrupt])
@pytest.mark.parametrize("existed", [True, False])
def test_a_writer_that_fails_changes_nothing(
    tmp_path: Path, error: type[BaseException], existed: bool
) -> None:
    path = tmp_path / "file"
    if existed:
        path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("half of the n")
        raise error

    with pytest.raises(error):
        write_whole(path, write)
    assert names(tmp_path) == ({"file"} if existed else set())
    assert not existed or path.read_text() == "old"


def test_a_process_that_dies_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from hpsearch.files import write_whole\n"
        "write_whole(Path(sys.argv[1]), lambda t: (t.write_text('half'), os._exit(9)))\n"
    )
    died = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert died.returncode == 9
    assert path.read_text() == "old"


def test_a_folder_appears_with_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    with whole_folder(path, replace=False) as temporary:
        (temporary / "file").write_text("new")
        assert not path.exists()
    assert (path / "file").read_text() == "new"
    assert names(path.parent) == {"b"}


def test_a_folder_has_the_permissions_of_a_plain_one(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with whole_folder(tmp_path / "folder", replace=False):
        pass
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "folder")}
    assert len(modes) == 1


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("old")
    with whole_folder(path, replace=True) as temporary:
        (temporary / "new").write_text("new")
        assert names(path) == {"old"}
    assert names(path) == {"new"}
    assert names(tmp_path) == {"folder"}


def test_a_folder_that_exists_is_not_touched_without_replace(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(FileExistsError) as caught, whole_folder(path, replace=False):
        pytest.fail("the block must not run: its work would be lost")
    assert (caught.value.strerror, caught.value.filename) == ("File exists", str(path))
    assert names(path) == {"old"}
    assert names(tmp_path) == {"folder"}


def test_a_folder_that_appears_meanwhile_is_not_touched_without_replace(tmp_path: Path) -> None:
    path = tmp_path / "folder"

    def lose_a_race() -> None:
        with whole_folder(path, replace=False) as temporary:
            (temporary / "mine").touch()
            path.mkdir()
            (path / "theirs").write_text("of another process")

    with pytest.raises(FileExistsError, match="File exists"):
        lose_a_race()
    assert names(path) == {"theirs"}
    assert names(tmp_path) == {"folder"}


@pytest.mark.parametrize("error", [BrokenOffError, KeyboardInterrupt])
@pytest.mark.parametrize("existed", [True, False])
def test_a_block_that_fails_changes_nothing(
    tmp_path: Path, error: type[BaseException], existed: bool
) -> None:
    path = tmp_path / "folder"
    if existed:
        path.mkdir()
        (path / "old").write_text("old")

    def fail() -> None:
        with whole_folder(path, replace=True) as temporary:
            (temporary / "half").touch()
            raise error

    with pytest.raises(error):
        fail()
    assert names(tmp_path) == ({"folder"} if existed else set())
    assert not existed or names(path) == {"old"}
