"""Searches over what is not searched by default: weights, sizes, epochs, a family of one's own."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from hpsearch import Range, SearchRecord, StudySpec, export, load_search, load_study, search
from hpsearch.data.dataset import ImageShape
from hpsearch.engine.database import open_storage
from hpsearch.engine.events import Event, SearchStarted
from hpsearch.engine.search import plan
from hpsearch.engine.setup import epochs_of
from hpsearch.engine.states import left_to_do, most_aside
from hpsearch.errors import (
    CheckpointError,
    ConfigError,
    InfeasibleError,
    SearchError,
    SpaceError,
)
from hpsearch.families import space_of
from hpsearch.results.inference import restore_model
from hpsearch.training.checkpoint import load_checkpoint

MLP = StudySpec(
    families=("mlp",), trials=4, epochs=2, overrides={"layers": 2, "width": 64}, artifacts="none"
)


class TestInfeasibleConfigurations:
    """Two unpadded convolutions of 5x5 do not fit into digits of 8x8; one does."""

    SPEC = StudySpec(
        artifacts="none",
        families=("cnn",),
        trials=5,
        epochs=1,
        overrides={
            "kernel": 5,
            "padding": "none",
            "blocks": 1,
            "convs": Range(1, 2),
            "channels": 16,
            "hidden": 0,
        },
    )

    @pytest.fixture(scope="class")
    @classmethod
    def record(cls, tmp_path_factory: pytest.TempPathFactory) -> SearchRecord:
        return search(cls.SPEC, runs=tmp_path_factory.mktemp("runs"), device="cpu")

    def test_they_are_told_to_the_sampler_and_not_counted(self, record: SearchRecord) -> None:
        assert record.finished == 5
        assert record.count("failed") == 0
        infeasible = [trial for trial in record.trials if trial.state == "infeasible"]
        assert infeasible
        for trial in infeasible:
            assert trial.params["convs"] == 2
            assert "block1.conv2" in trial.failure
            assert trial.epochs == 0
        study = _study(record, "cnn")
        for trial in study.trials:
            is_feasible = trial.params["convs"] == 1
            assert trial.constraints == ({} if is_feasible else {"infeasible": 1.0})

    def test_going_on_counts_them_as_before(self, record: SearchRecord, tmp_path: Path) -> None:
        shutil.copytree(record.runs, tmp_path / "runs")
        again = search(self.SPEC, runs=tmp_path / "runs", device="cpu")
        assert [t.state for t in again.trials] == [t.state for t in record.trials]
        more = dataclasses.replace(self.SPEC, trials=6)
        assert search(more, runs=tmp_path / "runs", device="cpu").finished == 6

    def test_a_space_without_any_feasible_one_is_refused(self, tmp_path: Path) -> None:
        overrides = {**self.SPEC.overrides, "convs": 2}
        spec = dataclasses.replace(self.SPEC, overrides=overrides)
        for start in (search, plan):
            with pytest.raises(InfeasibleError, match=r"no configuration of cnn.*block1\.conv2"):
                start(spec, runs=tmp_path / "runs", device="cpu")
        few = StudySpec(families=("logistic",), overrides={"train_images": 5})
        with pytest.raises(InfeasibleError, match="10 classes"):
            search(few, runs=tmp_path / "runs", device="cpu")
        assert not (tmp_path / "runs").exists()

    def test_a_family_is_given_up_after_many(self) -> None:
        states = ["infeasible"] * (most_aside(2) - 1) + ["complete", "running"]
        assert left_to_do(states, 2) == 1
        assert left_to_do([*states, "infeasible"], 2) == 0
        assert left_to_do(["pruned", "failed", "complete", "waiting"], 5) == 2


def _study(record: SearchRecord, family: str):  # type: ignore[no-untyped-def]
    import optuna

    return optuna.load_study(
        study_name=f"{record.name}/{family}", storage=open_storage(record.place)
    )


class TestEpochsThatVary:
    SPEC = dataclasses.replace(MLP, trials=8, overrides={"epochs": Range(1, 4)})

    def test_nothing_is_pruned_and_it_says_so(self, tmp_path: Path) -> None:
        events: list[Event] = []
        record = search(self.SPEC, runs=tmp_path, device="cpu", watch=events.append)
        (started,) = [event for event in events if isinstance(event, SearchStarted)]
        assert any("no trial of mlp is pruned" in warning for warning in started.warnings)
        assert record.count("complete") == 8
        lengths = {trial.epochs for trial in record.trials}
        assert lengths <= {1, 2, 3, 4}
        assert len(lengths) > 1
        for trial in record.trials:
            assert trial.config is not None
            assert trial.epochs == trial.config.epochs == trial.params["epochs"]

    def test_only_where_they_vary(self, tmp_path: Path) -> None:
        fixed = dataclasses.replace(self.SPEC, overrides={"epochs": 3})
        assert plan(fixed, runs=tmp_path, device="cpu").warnings == ()
        assert len(plan(self.SPEC, runs=tmp_path, device="cpu").warnings) == 1

    @pytest.mark.parametrize(("epochs", "expected"), [(3, (3, 3)), (Range(2, 5), (2, 5))])
    def test_the_pruner_knows_how_many_there_are(
        self, epochs: Any, expected: tuple[int, int]
    ) -> None:
        spec = dataclasses.replace(self.SPEC, overrides={"epochs": epochs})
        shape = ImageShape(8, 8, 1)
        assert epochs_of(spec, space_of("mlp", shape, spec.overrides)) == expected
        plain = dataclasses.replace(self.SPEC, overrides={})
        assert epochs_of(plain, space_of("mlp", shape)) == (2, 2)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An mlp trained on digits and exported: weights to start from."""
    folder = tmp_path_factory.mktemp("transfer")
    record = search(dataclasses.replace(MLP, epochs=6), runs=folder / "runs", device="cpu")
    return export(record.best, folder / "exported", device="cpu").folder


