"""The searches' database as the dashboard reads it."""

from __future__ import annotations

import datetime
import functools
import json
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Container, Iterable
from typing import Any, TypeVar

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.exceptions import StorageInternalError
from optuna.storages._rdb.models import (
    StudyDirectionModel,
    StudyModel,
    StudySystemAttributeModel,
    StudyUserAttributeModel,
    TrialIntermediateValueModel,
    TrialModel,
    TrialParamModel,
    TrialSystemAttributeModel,
    TrialUserAttributeModel,
    TrialValueModel,
)
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL, Connection, Row, Select, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from hpsearch.engine.artifacts import attribute
from hpsearch.engine.database import in_words, server_options, set_transactions
from hpsearch.engine.place import Place
from hpsearch.engine.storage import SearchStorage

NOTES_AND_PLOTS = "dashboard:"
"""What the dashboard keeps in a study's system attributes: their keys begin so."""

MOST_STUDIES = 4
"""Of so many studies the finished trials are kept in memory, those looked at last."""
_MOST_IDS = 500
"""Named in one query."""
_BUSY_SECONDS = 5
_SERVER_SECONDS = 3

_Result = TypeVar("_Result")
_distribution = functools.lru_cache(maxsize=4096)(json_to_distribution)


class BrowsedStorage(SearchStorage):
    """A storage that can only be read, without any lock that a worker would wait for.

    Finished trials, which cannot change, are read once. A database that is away is not waited for:
    `trouble` tells of it.

    Args:
        place: whose database it is, which must exist.

    Raises:
        SearchError: it cannot be opened.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._finished: OrderedDict[int, dict[tuple[Any, ...], FrozenTrial]] = OrderedDict()
        self._here = threading.local()
        with in_words(place):
            if place.is_server:
                options = _read_only(server_options(place))
                super().__init__(place, create=False, engine_kwargs=options)
                return
            # A file opened so is never written, not even made where it has gone; and one that
            # comes back is found, since no connection is kept.
            url = URL.create(
                "sqlite",
                database=place.database.resolve().as_uri(),
                query={"mode": "ro", "uri": "true"},
            )
            options = {"poolclass": NullPool, "connect_args": {"timeout": _BUSY_SECONDS}}
            super().__init__(place, create=False, engine_kwargs=options, url=url)
        set_transactions(self.engine, begin="BEGIN")

    def patiently(
        self,
        action: Callable[[], _Result],
        seconds: float | None = None,  # noqa: ARG002
    ) -> _Result:
        """Calls `action` once: who looks at a page does not wait for a database."""
        try:
            return action()
        except (StorageInternalError, SQLAlchemyError) as error:
            cause = error.__cause__ if isinstance(error, StorageInternalError) else error
            lines = str(getattr(cause, "orig", cause)).strip().splitlines()
            reason = lines[0] if lines else type(cause).__name__
            self._here.trouble = self._place.without_secrets(reason)
            raise

    @property
    def trouble(self) -> str:
        """Why the database did not answer this thread, since `forget_trouble`; or empty."""
        return str(getattr(self._here, "trouble", ""))

    def forget_trouble(self) -> None:
        """Begins anew with this thread's `trouble`."""
        self._here.trouble = ""

    def get_all_studies(self) -> list[FrozenStudy]:
        """As Optuna's, without the notes and plots, which would be most of it."""

        def action() -> list[FrozenStudy]:
            with self.engine.connect() as connection:
                return _studies(connection, None)

        return self.patiently(action)

    def study(self, study_id: int) -> FrozenStudy:
        """One study, with its notes and plots.

        Raises:
            KeyError: there is none.
        """

        def action() -> FrozenStudy:
            with self.engine.connect() as connection:
                for study in _studies(connection, study_id):
                    return study
            raise KeyError(study_id)

        return self.patiently(action)

    def artifact(self, study_id: int, trial_id: int | None, artifact_id: str) -> dict[str, Any]:
        """What is stored of an artifact of a study, or of one of its trials.

        Raises:
            KeyError: there is none.
        """
        key = attribute(artifact_id)
        if trial_id is None:
            query = select(StudySystemAttributeModel.value_json).where(
                StudySystemAttributeModel.study_id == study_id,
                StudySystemAttributeModel.key == key,
            )
        else:
            query = (
                select(TrialSystemAttributeModel.value_json)
                .join(TrialModel, TrialModel.trial_id == TrialSystemAttributeModel.trial_id)
                .where(
                    TrialModel.study_id == study_id,
                    TrialModel.trial_id == trial_id,
                    TrialSystemAttributeModel.key == key,
                )
            )

        def action() -> str | None:
            with self.engine.connect() as connection:
                return connection.scalar(query)

        stored = self.patiently(action)
        # JSON of a text that is JSON again: null where it was deleted.
        try:
            meta = None if stored is None else json.loads(json.loads(stored))
        except (TypeError, ValueError):
            meta = None
        if not isinstance(meta, dict):
            raise KeyError(artifact_id)
        return meta

    def trials(self, study_id: int) -> list[FrozenTrial]:
        """All trials of a study, by number; a finished one is the same object each time.

        Raises:
            KeyError: there is no such study.
        """

        def action() -> list[FrozenTrial]:
            with self._lock, self.engine.connect() as connection:
                return self._read(connection, study_id)

        return self.patiently(action)

    def _read(self, connection: Connection, study_id: int) -> list[FrozenTrial]:
        heads = connection.execute(
            select(
                TrialModel.trial_id,
                TrialModel.number,
                TrialModel.state,
                TrialModel._datetime_start_utc.label("start"),
                TrialModel._datetime_complete_utc.label("complete"),
            )
            .where(TrialModel.study_id == study_id)
            .order_by(TrialModel.number)
        ).all()
        if not heads and not _exists(connection, study_id):
            raise KeyError(study_id)
        # Ids are used again after a study was deleted; the same times are not.
        known = self._finished.pop(study_id, {})
        found = {tuple(head): known[tuple(head)] for head in heads if tuple(head) in known}
        missing = [head for head in heads if tuple(head) not in found]
        for head, trial in zip(missing, _frozen(connection, study_id, missing), strict=True):
            found[tuple(head)] = trial
        self._finished[study_id] = {k: t for k, t in found.items() if t.state.is_finished()}
        while len(self._finished) > MOST_STUDIES:
            self._finished.popitem(last=False)
        return [found[tuple(head)] for head in heads]

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """What Optuna's cache in front of the storage calls."""
        return [
            trial
            for trial in self.trials(study_id)
            if (states is None or trial.state in states)
            and (trial._trial_id > trial_id_greater_than or trial._trial_id in included_trial_ids)
        ]


