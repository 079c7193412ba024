"""The store of artifacts: what Optuna takes it for, and what no id gets out of it."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.artifacts import (
    FileSystemArtifactStore,
    download_artifact,
    get_all_artifact_meta,
    upload_artifact,
)
from optuna.artifacts.exceptions import ArtifactNotFound

from hpsearch.engine.artifacts import ArtifactFiles, artifact_id, metadata
from hpsearch.engine.storage import quiet_optuna

ID = "01234567-89ab-cdef-0123-456789abcdef"


@pytest.fixture
def files(tmp_path: Path) -> ArtifactFiles:
    return ArtifactFiles(tmp_path / "artifacts")


def content(files: ArtifactFiles, artifact: str = ID) -> bytes:
    with files.open_reader(artifact) as file:
        return file.read()


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "artifacts").iterdir())


def test_optuna_uploads_and_downloads(files: ArtifactFiles, tmp_path: Path) -> None:
    with quiet_optuna():
        study = optuna.create_study()
    trial = study.ask()
    (tmp_path / "curve.png").write_bytes(b"a picture")
    path = str(tmp_path / "curve.png")
    artifact = upload_artifact(artifact_store=files, file_path=path, study_or_trial=trial)
    for store in (files, FileSystemArtifactStore(tmp_path / "artifacts")):
        copy = tmp_path / type(store).__name__
        download_artifact(artifact_store=store, artifact_id=artifact, file_path=str(copy))
        assert copy.read_bytes() == b"a picture"


def test_what_is_attached_is_what_optuna_reads(files: ArtifactFiles) -> None:
    with quiet_optuna():
        study = optuna.create_study()
    trial = study.ask()
    for name in ("history.csv", "mistakes.png", "checkpoint.pt"):
        row = metadata(artifact_id("s/cnn 0", name), name)
        for _ in range(2):  # the second time nothing is added
            study._storage.set_trial_system_attr(trial._trial_id, *row)
    found = get_all_artifact_meta(trial)
    assert [(row.filename, row.mimetype, row.encoding) for row in found] == [
        ("history.csv", "text/csv", None),
        ("mistakes.png", "image/png", None),
        ("checkpoint.pt", "application/octet-stream", None),
    ]
    files.put(found[0].artifact_id, b"epoch\n")
    assert content(files, found[0].artifact_id) == b"epoch\n"


def test_ids_are_of_one_owner_and_one_name() -> None:
    owners = ["s/cnn", "s/cnn 1", "s/cnn 11", "s/mlp 1"]
    ids = {artifact_id(owner, name) for owner in owners for name in ("a.png", "b.png")}
    assert len(ids) == 8
    assert artifact_id("s/cnn", "a.png") in ids


def test_a_file_takes_the_place_of_the_one_before(files: ArtifactFiles, tmp_path: Path) -> None:
    files.put(ID, b"one")
    with files.open_reader(ID) as reader:  # who reads it meanwhile reads all of it
        files.put(ID, b"another")
        assert reader.read() == b"one"
    assert content(files) == b"another"
    assert names(tmp_path) == [ID]


def test_what_cannot_be_written_changes_nothing(files: ArtifactFiles, tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise OSError(28, "No space left on device")
            return super().read(1)

    files.put(ID, b"one")
    with pytest.raises(OSError, match="No space"):
        files.write(ID, Broken(b"another"))
    assert content(files) == b"one"
    assert names(tmp_path) == [ID]


class TestTaking:
    def test_it_is_a_second_name(self, files: ArtifactFiles, tmp_path: Path) -> None:
        source = tmp_path / "history.csv"
        source.write_bytes(b"one")
        files.take(ID, source)
        files.take(ID, source)  # an adopter does it again
        assert (tmp_path / "artifacts" / ID).samefile(source)
        assert names(tmp_path) == [ID]

    def test_it_takes_the_place_of_the_one_before(
        self, files: ArtifactFiles, tmp_path: Path
    ) -> None:
        source = tmp_path / "history.csv"
        files.put(ID, b"one")
        source.write_bytes(b"another")
        files.take(ID, source)
        assert content(files) == b"another"
        assert names(tmp_path) == [ID]

    def test_where_there_are_no_links_it_is_a_copy(
        self, files: ArtifactFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuses(*_: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuses)
        source = tmp_path / "history.csv"
        source.write_bytes(b"one")
        files.take(ID, source)
        assert content(files) == b"one"
        assert not (tmp_path / "artifacts" / ID).samefile(source)
        assert names(tmp_path) == [ID]

    def test_a_source_that_is_gone_changes_nothing(
        self, files: ArtifactFiles, tmp_path: Path
    ) -> None:
        files.put(ID, b"one")
        with pytest.raises(FileNotFoundError):
            files.take(ID, tmp_path / "history.csv")
        assert content(files) == b"one"
        assert names(tmp_path) == [ID]


HOSTILE = ["", ".", "..", "../secret", "a/../../secret", "/etc/passwd", "a\x00", "g", "a b", ".a"]


class TestWhatIsNoId:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=20)))
    def test_it_is_not_found_anywhere(self, tmp_path: Path, given_id: str) -> None:
        folder = tmp_path / "artifacts"
        secret = tmp_path / "secret"
        secret.write_text("untouched", encoding="utf-8")
        files = ArtifactFiles(folder)
        if all(letter in "0123456789abcdefABCDEF-" for letter in given_id) and given_id:
            return
        with pytest.raises(ArtifactNotFound):
            files.open_reader(given_id)
        for action in (
            lambda: files.put(given_id, b"x"),
            lambda: files.take(given_id, secret),
            lambda: files.remove(given_id),
        ):
            with pytest.raises(ArtifactNotFound):
                action()
        assert [path.name for path in tmp_path.iterdir()] == ["secret"]
        assert secret.read_text(encoding="utf-8") == "untouched"

    @pytest.mark.parametrize("what", ["nothing", "folder", "pipe", "link", "link to nothing"])
    def test_what_is_no_file_of_its_own_is_not_found(
        self, files: ArtifactFiles, tmp_path: Path, what: str
    ) -> None:
        files.put("aa", b"x")
        path = tmp_path / "artifacts" / ID
        (tmp_path / "secret").write_text("a secret", encoding="utf-8")
        if what == "folder":
            path.mkdir()
        elif what == "pipe":  # nobody writes to it: opening it must not wait
            os.mkfifo(path)
        elif what.startswith("link"):
            path.symlink_to(tmp_path / ("secret" if what == "link" else "none"))
        with pytest.raises(ArtifactNotFound):
            files.open_reader(ID)


def test_what_is_gone_can_be_removed_again(files: ArtifactFiles, tmp_path: Path) -> None:
    """The dashboard deletes a study with all its artifacts, though their files were deleted."""
    files.put(ID, b"one")
    files.put("bb", b"another")
    for _ in range(2):
        files.remove(ID)
    assert names(tmp_path) == ["bb"]
    ArtifactFiles(tmp_path / "none").remove(ID)


def test_only_old_halves_are_tidied_up(files: ArtifactFiles, tmp_path: Path) -> None:
    files.tidy()  # there is no folder yet
    files.put(ID, b"one")
    old, new = (tmp_path / "artifacts" / f".{ID}.{end}" for end in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    past = time.time() - 4000
    for path in (old, tmp_path / "artifacts" / ID):
        os.utime(path, (past, past))
    files.tidy()
    assert names(tmp_path) == [new.name, ID]
