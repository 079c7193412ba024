"""How an ablation is made: the search that varies one trial's configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from optuna.distributions import FloatDistribution, IntDistribution

from hpsearch.data.dataset import ImageShape
from hpsearch.data.preprocessing import input_shape
from hpsearch.data.spec import DataSpec
from hpsearch.engine.ablation import ascending
from hpsearch.engine.existing import peek
from hpsearch.engine.records import SearchRecord, TrialRecord
from hpsearch.engine.space_filling import grid_values
from hpsearch.engine.spec import StudySpec
from hpsearch.errors import InfeasibleError, SearchError, SpaceError
from hpsearch.families import (
    Explorer,
    Override,
    Parameter,
    ParamValue,
    build_model,
    does_not_exist,
    families_with,
    first_params,
    own_overrides,
    settle,
    space_of,
    suggest_config,
    suggestion_of,
)
from hpsearch.names import family_label

POINTS = 5
"""Of a range whose values are not given, how many are tried."""

Value = ParamValue | list[Any]
"""A list is one value of a parameter that is a list."""


def ablation_spec(
    record: SearchRecord,
    *,
    vary: Mapping[str, Sequence[Value] | None],
    around: TrialRecord | None = None,
    name: str | None = None,
    epochs: int | None = None,
    seed: int | None = None,
) -> StudySpec:
    """The search that varies a trial's configuration: the same data, split, epochs and precision;
    all trainings have one seed; nothing is pruned.

    A parameter that only a variation has is as in the search's overrides and, where these leave
    several values, as in the family's known-good configuration that fits best.

    Args:
        vary: by name of a parameter the values to try beside the trial's own; they may be outside
            of the search's range where an override could give them. None: those that the search
            chooses from, or `POINTS` values of its range.
        around: a trial of `record`; by default its best one.
        name: of the new search; by default the search's with "-ablation" behind it.
        epochs: by default the search's.
        seed: of all trainings; by default the trial's own.

    Raises:
        SearchError: the search has no complete trial, or the trial has no configuration; there is
            nothing to vary; or there is a search called `name` that is another one.
        SpaceError: a parameter that the configuration does not have, or a value that it cannot
            have.
    """
    trial = around or record.best
    if trial.config is None:
        raise SearchError(
            f"trial {trial.name} of search {record.name!r} is {trial.state} and has no "
            "configuration to vary; name another trial"
        )
    if not vary:
        raise SearchError("name at least one parameter to vary, such as lr")
    base = StudySpec.from_dict(record.spec)
    family = next(name for name in base.families if family_label(name) == trial.family)
    center = _Center.of(record, trial, family, own_overrides(family, base.overrides))
    if epochs is not None:
        center = center.trained_for(epochs)
    values = dict(center.values_of(key, given) for key, given in vary.items())
    space = center.space(values)
    first, infeasible = space.configurations(values)
    source = record.data["source"]  # a text in searches of the first version
    spec = dataclasses.replace(
        base,
        data=DataSpec.of(source) if isinstance(source, str) else DataSpec.from_dict(source),
        name=name or f"{record.name}-ablation",
        families=(family,),
        # Those that cannot be trained do not count as trials.
        trials=len(first) - infeasible,
        epochs=base.epochs if epochs is None else epochs,
        training_seed=trial.config.seed if seed is None else seed,
        overrides=space.overrides,
        first=first,
        objective=record.objective.name,
        precision=trial.config.precision,
        sampler="tpe",
        sampler_options={},
        pruner="none",
        pruner_options={},
        patience=0,
    )
    _check_name(record, spec)
    return spec


def _check_name(record: SearchRecord, spec: StudySpec) -> None:
    """Says in short what the engine would say by naming all configurations."""
    existing = peek(record.place, spec.name)
    if existing is not None and list(existing.attrs["spec"].get("first", ())) != list(spec.first):
        raise SearchError(
            f"there is a search {spec.name!r} in {record.place} already, of other values or around "
            f"another trial; start this one with --name {existing.free_name(spec.name)}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Center:
    """The configuration that is varied.

    Attributes:
        searched: the search's overrides for the family.
        params: those that its trial was asked for.
        usual: the value of each parameter that exists under them, also of what is not searched.
    """

    record: SearchRecord
    trial: TrialRecord
    family: str
    shape: ImageShape
    searched: Mapping[str, Override]
    params: Mapping[str, ParamValue]
    usual: Mapping[str, ParamValue]

    @classmethod
    def of(
        cls,
        record: SearchRecord,
        trial: TrialRecord,
        family: str,
        searched: Mapping[str, Override],
    ) -> _Center:
        shape = ImageShape(**record.data["shape"])
        explorer = Explorer(trial.params, everything=True)
        suggestion_of(family, explorer, shape, {**searched, **trial.params})
        usual = explorer.params
        if trial.config is not None and "epochs" in usual:  # 0 means those of the study
            usual["epochs"] = trial.config.epochs
        return cls(
            record=record,
            trial=trial,
            family=family,
            shape=shape,
            searched=searched,
            params=trial.params,
            usual=usual,
        )

    def trained_for(self, epochs: int) -> _Center:
        """The same for another number of epochs."""
        changed = {"epochs": epochs}
        params = {**self.params, **changed} if "epochs" in self.params else self.params
        return dataclasses.replace(self, params=params, usual={**self.usual, **changed})

    def values_of(
        self, key: str, given: Sequence[Value] | None
    ) -> tuple[str, tuple[ParamValue, ...]]:
        """The name of the parameter that `key` means, and its values, the center's first."""
        (row,) = families_with(key, (self.family,), self.shape).values()
        if row.name not in self.usual:
            raise SpaceError(f"around trial {self.trial.name}: {does_not_exist(key, row)}")
        others = (
            self._searched_values(row.name) if given is None else row.narrowed(tuple(given)).choices
        )
        own = self.usual[row.name]
        values = (own, *ascending([value for value in others if value != own]))
        if len(values) == 1:
            raise SearchError(
                f"{row.name} is {own!r} in trial {self.trial.name}, and no other value is given; "
                f"give some: {row.name}=A,B"
            )
        return row.name, values

    def _searched_values(self, name: str) -> tuple[ParamValue, ...]:
        rows = {row.name: row for row in space_of(self.family, self.shape, self.searched)}
        values = spread_values(rows[name]) if name in rows else ()
        if len(values) < 2:
            raise SearchError(
                f"search {self.record.name!r} does not vary {name}, so say which values to try: "
                f"{name}=A,B (--values; in Python, vary)"
            )
        return values

    def space(self, values: Mapping[str, tuple[ParamValue, ...]]) -> _Space:
        """The space that has these values, and nothing else but what they bring with them.

        Raises:
            SpaceError: the center itself is not in it.
        """
        overrides: dict[str, Override] = {**self.params, **values}
        rows = space_of(self.family, self.shape, overrides)
        brought = {row.name for row in rows} - overrides.keys()
        space = _Space(
            family=self.family,
            shape=self.shape,
            classes=len(self.record.data["classes"]),
            overrides={
                **{key: self.searched[key] for key in sorted(brought) if key in self.searched},
                **overrides,
            },
            center={**self.params, **{name: self.usual[name] for name in values}},
        )
        settled = space.settled(space.center)
        lost = [key for key, value in space.center.items() if settled.get(key) != value]
        if lost:
            raise SpaceError(
                f"trial {self.trial.name} cannot stay as it is while {', '.join(values)} "
                f"{'varies' if len(values) == 1 else 'vary'}: {', '.join(lost)} would change; vary "
                "less, or around another trial"
            )
        return space


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Space:
    """The space of an ablation.

    Attributes:
        classes: of the data.
        center: the values of all its parameters that matter.
    """

    family: str
    shape: ImageShape
    classes: int
    overrides: dict[str, Override]
    center: Mapping[str, ParamValue]

    def settled(self, values: Mapping[str, ParamValue]) -> dict[str, ParamValue]:
        """A value for exactly those parameters that there are under `values`."""
        return settle(
            lambda trial: suggestion_of(self.family, trial, self.shape, self.overrides), values
        )

    def configurations(
        self, values: Mapping[str, tuple[ParamValue, ...]]
    ) -> tuple[tuple[dict[str, ParamValue], ...], int]:
        """What to try first, each with the values of what varies: the center, then those that
        cannot be trained, then the others; and how many cannot.

        Those have to be met before the search has all its trials, or they would wait for ever.
        """
        center = {name: own for name, (own, *_) in values.items()}
        fine: list[dict[str, ParamValue]] = []
        infeasible: list[dict[str, ParamValue]] = []
        for name, (_, *others) in values.items():
            for value in others:
                row, feasible = self._configuration({**center, name: value}, f"{name}={value}")
                (fine if feasible else infeasible).append(row)
        return (center, *infeasible, *fine), len(infeasible)

    def _configuration(
        self, wanted: Mapping[str, ParamValue], words: str
    ) -> tuple[dict[str, ParamValue], bool]:
        """The values of those parameters in `wanted` that there are under them, and whether they
        can be trained.
        """
        prefix = f"first, configuration 1 for {family_label(self.family)}: "
        try:
            settled = self.settled({**self.center, **wanted})
            row = {name: settled[name] for name in wanted if name in settled}
            (params, *_) = first_params(self.family, self.shape, self.overrides, [row])
        except (InfeasibleError, SpaceError) as error:
            reason = str(error).removeprefix(prefix)
            raise SpaceError(f"{words} cannot be tried: {reason}; leave it out") from None
        return row, self._is_feasible(params)

    def _is_feasible(self, params: Mapping[str, ParamValue]) -> bool:
        try:
            config = suggest_config(
                self.family,
                Explorer(params),
                self.shape,
                epochs=1,
                seed=0,
                precision="fp32",
                overrides=self.overrides,
            )
            with torch.device("meta"):
                build_model(config, input_shape(config.input, self.shape), self.classes)
        except InfeasibleError:
            return False
        except Exception:
            return True  # anything else is the failure of its trial, which tells of it
        return True


def spread_values(row: Parameter) -> tuple[ParamValue, ...]:
    """What an ablation tries of a parameter as it is searched: all choices; of a range, `POINTS`
    values at even distances on its scale, with three digits.
    """
    if row.kind == "categorical":
        return row.choices
    if row.kind == "int":
        return tuple(grid_values(IntDistribution(int(row.low), int(row.high), row.log), POINTS))
    values = grid_values(FloatDistribution(row.low, row.high, row.log), POINTS)
    return tuple(dict.fromkeys(row.nearest(float(f"{value:.3g}")) for value in values))
