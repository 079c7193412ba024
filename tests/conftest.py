"""Fixtures that several test folders share: small data, kept in memory for the whole session."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from few import subset
from hypothesis import settings
from optuna.storages._rdb.storage import _VersionManager

from hpsearch.config import TrainConfig
from hpsearch.data.dataset import ImageDataset
from hpsearch.data.resident import ResidentData
from hpsearch.data.splits import DevelopmentData, SplitSpec, development_data, make_split
from hpsearch.data.store import load_dataset
from hpsearch.data.views import DataViews

# The models here are so small that threads cost more than they give.
torch.set_num_threads(1)

# A shell that starts this in the background has it ignore Ctrl-C, and all that it starts, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run: a failure is a change in the code, never luck.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")

CPU = torch.device("cpu")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--faults",
        action="store_true",
        help="real kills and outages in their full forms: many more of them, minutes of time",
    )


@pytest.fixture(scope="session")
def full_faults(request: pytest.FixtureRequest) -> bool:
    """Whether tests of faults run in their full forms."""
    return bool(request.config.getoption("--faults"))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded images go to a folder of this run, not to the user's, and no search to a database of
    the user's.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPSEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("HPSEARCH_STORAGE", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _migrations_are_read_once() -> Iterator[None]:
    """Optuna reads all of its own whenever a database is opened, which here is always."""
    read, known = _VersionManager.get_head_version, []

    def head_version(self: _VersionManager) -> str:
        if not known:
            known.append(read(self))
        return known[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_VersionManager, "get_head_version", head_version)
        yield


@pytest.fixture(scope="session")
def digits() -> ImageDataset:
    """All 1,797 digits."""
    return load_dataset("digits")


@pytest.fixture(scope="session")
def tiny_digits(digits: ImageDataset) -> ResidentData:
    """180 digits to train on and 60 to validate with."""
    few = subset(digits, np.arange(300))
    split = make_split(few, SplitSpec(val=0.2, test=0.2))
    return DataViews.of(development_data(few, split), CPU).view(TrainConfig(family="mlp"))


@pytest.fixture(scope="session")
def twenty_digits(digits: ImageDataset) -> ResidentData:
    """Two digits of each class, to train on and to validate with: to be learnt by heart."""
    rows = np.concatenate([np.flatnonzero(digits.labels == label)[:2] for label in range(10)])
    few = subset(digits, rows)
    both = DevelopmentData(train=few.part(), val=few.part())
    return DataViews.of(both, CPU).view(TrainConfig(family="mlp"))


@pytest.fixture(scope="session")
def noise() -> Callable[..., ImageDataset]:
    """Makes data sets of random pixels, given how many images each class has."""

    def make(
        *counts: int, height: int = 4, width: int = 4, channels: int = 1, seed: int = 0
    ) -> ImageDataset:
        random = np.random.default_rng(seed)
        labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        shape = (len(labels), height, width, channels)
        return ImageDataset(
            name="noise",
            images=random.integers(0, 256, shape, dtype=np.uint8),
            labels=random.permutation(labels),
            classes=tuple(f"class {number}" for number in range(len(counts))),
        )

    return make
