"""`hpsearch families`, `space` and `check`, as a user meets them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hpsearch.data.dataset import ImageShape
from hpsearch.families import default_params, family_names, get_family, space_of
from hpsearch.families._recipe import TABLES

Run = Callable[[str], tuple[int, str, str]]


class TestFamilies:
    def test_all_are_listed_with_their_presets(self, run: Run) -> None:
        code, out, err = run("families")
        assert (code, err) == (0, "")
        for name in family_names():
            assert name in out
        words = out.split()
        for preset in ("stl4,", "photos6x5,", "hands6,", "hands15"):
            assert preset in words

    def test_as_json(self, run: Run) -> None:
        code, out, _ = run("families --json")
        assert code == 0
        rows = {row["family"]: row for row in json.loads(out)}
        assert tuple(rows) == family_names()
        for name, row in rows.items():
            assert row["summary"] == get_family(name).summary
            assert row["presets"] == list(get_family(name).presets)
        assert rows["resnet"]["published_weights"]
        assert not rows["mlp"]["published_weights"]

    def test_the_layers_of_a_preset(self, run: Run) -> None:
        code, out, err = run("families cnn --preset stl4 --image-size 64 --classes 10")
        assert (code, err) == (0, "")
        assert "8,807,106 parameters: 8,807,106 trained, 0 frozen" in out
        for number in ("1,180,160", "4,609,000", "512,512", "256x62x62", "1000x1x1"):
            assert number in out

    def test_frozen_parameters_and_other_sizes(self, run: Run) -> None:
        code, out, _ = run(
            "families mlp --image-size 8 --channels 1 --classes 3 --set freeze_depth=1 "
            "--set widths=20/10 --set batch_norm=no --json"
        )
        assert code == 0
        document = json.loads(out)
        assert document["input"] == {"height": 8, "width": 8, "channels": 1}
        assert document["frozen"] == 64 * 20 + 20
        assert document["trained"] == 20 * 10 + 10 + 10 * 3 + 3
        assert document["parameters"] == document["frozen"] + document["trained"]
        assert document["macs"] == 64 * 20 + 20 * 10 + 10 * 3
        assert document["stages"] == ["hidden1", "hidden2", "head"]

    def test_no_weights_are_needed_to_look_at_a_network_that_has_some(self, run: Run) -> None:
        code, out, _ = run("families resnet --set depth=18 --set weights=imagenet --json")
        assert code == 0
        document = json.loads(out)
        # Published for 1,000 classes: 11,689,512, of which the last layer has 513,000.
        assert document["parameters"] == 11_689_512 - 513_000 + 5_130
        assert document["input"] == {"height": 224, "width": 224, "channels": 3}

    @pytest.mark.parametrize(
        ("command", "named"),
        [
            ("families renset", "'renset'; did you mean 'resnet'?"),
            (
                "families resnet --preset stl4",
                "resnet has none; these families have some: cnn, mlp",
            ),
            ("families cnn --preset stl5", "'stl5'"),
            ("families --preset stl4", "--preset is of one family: hpsearch families FAMILY"),
            ("families --set convs=2", "--set is of one family"),
            ("families cnn --preset stl4 --image-size 40", "at least"),
            ("families cnn --image-size 0", "0"),
            ("families cnn --channels 2", "--channels is 3, or 1 for gray images, but is 2"),
            ("space cnn --set lr=1e-2..1e-4", "--set lr: a range must rise"),
            ("space cnn --set preset=stl5", "stl4, photos6x5, hands6, hands15, but got 'stl5'"),
            ("space mlp --set dropout_epochs=1", "set what it needs: with dropout_rates"),
            ("families cnn --set convss=2", "'convs'"),
            ("space cnn --set lr=fast", "'fast'"),
            ("space nothing", "'nothing'"),
        ],
    )
    def test_what_is_wrong_is_named(self, run: Run, command: str, named: str) -> None:
        code, out, err = run(command)
        assert code == 2
        assert out == ""
        assert named in err
        assert "Traceback" not in err


class TestSpace:
    @pytest.mark.parametrize("name", family_names())
    def test_it_lists_every_parameter(self, run: Run, name: str) -> None:
        code, out, err = run(f"space {name} --image-size 64 --json")
        assert (code, err) == (0, "")
        shape = ImageShape(64, 64, 3)
        rows = {row["name"]: row for row in json.loads(out)}
        assert set(rows) == {row.name for row in space_of(name, shape, everything=True)}
        searched = {name for name, row in rows.items() if row["searched"]}
        assert searched == {row.name for row in space_of(name, shape)}
        for key, value in default_params(name, shape)[0].items():
            assert rows[key]["default"] == value
        assert all(row["help"] for row in rows.values())
        assert rows["lr"]["scale"] == "log"

    def test_gray_images_are_asked_for_as_everywhere(self, run: Run) -> None:
        assert run("space mlp --gray") == run("space mlp --channels 1") != run("space mlp")

    def test_conditions_and_what_can_be_switched_on(self, run: Run) -> None:
        rows = {row["name"]: row for row in json.loads(run("space cnn --json")[1])}
        assert rows["momentum"]["condition"]["optimizer"] == ["sgd"]
        assert rows["ema"]["searched"] is False
        assert rows["ema"]["default"] == 0.0
        assert "muon" in rows["optimizer"]["also"]
        code, out, _ = run("space cnn")
        assert code == 0
        assert out.index("searched") < out.index("not searched unless")

    @pytest.mark.parametrize("name", sorted(TABLES))
    def test_one_parameter_is_shown_with_what_its_choices_mean(self, run: Run, name: str) -> None:
        code, out, err = run(f"space cnn {name}")
        assert (code, err) == (0, "")
        (row,) = json.loads(run(f"space cnn {name} --json")[1])
        choices = {*row["choices"], *row["also"]}
        assert len(choices) > 1
        for known in TABLES[name]:
            if known.name in choices:
                assert re.search(rf"^ *{known.name} +{re.escape(known.help)} *$", out, re.MULTILINE)
        assert set(row["meanings"]) == choices
        assert "weight_decay" not in out

    def test_a_parameter_that_there_is_not(self, run: Run) -> None:
        assert "'lrr'" in run("space cnn lrr")[2]
        gone = run("space cnn dropout --set dropout_rates=0.5/0.6 --set dropout_epochs=1/2")
        assert (gone[0], "set what it needs: without dropout_rates" in gone[2]) == (2, True)
        assert "choice" not in run("space cnn channels")[1]

    def test_overrides_narrow_it(self, run: Run) -> None:
        command = "space cnn --set lr=1e-3..1e-2 --set ema=search --set optimizer=muon --json"
        rows = {row["name"]: row for row in json.loads(run(command)[1])}
        assert (rows["lr"]["low"], rows["lr"]["high"]) == (1e-3, 1e-2)
        assert rows["ema"]["searched"]
        assert rows["optimizer"]["choices"] == ["muon"]


class TestCheck:
    def test_a_sound_configuration_passes(self, run: Run, tmp_path: Path) -> None:
        code, out, err = run("check --family logistic --family mlp")
        assert (code, err) == (0, "")
        assert "logistic: ok, knows all 20 images by heart" in out
        assert "mlp: ok" in out
        assert list(tmp_path.iterdir()) == []

    def test_one_that_cannot_learn_exits_with_1_and_says_what_it_saw(self, run: Run) -> None:
        code, out, err = run("check --family mlp --set lr=1e-9")
        assert (code, err) == (1, "")
        assert "mlp: FAILED to learn 20 images by heart (300 epochs" in out
        assert "the learning rate 1e-09 of adamw" in out

    def test_a_trial_is_checked_on_the_data_of_its_search(self, run: Run) -> None:
        made = "search --data digits --size 10 --split-seed 3 --family logistic --trials 1"
        assert run(f"{made} --epochs 1 --name small --artifacts none")[0] == 0
        code, out, err = run("check --trial logistic-0")
        assert (code, err) == (0, "")
        assert "logistic-0: ok" in out
        assert run("check --name small --trial logistic-0")[0] == 0
        for option in ("--data digits", "--set lr=1", "--seed 0", "--family mlp", "--no-first"):
            code, _, err = run(f"check --name small --trial logistic-0 {option}")
            assert code == 2
            assert f"takes no {option.partition(' ')[0]}" in err

    def test_as_json(self, run: Run) -> None:
        code, out, _ = run("check --family mlp --json")
        assert code == 0
        (result,) = json.loads(out)
        assert result["passed"] is True
        assert result["accuracy"] == 1.0
        assert result["images"] == 20
        assert result["findings"] == []

    def test_a_wrong_option_is_named(self, run: Run) -> None:
        code, _, err = run("check --family mlp --set convs=2")
        assert code == 2
        assert "'convs'" in err
