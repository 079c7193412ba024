"""What was carried out of a search, written into its studies: looks at its test split, and the
models that were exported or trained again.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import optuna

from hpsearch.engine.database import open_storage
from hpsearch.engine.place import study_name

if TYPE_CHECKING:
    from hpsearch.engine.records import TrialRecord

_OPENING = "test_opening:"
_RESULT = "test_result:"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TestOpening:
    """One look at a test split.

    Attributes:
        when: ISO 8601, UTC.
        trial: for whose sake, such as cnn-7.
        search: of the trial; empty in searches of the first versions.
    """

    when: str
    trial: str
    purpose: str
    search: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TestResult:
    """What a look at the test split gave.

    Attributes:
        when: ISO 8601, UTC.
        trial: whose configuration it is, such as cnn-7.
        kind: "export", of the trial's own checkpoint, or "retrain".
        folder: where its files were written.
        accuracy: on the test split; of several seeds, that of the model that was kept.
        details: plain JSON types; see the function that records it.
    """

    when: str
    trial: str
    kind: str
    folder: str
    accuracy: float
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def record_opening(trial: TrialRecord, purpose: str) -> TestOpening:
    """Writes into the study that the test split is opened for `trial`, before it is."""
    opening = TestOpening(when=_now(), trial=trial.name, purpose=purpose, search=trial.search)
    _study_of(trial).set_user_attr(_OPENING + opening.when, dataclasses.asdict(opening))
    return opening


def record_result(
    trial: TrialRecord, *, kind: str, folder: str, accuracy: float, details: Mapping[str, Any]
) -> TestResult:
    """Writes into the study what a look at the test split gave."""
    result = TestResult(
        when=_now(), trial=trial.name, kind=kind, folder=folder, accuracy=accuracy, details=details
    )
    _study_of(trial).set_user_attr(_RESULT + result.when, dataclasses.asdict(result))
    return result


def read_openings(attrs: Iterable[Mapping[str, Any]]) -> tuple[TestOpening, ...]:
    """The looks that are in the user attributes of a search's studies, oldest first."""
    found = [TestOpening(**value) for value in _entries(attrs, _OPENING)]
    return tuple(sorted(found, key=lambda opening: opening.when))


def read_results(attrs: Iterable[Mapping[str, Any]]) -> tuple[TestResult, ...]:
    """The results that are in the user attributes of a search's studies, oldest first."""
    found = [TestResult(**value) for value in _entries(attrs, _RESULT)]
    return tuple(sorted(found, key=lambda result: result.when))


def _entries(attrs: Iterable[Mapping[str, Any]], prefix: str) -> list[dict[str, Any]]:
    return [value for of in attrs for key, value in of.items() if key.startswith(prefix)]


def _study_of(trial: TrialRecord) -> optuna.Study:
    return optuna.load_study(
        study_name=study_name(trial.search, trial.family),
        storage=open_storage(trial.place, write=True),
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
