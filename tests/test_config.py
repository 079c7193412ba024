from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.checks import JsonConfig
from hpsearch.config import (
    DropoutConfig,
    EarlyStopping,
    InputConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from hpsearch.errors import ConfigError

NAMES = st.text(min_size=1)
SCALARS = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
OPTIONS = st.dictionaries(
    st.text(), st.booleans() | SCALARS | st.lists(SCALARS, max_size=4).map(tuple), max_size=4
)


def floats(low: float, high: float | None = None, **kwargs: bool) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, allow_infinity=False, **kwargs)


CONFIGS = st.builds(
    TrainConfig,
    family=NAMES,
    options=OPTIONS,
    optimizer=st.builds(
        OptimizerConfig,
        name=NAMES,
        lr=floats(0.0, exclude_min=True),
        weight_decay=floats(0.0),
        options=OPTIONS,
    ),
    schedule=st.builds(ScheduleConfig, name=NAMES, warmup=floats(0.0, 0.9)),
    dropout=st.builds(DropoutConfig, schedule=NAMES, rate=floats(0.0, 0.95)),
    augment=st.dictionaries(st.text(), floats(0.0), max_size=4),
    label_smoothing=floats(0.0, 0.9),
    batch_size=st.integers(1),
    epochs=st.integers(1),
    early_stopping=st.none()
    | st.builds(EarlyStopping, patience=st.integers(1), min_gain=floats(0.0, 1.0)),
    freeze_depth=st.integers(0),
    precision=st.sampled_from(["fp32", "bf16"]),
    seed=st.integers(0, 2**63 - 1),
)


@given(CONFIGS)
def test_json_gives_back_the_same_configuration_to_the_last_digit(config: TrainConfig) -> None:
    read = TrainConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert read == config
    assert repr(read) == repr(config)  # equality does not tell 1 from True, 0.0 from -0.0


def test_a_whole_number_in_json_is_read_as_the_float_that_the_field_holds() -> None:
    config = TrainConfig.from_dict({"family": "mlp", "optimizer": {"lr": 1}, "label_smoothing": 0})
    assert isinstance(config.optimizer.lr, float)
    assert isinstance(config.label_smoothing, float)


def test_a_configuration_does_not_follow_the_mapping_that_it_was_made_of() -> None:
    options: dict[str, int] = {"layers": 2}
    config = TrainConfig(family="mlp", options=options)
    options["layers"] = 3
    assert config.options == {"layers": 2}


