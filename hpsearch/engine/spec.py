"""What a search is: a `StudySpec`."""

from __future__ import annotations

import dataclasses
import os
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from hpsearch.config import EarlyStopping, Execution, MemoryFormat, Precision
from hpsearch.data.spec import DataSpec
from hpsearch.data.splits import SplitSpec
from hpsearch.engine.place import DATABASE
from hpsearch.engine.pruners import check_pruner
from hpsearch.engine.samplers import check_sampler
from hpsearch.errors import ConfigError, HpsearchError, SearchError
from hpsearch.families import SEARCH, Override, ParamValue, Range, format_list
from hpsearch.names import family_label
from hpsearch.training.goals import Objectives, objective_rows
from hpsearch.training.objectives import DEFAULT_OBJECTIVE
from hpsearch.training.settings import Auto, Wanted

_TYPES = {
    "data": DataSpec | str,
    "name": str,
    "families": tuple,
    "split": SplitSpec,
    "overrides": Mapping,
    "first": tuple,
    "sampler_options": Mapping,
    "pruner_options": Mapping,
    "early_stopping": EarlyStopping | None,
    "training_seed": int | None,
}
_LEAST = {
    "trials": 1,
    "epochs": 1,
    "seed": 0,
    "keep": 1,
    "checkpoint_every": 0,
    "patience": 0,
    "attempts": 1,
}
_CHOICES = {
    "precision": ("auto", *typing.get_args(Precision)),
    "memory_format": ("auto", *typing.get_args(MemoryFormat)),
    "execution": ("auto", *typing.get_args(Execution)),
    "non_finite": ("fail", "prune"),
    "artifacts": ("all", "best", "none"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudySpec:
    """A search: the data, the model families, and how much to try.

    The defaults are the default study (`studies/digits.py` spells them out).

    Attributes:
        data: a name or a path, as `--data` takes it, or a `DataSpec` that says more.
        name: of the search, in the storage and in folder names; by default that of the data.
        families: one Optuna study each, under the search's name; names, or paths of files of
            your own that end in .py.
        trials: in all, shared out evenly over the families.
        epochs: of every trial; it is the pruner's resource. Where an override of "epochs" lets
            them vary, nothing is pruned.
        overrides: by name of a parameter: a value fixes it, a `Range` narrows it, a tuple
            leaves only these choices, a list is one value of a parameter that is a list, and
            "search" searches what by default is not. Applied to each family that has the
            parameter; "resnet.lr" is that of one family.
        first: configurations to try before the families' own known-good ones. Each is a mapping of
            names of parameters to values, as overrides that fix them; what it leaves out is as in
            the family's known-good configuration that has to be changed least for it.
        objective: what the sampler, the pruner and early stopping go by, and epochs and trials
            are ranked by: "val_accuracy", "val_balanced_accuracy", "val_macro_f1" or "val_loss".
            Several are separated by commas: the first is that one, and the others are more of
            these or costs of the model, "params", "macs" or "latency". Then nothing is pruned, and
            the report has a Pareto front.
        seed: of the sampler; the seed of each training is derived from it and the trial's number.
        training_seed: one seed for all trainings instead, so that only the parameters differ.
        keep: how many trials of each family keep their checkpoint.
        checkpoint_every: how many epochs there are between two saved states of a running trial,
            which an interrupted one goes on from; 0: as few as cost at most 2 % of its time.
        sampler, sampler_options: what chooses the parameters: a row of the table in `samplers.py`,
            and its settings by name.
        pruner, pruner_options: what stops trials early: a row of the table in `pruners.py`, and its
            settings by name.
        patience: stop when so many trials in a row did not make the best better; 0: never.
        attempts: a trial whose worker dies so many times in a row without getting further fails.
        non_finite: what becomes of a trial whose loss is no longer finite: "fail", or "prune".
        artifacts: what the dashboard shows of trials beside their numbers: "all": each has its
            history as a table and, from a minute of training on, pictures, and each study has the
            pictures and the checkpoint of its best trial; "best": trials have no pictures; "none".
        precision: "auto" is decided once for each family, when the search starts, and stored.
        memory_format: "auto" is decided for each trial, and stored; or "channels_last" (NHWC), or
            "contiguous" (NCHW).
        execution: how steps are run; "auto" is decided for each trial, and stored; or "eager",
            "graph" (replayed from a CUDA graph where that is possible), or "compile".
    """

    data: DataSpec | str | os.PathLike[str] = "digits"
    name: str = ""
    families: tuple[str, ...] = ("logistic", "mlp", "cnn")
    trials: int = 30
    epochs: int = 60
    split: SplitSpec = SplitSpec()
    overrides: Mapping[str, Override] = dataclasses.field(default_factory=dict)
    first: tuple[Mapping[str, ParamValue | list[Any]], ...] = ()
    early_stopping: EarlyStopping | None = None
    objective: str = DEFAULT_OBJECTIVE
    precision: Auto | Precision = "auto"
    memory_format: Auto | MemoryFormat = "auto"
    execution: Auto | Execution = "auto"
    seed: int = 0
    training_seed: int | None = None
    keep: int = 3
    checkpoint_every: int = 0
    sampler: str = "tpe"
    sampler_options: Mapping[str, ParamValue] = dataclasses.field(default_factory=dict)
    pruner: str = "median"
    pruner_options: Mapping[str, ParamValue] = dataclasses.field(default_factory=dict)
    patience: int = 0
    attempts: int = 2
    non_finite: Literal["fail", "prune"] = "fail"
    artifacts: Literal["all", "best", "none"] = "all"

    def __post_init__(self) -> None:
        if isinstance(self.data, str | os.PathLike):
            object.__setattr__(self, "data", DataSpec.of(self.data))
        for field, kind in _TYPES.items():
            if not isinstance(getattr(self, field), kind):
                raise SearchError(
                    f"{field} must be of the type {getattr(kind, '__name__', kind)}, but is "
                    f"{getattr(self, field)!r}"
                )
        self._check_names()
        for configuration in self.first:
            _check_configuration(configuration)
        self._check_numbers()
        for field, choices in _CHOICES.items():
            if getattr(self, field) not in choices:
                raise SearchError(
                    f"{field} must be {', '.join(choices[:-1])} or {choices[-1]}, but is "
                    f"{getattr(self, field)!r}"
                )
        try:
            names = ",".join(row.name for row in objective_rows(self.objective))
        except ConfigError as error:
            raise SearchError(str(error)) from None
        object.__setattr__(self, "objective", names)
        check_sampler(self.sampler, self.sampler_options, objectives=len(self.objectives))
        # Where an override sets the epochs, the pruner is checked when they are known.
        own_epochs = any(key.rpartition(".")[2] == "epochs" for key in self.overrides)
        check_pruner(self.pruner, self.pruner_options, epochs=None if own_epochs else self.epochs)

    def _check_names(self) -> None:
        """Names the search after its data where it has no name; refuses names that cannot be."""
        if not self.name:
            name = re.sub(r"[^A-Za-z0-9]+", "-", Path(self.data_spec.source).stem).strip("-")[:100]
            object.__setattr__(self, "name", name or "search")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", self.name):
            raise SearchError(
                f"a search's name is made of letters, digits, '.', '_' and '-', starts with a "
                f"letter or digit and has at most 100 of them, but got {self.name!r}; use --name"
            )
        if self.name.startswith(DATABASE):
            raise SearchError(
                f"{self.name!r} is the name of the storage's own file; use another --name"
            )
        if not all(isinstance(name, str) for name in (*self.families, *self.overrides)):
            raise SearchError(
                "families and the names of overrides must be texts, but are "
                f"{self.families!r} and {tuple(self.overrides)!r}"
            )
        labels = {family_label(name) for name in self.families}
        if not self.families or len(labels) != len(self.families):
            raise SearchError(
                f"families must be one or more different names, but got {self.families!r}"
            )

    def _check_numbers(self) -> None:
        for field, least in _LEAST.items():
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise SearchError(
                    f"{field} must be a whole number of at least {least}, but is {value!r}"
                )
        if self.seed >= 2**63:
            raise SearchError(f"seed must be below {2**63}, but is {self.seed}")
        if self.training_seed is not None and not 0 <= self.training_seed < 2**32:
            raise SearchError(
                f"training_seed must be from 0 to {2**32 - 1}, but is {self.training_seed}"
            )

    @property
    def data_spec(self) -> DataSpec:
        """What `data` means in full."""
        return DataSpec.of(self.data)

    @property
    def objectives(self) -> Objectives:
        """What `objective` means; epochs and trials are ranked by the first row."""
        return objective_rows(self.objective)

    @property
    def wanted(self) -> Wanted:
        """How trials are run, as far as it is said."""
        return Wanted(
            precision=self.precision, memory_format=self.memory_format, execution=self.execution
        )

    def shares(self) -> dict[str, int]:
        """How many of the trials each family gets."""
        return family_shares(self.families, self.trials)

    def to_dict(self) -> dict[str, Any]:
        """The specification as plain JSON types, for the record and for comparison."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            **values,
            "data": self.data_spec.to_dict(),
            "families": list(self.families),
            "split": self.split.to_dict(),
            "sampler_options": dict(self.sampler_options),
            "pruner_options": dict(self.pruner_options),
            "overrides": _overrides_to_json(self.overrides),
            "first": [_overrides_to_json(configuration) for configuration in self.first],
            "early_stopping": self.early_stopping and self.early_stopping.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StudySpec:
        """The specification that `to_dict` wrote; what an earlier version did not write is as by
        default.

        A list among the overrides comes back as a text, which means the same.

        Raises:
            SearchError: it holds what this version does not know, or a value that is wrong.
        """
        if not isinstance(values, Mapping):
            raise SearchError(f"a search's record must be a mapping, but is {values!r:.80}")
        search = f"search {values.get('name')!r}"
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = [str(key) for key in values if key not in known]
        if unknown:
            raise SearchError(
                f"{search} was made by a newer version of hpsearch: its record has "
                f"{', '.join(sorted(unknown))}, which this one does not know; use that version"
            )
        try:
            return cls(**{key: _from_json(key, value) for key, value in values.items()})
        except HpsearchError as error:
            raise SearchError(
                f"the record of {search} cannot be read: {error}; if a newer version of hpsearch "
                "made it, use that one"
            ) from error


def family_shares(families: Sequence[str], trials: int) -> dict[str, int]:
    """How many of the trials each family gets; the first ones get what does not divide."""
    share, rest = divmod(trials, len(families))
    return {name: share + (number < rest) for number, name in enumerate(families)}


def _check_configuration(configuration: object) -> None:
    if not isinstance(configuration, Mapping) or not configuration:
        raise SearchError(
            "first must hold configurations such as {'lr': 1e-3}, which map names of parameters to "
            f"values, but has {configuration!r}"
        )
    for name, value in configuration.items():
        one = isinstance(value, bool | int | float | str | list) and value != SEARCH
        if not isinstance(name, str) or not one:
            raise SearchError(
                f"first must give each parameter one value, but gives {name!r} {value!r}"
            )


def _overrides_to_json(overrides: Mapping[str, Override]) -> dict[str, Any]:
    return {key: _override_to_json(item) for key, item in overrides.items()}


def _override_to_json(override: Override) -> Any:
    if isinstance(override, Range):
        return {"low": override.low, "high": override.high}
    if isinstance(override, list):
        return format_list(override)
    if isinstance(override, tuple):
        return [_override_to_json(item) for item in override]
    return override


def _override_from_json(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_override_from_json(item) for item in value)
    if not isinstance(value, Mapping):
        return value
    if set(value) != {"low", "high"}:
        raise SearchError(f"an override is {dict(value)!r:.80}, which is neither value nor range")
    return Range(value["low"], value["high"])


def _from_json(field: str, value: Any) -> Any:
    """A field's value; one of another form is left for the specification to refuse."""
    if field == "split":
        return SplitSpec.from_dict(value)
    if field == "data" and isinstance(value, Mapping):  # a text in the first version
        return DataSpec.from_dict(value)
    if field == "early_stopping" and value is not None:
        return EarlyStopping.from_dict(value)
    if field in ("families", "first") and isinstance(value, list):
        return tuple(value)
    if field == "overrides" and isinstance(value, Mapping):
        return {key: _override_from_json(item) for key, item in value.items()}
    return value
