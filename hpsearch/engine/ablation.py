"""Ablations: variations of one configuration, one parameter at a time, as a search of their own.

An ablation is a search whose `first` are the configuration in the middle and its variations, and
that has as many trials as these: it is interrupted, resumed, shared by workers, reported and
exported as any other. Nothing else tells that it is one, so that `ablation_of` finds it again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from hpsearch.engine.records import SearchRecord, TrialRecord
from hpsearch.families import (
    ParamValue,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variation:
    """One value of one parameter, and the trial that has it.

    Attributes:
        trial: None where the search does not have it (any more).
        is_center: it is the value of the configuration in the middle, whose trial all parameters
            share.
    """

    value: ParamValue
    trial: TrialRecord | None
    is_center: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ablation:
    """What an ablation has found so far.

    Attributes:
        center: the trial of the configuration in the middle, as far as there is one.
        parameters: by name its values, the center's among them: numbers ascending; of others the
            center's first.
    """

    record: SearchRecord
    center: TrialRecord | None
    parameters: Mapping[str, tuple[Variation, ...]]

    @property
    def same_seed(self) -> bool:
        """Whether all trainings so far have the same seed, so that only the parameter differs."""
        variations = (row for rows in self.parameters.values() for row in rows)
        configs = (row.trial.config for row in variations if row.trial is not None)
        return len({config.seed for config in configs if config is not None}) < 2


def ablation_of(record: SearchRecord) -> Ablation | None:
    """The ablation that a search is, or None where it is none: where what it tries first are not a
    configuration and variations of it, one parameter at a time.
    """
    first: Sequence[Mapping[str, ParamValue]] = record.spec.get("first") or ()
    if len(record.spec["families"]) != 1 or len(first) < 2:
        return None
    trials = [_trial_of(record, number, row) for number, row in enumerate(first)]
    center, *others = first
    found: dict[str, dict[ParamValue, Variation]] = {}
    for number, configuration in enumerate(others, start=1):
        changed = [key for key, value in configuration.items() if value != center.get(key)]
        if len(changed) != 1 or changed[0] not in center:
            return None
        own, value = center[changed[0]], configuration[changed[0]]
        rows = found.setdefault(
            changed[0], {own: Variation(value=own, trial=trials[0], is_center=True)}
        )
        rows[value] = Variation(value=value, trial=trials[number], is_center=False)
    return Ablation(
        record=record,
        center=trials[0],
        parameters={
            name: tuple(rows[value] for value in ascending(rows)) for name, rows in found.items()
        },
    )


def _trial_of(
    record: SearchRecord, number: int, configuration: Mapping[str, ParamValue]
) -> TrialRecord | None:
    """What is tried first gets the first numbers, in this order, unless one of them is there twice,
    which a search that others wrote can have.
    """
    for trial in record.trials:
        if trial.number == number:
            same = (trial.params.get(key, value) == value for key, value in configuration.items())
            return trial if all(same) else None
    return None


def ascending(values: Iterable[ParamValue]) -> list[ParamValue]:
    """Numbers in their order, other values as they are."""
    values = list(values)
    if any(isinstance(value, str) for value in values):
        return values
    return sorted(values)
