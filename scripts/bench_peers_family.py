"""The family that `bench_peers.py` lets hpsearch search: its own cnn or resnet, space and all, with
the configurations of the benchmark as what is tried first.

The job is read from the file that the variable BENCH_PEERS_JOB names.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from hpsearch import Family
from hpsearch.families import get_family

_job = json.loads(Path(os.environ["BENCH_PEERS_JOB"]).read_text(encoding="utf-8"))
_base = get_family({"cnn": "cnn", "resnet18": "resnet"}[_job["network"]])

FAMILY = Family(
    summary="the configurations of a benchmark",
    suggest=_base.suggest,
    build=_base.build,
    defaults=tuple(
        {
            "lr": config["lr"],
            "weight_decay": config["weight_decay"],
            "epochs": _job["epochs"],
            **{
                name: strength if config["augment"] else 0.0
                for name, strength in _job["augment"].items()
            },
        }
        for config in _job["configs"]
    ),
)