class TestTransfer:
    """A search over how much of our own export is frozen, to the export of its best trial."""

    @staticmethod
    def spec(exported: Path) -> StudySpec:
        return StudySpec(
            artifacts="none",
            name="transfer",
            families=("mlp",),
            trials=8,
            epochs=2,
            overrides={"weights": str(exported)},
            keep=8,
        )

    @pytest.fixture(scope="class")
    @classmethod
    def record(cls, exported: Path, tmp_path_factory: pytest.TempPathFactory) -> SearchRecord:
        return search(cls.spec(exported), runs=tmp_path_factory.mktemp("runs"), device="cpu")

    def test_freeze_depth_is_searched_and_kept_to(
        self, exported: Path, record: SearchRecord
    ) -> None:
        assert record.count("failed") == 0
        source = load_checkpoint(exported / "model.pt")
        depths = set()
        for trial in record.ranked():
            assert trial.config is not None
            assert trial.config.weights is not None
            assert len(trial.config.weights.sha256) == 64
            assert trial.config.options == source.config.options
            assert "layers" not in trial.params
            depth = trial.config.freeze_depth
            assert depth == trial.params["freeze_depth"]
            depths.add(depth)
            trained = load_checkpoint(trial.folder / "checkpoint.pt")
            # The statistics of the export's data, too: its weights are used to them.
            assert trained.preprocessing.mean == source.preprocessing.mean
            frozen = tuple(f"stages.hidden{number}." for number in range(1, depth + 1))
            for name, tensor in trained.state.items():
                same = torch.equal(tensor, source.state[name])
                if "num_batches" not in name:
                    assert same == name.startswith(frozen), name
        assert len(depths) > 1

    def test_it_starts_better_than_from_scratch(self, record: SearchRecord, tmp_path: Path) -> None:
        scratch = dataclasses.replace(MLP, trials=2, epochs=2)
        other = search(scratch, runs=tmp_path, device="cpu").best
        assert record.best.val_accuracy is not None
        assert other.val_accuracy is not None
        assert record.best.val_accuracy >= other.val_accuracy

    def test_its_best_is_exported_without_the_weights_it_started_from(
        self, exported: Path, record: SearchRecord, tmp_path: Path
    ) -> None:
        shutil.copytree(record.runs, tmp_path / "runs")
        hidden = exported.with_name("elsewhere")
        exported.rename(hidden)
        try:
            found = load_search(tmp_path / "runs")
            result = export(found.best, tmp_path / "out", device="cpu")
        finally:
            hidden.rename(exported)
        assert result.test_accuracy > 0.9

    def test_other_weights_under_the_same_name_are_refused(
        self, exported: Path, record: SearchRecord, tmp_path: Path
    ) -> None:
        shutil.copytree(record.runs, tmp_path / "runs")
        kept = exported.with_name("kept")
        exported.rename(kept)
        try:
            spec = dataclasses.replace(MLP, seed=5, trials=1)
            other = search(spec, runs=tmp_path / "other", device="cpu")
            export(other.best, exported, device="cpu")
            more = dataclasses.replace(self.spec(exported), trials=9)
            with pytest.raises((SearchError, CheckpointError), match="weights"):
                search(more, runs=tmp_path / "runs", device="cpu")
        finally:
            shutil.rmtree(exported)
            kept.rename(exported)

    def test_an_export_of_another_family_is_refused_before_anything_is_written(
        self, exported: Path, tmp_path: Path
    ) -> None:
        spec = dataclasses.replace(self.spec(exported), families=("cnn",))
        with pytest.raises(ConfigError, match=r"family mlp, but .* family cnn; search mlp"):
            search(spec, runs=tmp_path / "runs", device="cpu")
        assert not (tmp_path / "runs").exists()

    def test_weights_that_are_not_there_are_named(self, tmp_path: Path) -> None:
        spec = dataclasses.replace(self.spec(tmp_path / "nothing"), name="none")
        with pytest.raises(CheckpointError, match="nothing"):
            search(spec, runs=tmp_path / "runs", device="cpu")
        assert not (tmp_path / "runs").exists()


