"""A search that exists already: what it was made with, and whether the same is asked for again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import count
from typing import Any

from optuna.storages import RDBStorage

from hpsearch.engine.database import exists, open_storage
from hpsearch.engine.estimate import Pace
from hpsearch.engine.place import Place
from hpsearch.engine.search_reader import search_attrs
from hpsearch.engine.spec import StudySpec
from hpsearch.errors import SearchError
from hpsearch.names import family_label

_SAME = (
    "families",
    "epochs",
    "split",
    "seed",
    "early_stopping",
    "sampler",
    "sampler_options",
    "pruner",
    "pruner_options",
    "first",
    "training_seed",
    "objective",
)
"""Settings that are the same at every start of a search."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Existing:
    """A search that exists already: what its studies have in common, and all searches' names."""

    attrs: Mapping[str, Any]
    names: tuple[str, ...]

    def free_name(self, name: str) -> str:
        """A name like `name` that no search has yet."""
        return next(free for k in count(2) if (free := f"{name}-{k}") not in self.names)


def find_existing(storage: RDBStorage, name: str) -> Existing | None:
    """The search called `name`, or None where there is none."""
    searches = search_attrs(storage)
    return Existing(attrs=searches[name], names=tuple(searches)) if name in searches else None


def peek(place: Place, name: str) -> Existing | None:
    """As `find_existing`, where it is not even known whether there is a storage."""
    return find_existing(open_storage(place), name) if exists(place) else None


def check_same_search(
    spec: StudySpec, fingerprints: Mapping[str, str], existing: Existing, place: Place
) -> None:
    """Refuses to go on with a search with settings that make other trials of it.

    Raises:
        SearchError: the settings, the data or the split are not what they were; all differences
            are named.
    """
    # Of what an earlier version did not write, the defaults.
    stored, asked = StudySpec.from_dict(existing.attrs["spec"]).to_dict(), spec.to_dict()
    differences = [
        difference
        for field in _SAME
        for difference in _differences(field.replace("_", " "), stored[field], asked[field])
    ]
    precisions = sorted({pace.precision for pace in stored_paces(existing).values()})
    if spec.precision != "auto" and [spec.precision] != precisions:
        differences.append(f"precision ({' and '.join(precisions)} then, {spec.precision} now)")
    changed = False
    for key, now in fingerprints.items():
        then = existing.attrs["fingerprints"].get(key)
        if then is None or then == now:
            continue
        settings = _behind(key, stored, asked)
        # A split that follows from a difference named already is not named again.
        if not settings and not (key == "split" and differences):
            settings = [f"{key} (fingerprint {then[:8]} then, {now[:8]} now)"]
            changed = changed or key in ("data", "split")
        differences += settings
    if differences:
        goes_on = f"'hpsearch worker {spec.name}' goes on with it as it was, and "
        if changed:  # then no command can
            goes_on = "put back what was there, or choose another name: "
        raise SearchError(
            f"search {spec.name!r} in {place} was made with other settings: "
            f"{'; '.join(dict.fromkeys(differences))}; {goes_on}--name "
            f"{existing.free_name(spec.name)} starts another one"
        )


def _behind(key: str, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """The settings that are not what they were, of those that a fingerprint follows from."""
    if key == "data":
        return _differences("data", stored["data"], asked["data"])
    if not key.startswith("space of "):
        return []
    family = family_label(key.removeprefix("space of "))
    return [
        difference
        for name in {**stored["overrides"], **asked["overrides"]}
        if name.rpartition(".")[0] in ("", family)
        for difference in _differences(
            name, *(_override_text(spec["overrides"].get(name)) for spec in (stored, asked))
        )
    ]


def _override_text(value: Any) -> str:
    """As it is written after --set."""
    if isinstance(value, dict):
        return f"{value['low']}..{value['high']}"
    if isinstance(value, list):
        return ",".join(map(_override_text, value))
    return "not given" if value is None else str(value)


def _differences(name: str, then: Any, now: Any) -> list[str]:
    """What is not what it was, in words; of settings with parts, the parts."""
    if then == now:
        return []
    if isinstance(then, dict) and isinstance(now, dict):
        return [
            difference
            for key in {**then, **now}
            for difference in _differences(f"{name} {key}", then.get(key), now.get(key))
        ]
    return [f"{name} ({_brief(then)} then, {_brief(now)} now)"]


def _brief(value: Any) -> str:
    if value is None or value in ([], {}):
        return "none"
    if isinstance(value, list) and value and all(isinstance(item, int) for item in value):
        return "x".join(str(item) for item in value)
    if isinstance(value, list):
        return ", ".join(map(_brief, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_brief(item)}" for key, item in value.items())
    return str(value)


def stored_paces(existing: Existing | None) -> dict[str, Pace]:
    """By family, what was decided for a search that exists: precision and measured step."""
    if existing is None:
        return {}
    attrs = existing.attrs
    if "paces" in attrs:
        return {family: Pace(**pace) for family, pace in attrs["paces"].items()}
    # In searches of the first version the precision was one for all.
    families = (family_label(family) for family in attrs["spec"]["families"])
    return {family: Pace(precision=attrs["precision"]) for family in families}