NAN = math.nan
BAD: list[tuple[type[JsonConfig], str, object, str]] = [
    # class, field, value, what the message calls the field
    *((OptimizerConfig, "lr", lr, "lr") for lr in (NAN, 0, 0.0, -1e-3, math.inf, True, "1e-3")),
    (OptimizerConfig, "lr", None, "lr"),
    (OptimizerConfig, "lr", 10**400, "lr"),
    (OptimizerConfig, "weight_decay", -1e-4, "weight_decay"),
    (OptimizerConfig, "weight_decay", NAN, "weight_decay"),
    (OptimizerConfig, "name", "", "optimizer"),
    (OptimizerConfig, "name", 3, "optimizer"),
    (OptimizerConfig, "options", ["momentum"], "options"),
    (OptimizerConfig, "options", {"momentum": NAN}, "momentum"),
    (OptimizerConfig, "options", {"momentum": None}, "momentum"),
    (OptimizerConfig, "options", {"momentum": {"low": 0}}, "momentum"),
    (ScheduleConfig, "name", "", "schedule"),
    *((ScheduleConfig, "warmup", value, "warmup") for value in (-0.1, 1.0, 5, NAN, True)),
    *((DropoutConfig, "rate", rate, "dropout") for rate in (2, 1.0, -0.1, NAN, False)),
    (DropoutConfig, "schedule", "", "dropout_schedule"),
    *((EarlyStopping, "patience", value, "patience") for value in (0, True, 1.5, "3")),
    *((EarlyStopping, "min_gain", value, "min_gain") for value in (-0.1, 2, NAN)),
    *((InputConfig, "channels", value, "channels") for value in (True, 1.0, 2)),
    (TrainConfig, "family", "", "family"),
    (TrainConfig, "family", None, "family"),
    (TrainConfig, "options", {"widths": [[1, 2], [3]]}, "widths"),
    *((TrainConfig, "batch_size", value, "batch_size") for value in (0, -1, True, 2.5, "64")),
    *((TrainConfig, "epochs", value, "epochs") for value in (0, False, 1.0)),
    (TrainConfig, "freeze_depth", -1, "freeze_depth"),
    *((TrainConfig, "precision", value, "precision") for value in ("fp16", None, 32)),
    *((TrainConfig, "label_smoothing", value, "label_smoothing") for value in (0.95, -0.1, NAN)),
    *((TrainConfig, "seed", value, "seed") for value in (-1, 1.0, "0")),
    *(
        (TrainConfig, "augment", {"rotate": value}, "rotate")
        for value in (-1.0, NAN, True, "much", (1.0,))
    ),
    (TrainConfig, "optimizer", "sgd", "optimizer"),
    (TrainConfig, "schedule", "cosine", "schedule"),
    (TrainConfig, "dropout", 0.5, "dropout"),
    (TrainConfig, "early_stopping", 5, "early_stopping"),
]


def _id(case: tuple[type[JsonConfig], str, object, str]) -> str:
    return f"{case[0].__name__}-{case[1]}-{str(case[2])[:20]}"


@pytest.mark.parametrize(("kind", "field", "value", "called"), BAD, ids=map(_id, BAD))
def test_a_bad_value_is_an_error_that_names_it_and_its_field(
    kind: type[JsonConfig], field: str, value: object, called: str
) -> None:
    arguments = {"family": "mlp"} if kind is TrainConfig else {}
    arguments |= {"patience": 3} if kind is EarlyStopping else {}
    with pytest.raises(ConfigError) as caught:
        kind(**{**arguments, field: value})
    message = str(caught.value)
    inner = next(iter(value.values())) if isinstance(value, dict) else value
    assert called in message
    assert repr(inner) in message
    assert "\n" not in message
    # The same value out of a stored record is found as well.
    with pytest.raises(ConfigError):
        kind.from_dict({**arguments, field: value})


def test_an_unknown_field_is_named_beside_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'batchsize'.*batch_size"):
        TrainConfig.from_dict({"family": "mlp", "batchsize": 3})
    with pytest.raises(ConfigError, match=r"'learning_rate'.*\blr\b"):
        TrainConfig.from_dict({"family": "mlp", "optimizer": {"learning_rate": 3}})


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ConfigError, match="family"):
        TrainConfig.from_dict({})
    with pytest.raises(ConfigError, match="patience"):
        TrainConfig.from_dict({"family": "mlp", "early_stopping": {}})


@pytest.mark.parametrize("data", [None, [], "mlp", 3])
def test_what_is_no_mapping_is_no_configuration(data: object) -> None:
    with pytest.raises(ConfigError, match="mapping"):
        TrainConfig.from_dict(data)  # type: ignore[arg-type]


FIELDS = sorted({"name", "lr", "rate", "patience", *TrainConfig.__dataclass_fields__})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON)))
def test_any_json_is_read_as_a_whole_configuration_or_refused(data: dict[str, object]) -> None:
    try:
        config = TrainConfig.from_dict({"family": "mlp", **data})
    except ConfigError:
        return
    assert isinstance(config.optimizer, OptimizerConfig)
    assert isinstance(config.schedule, ScheduleConfig)
    assert isinstance(config.dropout, DropoutConfig)
    assert config.early_stopping is None or isinstance(config.early_stopping, EarlyStopping)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