def test_the_size_of_the_images_is_searched_and_exported(tmp_path: Path) -> None:
    spec = StudySpec(
        artifacts="none",
        families=("mlp",),
        trials=8,
        epochs=1,
        keep=8,
        seed=1,
        overrides={"image_size": (6, 12), "layers": 1, "normalise": ("half", "dataset")},
    )
    record = search(spec, runs=tmp_path / "runs", device="cpu")
    assert record.count("failed") == 0
    assert {trial.params["image_size"] for trial in record.trials} == {6, 12}
    sizes = set()
    for trial in record.ranked():
        checkpoint = load_checkpoint(trial.folder / "checkpoint.pt")
        size = trial.params["image_size"]
        sizes.add(size)
        assert checkpoint.preprocessing.shape.height == size
        assert checkpoint.preprocessing.mean == (0.5,) or trial.params["normalise"] == "dataset"
        restore_model(checkpoint)
        # The export checks that the model still has the validation accuracy of the search.
        result = export(trial, tmp_path / trial.name, device="cpu")
        assert trial.val_accuracy is not None
        assert abs(result.test_accuracy - trial.val_accuracy) < 0.15
    assert sizes <= {6, 12}


OWN_FAMILY = '''
"""The mean of the image, and a linear layer."""

from torch import nn

from hpsearch.families import Family, ask_start, suggest_training
from hpsearch.training.model import StagedModel


def suggest(s, shape):
    start = ask_start(s, shape)
    return suggest_training(s, start, options={"bins": s.int("bins", 1, 4)})


def build(options, shape, n_classes):
    bins = options["bins"]
    head = nn.Sequential(
        nn.AdaptiveAvgPool2d(bins), nn.Flatten(), nn.Linear(bins * bins * shape.channels, n_classes)
    )
    return StagedModel({"head": head})


FAMILY = Family(
    summary="the mean colour",
    suggest=suggest,
    build=build,
    defaults=({"bins": 4, "optimizer": "adamw", "lr": 0.03, "schedule": "cosine"},),
)
'''
OWN_STUDY = """
from hpsearch import StudySpec

study = StudySpec(families=("mean_colour.py", "logistic"), trials=6, epochs=4, name="own")
"""


