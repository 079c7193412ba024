"""Notes and plots where optuna-dashboard looks for them: in attributes of the studies.

The format is that of its `save_note` and `save_plotly_graph_object`, in one piece each, which it
reads as well as several. It is written here, since to import the dashboard takes seconds.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from optuna.storages._rdb.models import StudySystemAttributeModel
from sqlalchemy import Table, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from hpsearch.engine.storage import SearchStorage

_ROWS = StudySystemAttributeModel
_TABLE: Table = _ROWS.__table__
_VERSION, _BODY = "dashboard:note_ver", "dashboard:note_str:0"
_OWN_VERSION = "hpsearch:note_ver"
"""The version of a study's note that was written here; one with another version is a user's."""


def noted_trials(storage: SearchStorage, study_ids: Collection[int]) -> set[int]:
    """The ids of the trials of some studies that have a note."""
    keys = select(_ROWS.key).where(
        _ROWS.study_id.in_(study_ids), _ROWS.key.like("dashboard:%:note\\_ver", escape="\\")
    )

    def action() -> set[int]:
        with Session(storage.engine) as session, session.begin():
            return {int(key.split(":")[1]) for key in session.scalars(keys)}

    return storage.patiently(action)


def write_board(
    storage: SearchStorage,
    study_id: int,
    *,
    note: str,
    trial_notes: Mapping[int, str],
    plots: Mapping[str, str],
) -> None:
    """Writes to a study, all of it or nothing.

    Args:
        note: of the study; where a user has written one in the dashboard, that stays.
        trial_notes: by the ids of trials.
        plots: Plotly's JSON by the name of a plot, of letters, digits and "-".
    """
    attrs: dict[str, Any] = {f"dashboard:plot_data:{name}:0": plots[name] for name in plots}
    for trial_id, text in trial_notes.items():
        attrs |= {f"dashboard:{trial_id}:note_ver": 1, f"dashboard:{trial_id}:note_str:0": text}

    def action() -> None:
        changes = {**attrs, **_note(storage, study_id, note)}
        rows = [
            {"study_id": study_id, "key": key, "value_json": json.dumps(value)}
            for key, value in changes.items()
        ]
        if not rows:
            return
        insert = (postgresql if storage.engine.name == "postgresql" else sqlite).insert(_TABLE)
        upsert = insert.on_conflict_do_update(
            index_elements=["study_id", "key"], set_={"value_json": insert.excluded.value_json}
        )
        # Its first statement writes: one that began by reading might not be let go on.
        with Session(storage.engine) as session, session.begin():
            session.execute(upsert, rows)

    storage.patiently(action)


def _note(storage: SearchStorage, study_id: int, text: str) -> dict[str, Any]:
    """The attributes of a study's note that have to be changed."""
    wanted = select(_ROWS.key, _ROWS.value_json).where(
        _ROWS.study_id == study_id, _ROWS.key.in_((_VERSION, _OWN_VERSION, _BODY))
    )
    with Session(storage.engine) as session, session.begin():
        stored = {key: json.loads(value) for key, value in session.execute(wanted)}
    version = stored.get(_VERSION)
    if version != stored.get(_OWN_VERSION) or stored.get(_BODY) == text:
        return {}
    version = (version or 0) + 1
    return {_VERSION: version, _OWN_VERSION: version, _BODY: text}