def _read_only(options: dict[str, Any]) -> dict[str, Any]:
    """`options` of a server for sessions that cannot write."""
    arguments = options["connect_args"]
    return {
        **options,
        "connect_args": {
            **arguments,
            "options": f"{arguments['options']} -c default_transaction_read_only=on",
            "connect_timeout": _SERVER_SECONDS,
        },
    }


def _exists(connection: Connection, study_id: int) -> bool:
    query = select(StudyModel.study_id).where(StudyModel.study_id == study_id)
    return connection.scalar(query) is not None


def _studies(connection: Connection, study_id: int | None) -> list[FrozenStudy]:
    """One study; or all, without what the dashboard keeps in them."""
    studies = select(StudyModel.study_id, StudyModel.study_name).order_by(StudyModel.study_id)
    directions = select(StudyDirectionModel.study_id, StudyDirectionModel.direction)
    directions = directions.order_by(StudyDirectionModel.objective)
    user = select(
        StudyUserAttributeModel.study_id,
        StudyUserAttributeModel.key,
        StudyUserAttributeModel.value_json,
    ).order_by(StudyUserAttributeModel.study_user_attribute_id)
    system = select(
        StudySystemAttributeModel.study_id,
        StudySystemAttributeModel.key,
        StudySystemAttributeModel.value_json,
    ).order_by(StudySystemAttributeModel.study_system_attribute_id)
    if study_id is None:
        key = StudySystemAttributeModel.key
        system = system.where(key.not_like(f"{NOTES_AND_PLOTS}%"))
    else:
        studies = studies.where(StudyModel.study_id == study_id)
        directions = directions.where(StudyDirectionModel.study_id == study_id)
        user = user.where(StudyUserAttributeModel.study_id == study_id)
        system = system.where(StudySystemAttributeModel.study_id == study_id)
    directions_of: dict[int, list[StudyDirection]] = defaultdict(list)
    for row in connection.execute(directions):
        directions_of[row.study_id].append(row.direction)
    user_of = _attributes(connection.execute(user))
    system_of = _attributes(connection.execute(system))
    return [
        FrozenStudy(
            study_name=row.study_name,
            direction=None,
            directions=directions_of[row.study_id],
            user_attrs=user_of[row.study_id],
            system_attrs=system_of[row.study_id],
            study_id=row.study_id,
        )
        for row in connection.execute(studies)
        if row.study_id in directions_of  # it was made between two queries
    ]


