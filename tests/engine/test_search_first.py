"""Configurations that a study wants tried first, in a search."""

from __future__ import annotations

from pathlib import Path

from hpsearch import StudySpec, search
from hpsearch.data.dataset import ImageShape
from hpsearch.families import default_params


def test_they_are_tried_before_the_known_good_ones(tmp_path: Path) -> None:
    spec = StudySpec(
        families=("logistic", "mlp"),
        trials=5,
        epochs=1,
        overrides={"mlp.widths": ([16], [8, 8])},
        first=({"lr": 2e-2}, {"widths": [8, 8], "batch_size": 128}),
    )
    record = search(spec, runs=tmp_path)
    shape = ImageShape(8, 8, 1)
    known = {name: default_params(name, shape, spec.overrides) for name in spec.families}
    begun = [trial for trial in record.trials if trial.state != "waiting"]
    tried = {
        name: [dict(trial.params) for trial in begun if trial.family == name]
        for name in spec.families
    }
    of_logistic, of_mlp = (known[name][0] for name in spec.families)
    # The second one has a parameter of logistic, too.
    assert tried["logistic"] == [
        {**of_logistic, "lr": 2e-2},
        {**of_logistic, "batch_size": 128},
        of_logistic,
    ]
    assert tried["mlp"] == [
        {**of_mlp, "lr": 2e-2},
        {**of_mlp, "widths": "8/8", "batch_size": 128},
    ]
    assert all(trial.state == "complete" for trial in begun)
    assert StudySpec.from_dict(record.spec).to_dict() == spec.to_dict()