class TestAFamilyOfOnesOwn:
    def test_a_study_file_names_it_and_its_best_is_exported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "mean_colour.py").write_text(OWN_FAMILY)
        (tmp_path / "mine" / "study.py").write_text(OWN_STUDY)
        monkeypatch.chdir(tmp_path)
        spec = load_study(Path("mine/study.py"))
        runs = tmp_path / "runs"
        record = search(spec, runs=runs, device="cpu")
        assert record.families == ("mean_colour", "logistic")
        assert record.count("failed") == 0
        own = record.ranked("mean_colour")
        assert {trial.name for trial in own} <= {f"mean_colour-{n}" for n in range(3)}
        assert own[0].folder.parent == runs / "own"
        assert export(own[0], tmp_path / "out", device="cpu").test_accuracy > 0.3
        # The same command again goes on, and knows what is done.
        again = search(spec, runs=runs, device="cpu")
        assert [t.name for t in again.trials] == [t.name for t in record.trials]

    def test_an_edited_file_is_another_search(self, tmp_path: Path) -> None:
        path = tmp_path / "mean_colour.py"
        path.write_text(OWN_FAMILY)
        spec = StudySpec(families=(str(path),), trials=1, epochs=1, name="own")
        search(spec, runs=tmp_path / "runs", device="cpu")
        path.write_text(OWN_FAMILY + "\n# another model, perhaps\n")
        with pytest.raises(SearchError, match=r"code of .*mean_colour\.py"):
            search(spec, runs=tmp_path / "runs", device="cpu")

    @pytest.mark.parametrize(
        ("old", "new", "named"),
        [
            ("n_classes)\n    )", "7)\n    )", r"gives \(2, 7\) for 2 images"),
            ("bins * bins *", "bins *", "its model fails on images of 8x8x1"),
            (
                'defaults=({"bins": 4, "optimizer": "adamw", "lr": 0.03, "schedule": "cosine"},)',
                "defaults=()",
                "defaults must hold one",
            ),
        ],
    )
    def test_its_mistakes_are_named_before_anything_is_written(
        self, tmp_path: Path, old: str, new: str, named: str
    ) -> None:
        path = tmp_path / "mean_colour.py"
        path.write_text(OWN_FAMILY.replace(old, new))
        spec = StudySpec(families=(str(path),), trials=1, epochs=1, name="own")
        with pytest.raises(SpaceError, match=named):
            search(spec, runs=tmp_path / "runs", device="cpu")
        assert not (tmp_path / "runs").exists()

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("x = 1", "FAMILY"),
            ("FAMILY = 3", "FAMILY"),
            ("import nothing_like_it", "ModuleNotFoundError.*nothing_like_it"),
            ("raise SystemExit('away')", "SystemExit.*away"),
        ],
    )
    def test_a_file_that_is_no_family_is_named(self, tmp_path: Path, text: str, named: str) -> None:
        path = tmp_path / "broken.py"
        path.write_text(text)
        spec = StudySpec(families=(str(path),), trials=1, epochs=1)
        with pytest.raises(SpaceError, match=rf"broken\.py.*{named}"):
            search(spec, runs=tmp_path / "runs", device="cpu")
        assert not (tmp_path / "runs").exists()

    def test_its_name_is_no_family_of_ours(self, tmp_path: Path) -> None:
        path = tmp_path / "mlp.py"
        path.write_text(OWN_FAMILY)
        spec = StudySpec(families=(str(path),), trials=1, epochs=1, name="own")
        with pytest.raises(SpaceError, match=r"mlp\.py is called as a family.*rename it"):
            search(spec, runs=tmp_path / "runs", device="cpu")

    def test_two_files_of_one_name_cannot_be_in_one_search(self) -> None:
        with pytest.raises(SearchError, match="different names"):
            StudySpec(families=("a/net.py", "b/net.py"))
