"""The data of a study's page, as optuna-dashboard has them, but quickly made.

Its own way looks through all notes of a study for each of its trials, and writes all trials anew
each time: seconds for a thousand of them, every few seconds. Here, notes are handed out to their
trials once, and what has been written for a finished trial is kept.
"""

from __future__ import annotations

import dataclasses
import json
import math
import operator
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects
from optuna_dashboard._inmemory_cache import InMemoryCache, get_cached_extra_study_property
from optuna_dashboard._pareto_front import get_pareto_front_trials
from optuna_dashboard._serializer import serialize_frozen_trial, serialize_study_detail

from hpsearch.dashboard.storage import MOST_STUDIES, NOTES_AND_PLOTS, BrowsedStorage

_PREFERENTIAL = "preference:is_preferential"
_MOST_CURVES = 200
"""With more trials, the page has no plot of all their learning curves: nobody can tell the lines
apart, and the browser takes seconds to draw them. A search's own plot has the best and the newest.
"""

_Attrs = dict[str, Any]


@dataclasses.dataclass(kw_only=True)
class _Known:
    """What is kept of a study.

    Attributes:
        trials: as they were last.
        extra: what they have in common, for the library.
        cache: in which the library finds that out.
        texts: by a trial's id what was written, and from what.
    """

    trials: Sequence[FrozenTrial] = ()
    extra: tuple[Any, ...] = ()
    cache: InMemoryCache = dataclasses.field(default_factory=InMemoryCache)
    texts: dict[int, tuple[FrozenTrial, _Attrs, str]] = dataclasses.field(default_factory=dict)


class StudyPages:
    """The data of the pages of the studies in a storage."""

    def __init__(self, storage: BrowsedStorage) -> None:
        self._storage = storage
        self._lock = threading.Lock()
        self._known: OrderedDict[int, _Known] = OrderedDict()

    def page(self, study_id: int, after: int) -> bytes | None:
        """The JSON of a study; None for a study of preferences, which we have none of.

        Args:
            after: leave so many trials out, the first ones, which the page has already.

        Raises:
            KeyError: there is no such study.
        """
        study = self._storage.study(study_id)
        if study.system_attrs.get(_PREFERENTIAL):
            return None
        trials = self._storage.trials(study_id)
        study.user_attrs = _readable(study.user_attrs)
        study.system_attrs, notes = _handed_out(study.system_attrs)
        with self._lock:
            known = self._refreshed(study_id, trials)
            detail = serialize_study_detail(
                study, [], [], *known.extra, get_plotly_graph_objects(study.system_attrs), []
            )
            if len(trials) > _MOST_CURVES:
                detail["has_intermediate_values"] = False
            for name, shown in (
                ("trials", trials[after:]),
                ("best_trials", best_trials(trials, study.directions)),
            ):
                del detail[name]
                texts = (_text(known, study_id, t, notes.get(t._trial_id, {})) for t in shown)
                detail[name] = _Raw(f"[{','.join(texts)}]")
        return _json(detail).encode()

    def _refreshed(self, study_id: int, trials: Sequence[FrozenTrial]) -> _Known:
        known = self._known.pop(study_id, None) or _Known()
        if not _goes_on(known.trials, trials):
            known = _Known()  # deleted, and another one has its number
        self._known[study_id] = known
        while len(self._known) > MOST_STUDIES:
            self._known.popitem(last=False)
        same = len(trials) == len(known.trials) and all(map(operator.is_, trials, known.trials))
        if not (known.extra and same):
            known.extra = get_cached_extra_study_property(known.cache, study_id, list(trials))
            known.trials = trials
        return known


class _Raw(str):
    """JSON already."""

    __slots__ = ()


def _json(detail: Mapping[str, Any]) -> str:
    pairs = (
        f"{json.dumps(key)}:{value if isinstance(value, _Raw) else json.dumps(value)}"
        for key, value in detail.items()
    )
    return f"{{{','.join(pairs)}}}"


def _goes_on(before: Sequence[FrozenTrial], now: Sequence[FrozenTrial]) -> bool:
    """Whether both are of one study, which only gets longer."""
    if not before or len(before) > len(now):
        return not before
    first, still = before[0], now[0]
    started = first.datetime_start
    return first._trial_id == still._trial_id and started in (None, still.datetime_start)


def _handed_out(attrs: Mapping[str, Any]) -> tuple[_Attrs, dict[int, _Attrs]]:
    """A study's system attributes: its own, and those that belong to a trial, by the trial's id."""
    own: _Attrs = {}
    of_trials: dict[int, _Attrs] = defaultdict(dict)
    for key, value in attrs.items():
        trial_id = _trial_of(key)
        (own if trial_id is None else of_trials[trial_id])[key] = value
    return own, of_trials


def _readable(attrs: Mapping[str, Any]) -> _Attrs:
    """A study's attributes but for whole documents, of which the page would show the beginning; the
    study's note has in words what they say.
    """
    return {key: value for key, value in attrs.items() if not isinstance(value, dict | list)}


def _trial_of(key: str) -> int | None:
    """The trial whose note or artifact it is: of dashboard:7:note_str:0 trial 7."""
    if not key.startswith(NOTES_AND_PLOTS):
        return None
    words = key.split(":", 3)
    place = 2 if words[1] == "artifacts" else 1
    word = words[place] if len(words) > place + 1 else ""
    return int(word) if word.isascii() and word.isdigit() else None


def _text(known: _Known, study_id: int, trial: FrozenTrial, attrs: _Attrs) -> str:
    """A trial as JSON, written anew where it or its note has changed."""
    before = known.texts.get(trial._trial_id)
    if before is not None and before[0] is trial and before[1] == attrs:
        return before[2]
    text = json.dumps(serialize_frozen_trial(study_id, trial, attrs))
    known.texts[trial._trial_id] = (trial, attrs, text)
    return text


def best_trials(
    trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]
) -> list[FrozenTrial]:
    """The best one, or the Pareto front where there are several objectives. Of two that are equally
    good the one with the lower validation loss, as hpsearch has it everywhere.
    """
    if len(directions) > 1:
        return list(get_pareto_front_trials(list(trials), list(directions)))
    complete = [t for t in trials if t.state is TrialState.COMPLETE and t.values]
    if not complete:
        return []
    sign = 1.0 if directions[0] is StudyDirection.MAXIMIZE else -1.0

    def key(trial: FrozenTrial) -> tuple[float, float]:
        loss = trial.user_attrs.get("val_loss", math.inf)
        return sign * trial.values[0], -math.inf if math.isnan(loss) else -loss

    return [max(complete, key=key)]
