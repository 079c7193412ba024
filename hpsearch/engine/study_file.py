"""Study files: Python that says what a search is."""

from __future__ import annotations

import dataclasses
import runpy
import traceback
from pathlib import Path

from hpsearch.engine.spec import StudySpec
from hpsearch.errors import HpsearchError, SearchError


def load_study(path: Path) -> StudySpec:
    """Runs a study file and returns the `StudySpec` that it calls `study`.

    Raises:
        SearchError: the file does not exist, raises, or defines no such thing.
    """
    if path.suffix != ".py":
        raise SearchError(f"{path} is no study file (.py); data are given with --data {path}")
    if not path.is_file():
        raise SearchError(f"no study file at {path}: there is no such file")
    try:
        namespace = runpy.run_path(str(path), run_name="__hpsearch_study__")
    except HpsearchError as error:
        raise SearchError(f"study file {path}: {error}") from error
    except (Exception, SystemExit) as error:
        # The last frame inside of the file is the line that the user can mend.
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = frames[-1].lineno if frames else getattr(error, "lineno", None)
        where = f", line {line}" if line else ""
        reason = " ".join(str(error).split())
        raise SearchError(
            f"study file {path}{where} raised {type(error).__name__}: {reason}"
        ) from error
    study = namespace.get("study")
    if not isinstance(study, StudySpec):
        raise SearchError(
            f"study file {path} must set study = StudySpec(...), but its 'study' is {study!r:.80}"
        )
    return dataclasses.replace(
        study, families=tuple(_beside(path, family) for family in study.families)
    )


def _beside(study: Path, family: str) -> str:
    """A family's file is looked for beside the study file first."""
    near = study.resolve().parent / family
    return str(near) if family.endswith(".py") and near.is_file() else family
