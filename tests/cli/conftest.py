from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from hpsearch.cli.main import main


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, str, str]]:
    """Runs a command in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(command: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(shlex.split(command))
        output = capsys.readouterr()
        return int(caught.value.code or 0), output.out, output.err

    return run
