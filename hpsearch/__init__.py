"""hpsearch finds the best image classifier for your data.

Example:
    from hpsearch import StudySpec, export, load, search

    result = search(StudySpec(name="digits-cnn", families=("cnn",), trials=10))
    export(result.best, "exports/digits-cnn")
    print(load("exports/digits-cnn").predict("photo.png"))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpsearch.config import EarlyStopping, TrainConfig
    from hpsearch.data.checks.source import check_source
    from hpsearch.data.convert import convert
    from hpsearch.data.dataset import ImageDataset
    from hpsearch.data.spec import DataSpec
    from hpsearch.data.splits import SplitSpec
    from hpsearch.data.store import load_dataset
    from hpsearch.engine.overfit import check_study
    from hpsearch.engine.records import SearchRecord, TrialRecord
    from hpsearch.engine.search import join, plan, search
    from hpsearch.engine.search_reader import load_search
    from hpsearch.engine.spec import StudySpec
    from hpsearch.engine.status import SearchStatus
    from hpsearch.engine.status_reader import search_status
    from hpsearch.engine.study_file import load_study
    from hpsearch.errors import HpsearchError
    from hpsearch.families import (
        Family,
        Range,
        Suggester,
        ask_start,
        family_names,
        suggest_training,
    )
    from hpsearch.results.compare import compare
    from hpsearch.results.evaluate import evaluate
    from hpsearch.results.export import Export, export
    from hpsearch.results.predictor import Prediction, Predictor, load
    from hpsearch.results.retraining.retrain import Retrained, retrain, retrain_best
    from hpsearch.training.dropout import ScheduledDropout
    from hpsearch.training.model import StagedModel

_HOME = {
    "EarlyStopping": "hpsearch.config",
    "TrainConfig": "hpsearch.config",
    "check_source": "hpsearch.data.checks.source",
    "convert": "hpsearch.data.convert",
    "ImageDataset": "hpsearch.data.dataset",
    "DataSpec": "hpsearch.data.spec",
    "SplitSpec": "hpsearch.data.splits",
    "load_dataset": "hpsearch.data.store",
    "check_study": "hpsearch.engine.overfit",
    "SearchRecord": "hpsearch.engine.records",
    "TrialRecord": "hpsearch.engine.records",
    "join": "hpsearch.engine.search",
    "plan": "hpsearch.engine.search",
    "search": "hpsearch.engine.search",
    "load_search": "hpsearch.engine.search_reader",
    "StudySpec": "hpsearch.engine.spec",
    "SearchStatus": "hpsearch.engine.status",
    "search_status": "hpsearch.engine.status_reader",
    "load_study": "hpsearch.engine.study_file",
    "HpsearchError": "hpsearch.errors",
    "Family": "hpsearch.families",
    "Range": "hpsearch.families",
    "Suggester": "hpsearch.families",
    "ask_start": "hpsearch.families",
    "family_names": "hpsearch.families",
    "suggest_training": "hpsearch.families",
    "compare": "hpsearch.results.compare",
    "evaluate": "hpsearch.results.evaluate",
    "Export": "hpsearch.results.export",
    "export": "hpsearch.results.export",
    "Prediction": "hpsearch.results.predictor",
    "Predictor": "hpsearch.results.predictor",
    "load": "hpsearch.results.predictor",
    "Retrained": "hpsearch.results.retraining.retrain",
    "retrain": "hpsearch.results.retraining.retrain",
    "retrain_best": "hpsearch.results.retraining.retrain",
    "ScheduledDropout": "hpsearch.training.dropout",
    "StagedModel": "hpsearch.training.model",
}

__all__ = [
    "DataSpec",
    "EarlyStopping",
    "Export",
    "Family",
    "HpsearchError",
    "ImageDataset",
    "Prediction",
    "Predictor",
    "Range",
    "Retrained",
    "ScheduledDropout",
    "SearchRecord",
    "SearchStatus",
    "SplitSpec",
    "StagedModel",
    "StudySpec",
    "Suggester",
    "TrainConfig",
    "TrialRecord",
    "ask_start",
    "check_source",
    "check_study",
    "compare",
    "convert",
    "evaluate",
    "export",
    "family_names",
    "join",
    "load",
    "load_dataset",
    "load_search",
    "load_study",
    "plan",
    "retrain",
    "retrain_best",
    "search",
    "search_status",
    "suggest_training",
]


def __getattr__(name: str) -> Any:
    # Loaded when first used: torch takes seconds to import, and `hpsearch --help` needs none of it.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