def _attributes(rows: Iterable[Row[*tuple[Any, ...]]]) -> dict[int, dict[str, Any]]:
    """Attributes by what they belong to, from rows of an id, a key and JSON."""
    attributes: dict[int, dict[str, Any]] = defaultdict(dict)
    for owner, key, value in rows:
        attributes[owner][key] = json.loads(value)
    return attributes


def _frozen(
    connection: Connection, study_id: int, heads: Collection[Row[*tuple[Any, ...]]]
) -> list[FrozenTrial]:
    """Trials of a study as Optuna has them, but read as plain rows, in a quarter of the time."""
    if not heads:
        return []
    ids = {head.trial_id for head in heads}

    def of_trials(query: Select[*tuple[Any, ...]], table: Any) -> Iterable[Row[*tuple[Any, ...]]]:
        if len(ids) <= _MOST_IDS:
            return connection.execute(query.where(table.trial_id.in_(ids)))
        query = query.join(TrialModel, TrialModel.trial_id == table.trial_id)
        return connection.execute(query.where(TrialModel.study_id == study_id))

    params: dict[int, dict[str, Any]] = defaultdict(dict)
    distributions: dict[int, dict[str, BaseDistribution]] = defaultdict(dict)
    p = TrialParamModel
    query: Select[*tuple[Any, ...]] = select(
        p.trial_id, p.param_name, p.param_value, p.distribution_json
    )
    for trial_id, name, value, as_json in of_trials(query.order_by(p.param_id), p):
        distribution = _distribution(as_json)
        params[trial_id][name] = distribution.to_external_repr(value)
        distributions[trial_id][name] = distribution
    values: dict[int, list[float]] = defaultdict(list)
    v = TrialValueModel
    query = select(v.trial_id, v.value, v.value_type).order_by(v.objective)
    for trial_id, value, kind in of_trials(query, v):
        values[trial_id].append(v.stored_repr_to_value(value, kind))
    reported: dict[int, dict[int, float]] = defaultdict(dict)
    r = TrialIntermediateValueModel
    query = select(r.trial_id, r.step, r.intermediate_value, r.intermediate_value_type)
    for trial_id, step, value, kind in of_trials(query, r):
        reported[trial_id][step] = r.stored_repr_to_intermediate_value(value, kind)
    u, s = TrialUserAttributeModel, TrialSystemAttributeModel
    query = select(u.trial_id, u.key, u.value_json).order_by(u.trial_user_attribute_id)
    user = _attributes(of_trials(query, u))
    query = select(s.trial_id, s.key, s.value_json).order_by(s.trial_system_attribute_id)
    system = _attributes(of_trials(query, s))
    return [
        FrozenTrial(
            number=head.number,
            state=head.state,
            value=None,
            values=values.get(head.trial_id),
            datetime_start=_local(head.start),
            datetime_complete=_local(head.complete),
            params=params[head.trial_id],
            distributions=distributions[head.trial_id],
            user_attrs=user[head.trial_id],
            system_attrs=system[head.trial_id],
            intermediate_values=reported[head.trial_id],
            trial_id=head.trial_id,
        )
        for head in heads
    ]


def _local(utc: datetime.datetime | None) -> datetime.datetime | None:
    """A time of the database on this machine's clock, as Optuna shows it."""
    return (
        None if utc is None else utc.replace(tzinfo=datetime.UTC).astimezone().replace(tzinfo=None)
    )
