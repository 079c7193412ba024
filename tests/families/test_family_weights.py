from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import pickle
import re
import struct
import sys
import urllib.error
from collections.abc import Callable, Mapping
from email.message import Message
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import models

from hpsearch.config import InputConfig, TrainConfig, WeightsConfig
from hpsearch.data.dataset import ImageShape
from hpsearch.data.preprocessing import Preprocessing
from hpsearch.errors import CheckpointError, ConfigError, HpsearchError
from hpsearch.families import (
    _statefile,
    _weights,
    build_model,
    get_family,
    initial_model,
    resolve_config,
    weights_of,
    whole_space,
)
from hpsearch.families._published import is_published, published_weights
from hpsearch.families._stems import take_gray
from hpsearch.families._transfer import without_head
from hpsearch.families._weights import WeightsInfo, load_weights, resolve_weights, weights_info
from hpsearch.training.checkpoint import Checkpoint, save_checkpoint
from hpsearch.training.model import StagedModel

MODEL = "resnet18"
MEMBER = models.ResNet18_Weights.IMAGENET1K_V1
ZOO = models.list_models(module=models)
NET = {"family": "net", "published": MODEL}
SMALL = ImageShape(6, 6, 3)

State = dict[str, Tensor]


def resnet(**options: Any) -> TrainConfig:
    return TrainConfig(
        family="resnet",
        options={"depth": 18, **options},
        weights=WeightsConfig(source="imagenet"),
    )


def little(classes: int = 3, *, channels: int = 3, width: int = 4, seed: int = 1) -> StagedModel:
    """A network with the names of torchvision for all but its head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stages = {
            "stem": nn.Sequential(nn.Conv2d(channels, width, 3), nn.BatchNorm2d(width)),
            "fc1": nn.Sequential(nn.Flatten(), nn.LazyLinear(6)),
            "head": nn.Sequential(nn.LayerNorm(6), nn.Linear(6, classes)),
        }
        model = StagedModel(stages, published=NAMES)
        model(torch.rand(2, channels, 6, 6))
    return model


NAMES = {
    **{f"stages.stem.0.{name}": f"conv1.{name}" for name in ("weight", "bias")},
    **{
        f"stages.stem.1.{name}": f"bn1.{name}"
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    },
    **{f"stages.fc1.1.{name}": f"classifier.1.{name}" for name in ("weight", "bias")},
    **{f"stages.head.0.{name}": f"classifier.3.{name}" for name in ("weight", "bias")},
    **{f"stages.head.1.{name}": f"fc.{name}" for name in ("weight", "bias")},
}


def published_state() -> State:
    """What torchvision would publish for `little`: its 1000 classes, other values, all trained."""
    original = little(1000, seed=2)
    generator = torch.Generator().manual_seed(0)
    original(torch.rand(4, 3, 6, 6, generator=generator) * 3)
    return {
        NAMES[name]: tensor + 0.5 if tensor.is_floating_point() else tensor
        for name, tensor in original.state_dict().items()
    }


def assert_taken_over(model: StagedModel, classes: int = 3) -> None:
    """All of `published_state` but its last layer is in `model`, where that is as it was."""
    fresh, state = little(classes).state_dict(), published_state()
    assert set(fresh) == set(NAMES)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, fresh[name] if name in HEAD else state[NAMES[name]]), name


def copy_of(model: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> set[str]:
    return {name for name in first if torch.equal(first[name], second[name])}


HEAD = {"stages.head.1.weight", "stages.head.1.bias"}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def flip(path: Path, bit: int | None = None) -> None:
    """Changes one bit of the file, where it lies; by default in the middle."""
    content = bytearray(path.read_bytes())
    bit = len(content) * 4 if bit is None else bit
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def refused(call: Callable[[], object], kind: type[HpsearchError] = CheckpointError) -> str:
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch.hub's folder of this test; nothing is in it. Nobody answers on the network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def offline(request: Any) -> None:
        if not request.full_url.startswith("file:"):
            raise urllib.error.URLError("no network in the tests")
        return original(request)

    original = torch.hub.urlopen
    monkeypatch.setattr(torch.hub, "urlopen", offline)
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torchvision's ResNet-18 weights can be downloaded: those of `little`, as a file whose
    name has its hash.
    """
    return publish(tmp_path / "server", monkeypatch, published_state())


def publish(folder: Path, monkeypatch: pytest.MonkeyPatch, state: State) -> Path:
    folder.mkdir()
    torch.save(state, folder / "new.pth")
    file = folder / f"resnet18-{sha256(folder / 'new.pth')[:8]}.pth"
    (folder / "new.pth").rename(file)
    monkeypatch.setattr(MEMBER.value, "url", file.as_uri())
    return file


@pytest.fixture
def downloaded(server: Path, hub: Path) -> Path:
    """The file in torch.hub's folder."""
    resolve_weights(WeightsConfig(source="imagenet"), **NET)
    return hub / server.name


def load(model: StagedModel, source: str | Path, sha: str = "", **where: Any) -> StagedModel:
    weights = WeightsConfig(source=str(source), sha256=sha)
    load_weights(model, weights, **{**NET, "shape": SMALL, **where})
    return model


def resolve(source: str | Path, sha: str = "", **where: Any) -> WeightsConfig:
    return resolve_weights(WeightsConfig(source=str(source), sha256=sha), **{**NET, **where})


def info(source: str | Path, **where: Any) -> WeightsInfo:
    return weights_info(str(source), **{**NET, **where})


class TestPublishedNames:
    @pytest.mark.parametrize("model", ZOO)
    def test_each_says_the_images_that_it_wants_without_its_file(self, model: str) -> None:
        usable = [row for row in models.get_model_weights(model) if row.meta["categories"]]
        assert usable
        picture = Image.new("RGB", (700, 700), (30, 60, 90))
        for row in usable:
            found = info(row.name, published=model)
            assert found.kind == "published"
            assert (found.options, found.family) == (None, "")
            stored = published_weights(row.name, model)
            assert f"-{stored.sha256}.pth" in row.url
            assert re.fullmatch("[0-9a-f]{8,}", stored.sha256)
            # What torchvision itself makes of a picture of one colour, cut or not.
            expected = row.transforms()(picture)
            wanted = found.input
            assert (3, *wanted.size) == tuple(expected.shape)
            assert (wanted.channels, wanted.normalise) == (3, "given")
            values = [
                (value / 255 - mean) / std
                for value, mean, std in zip((30, 60, 90), wanted.mean, wanted.std, strict=True)
            ]
            assert expected[:, 0, 0].tolist() == pytest.approx(values, abs=1e-5)

    def test_the_size_before_the_cut_is_torchvisions(self) -> None:
        assert info("imagenet", published="alexnet").input == InputConfig(
            size=(224, 224),
            resize=(256, 256),
            channels=3,
            normalise="given",
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        )
        uncut = info("imagenet", published="maxvit_t").input
        assert (uncut.size, uncut.resize) == ((224, 224), ())

    @pytest.mark.parametrize("model", ZOO)
    def test_imagenet_names_the_best(self, model: str) -> None:
        best = models.get_model_weights(model).DEFAULT
        assert published_weights("imagenet", model) == published_weights(best.name, model)

    @pytest.mark.parametrize("name", ["IMAGENET1K_V1", "imagenet1k_v1", "ImageNet1K_v1"])
    def test_capitals_do_not_matter(self, name: str) -> None:
        v1 = models.ResNet50_Weights.IMAGENET1K_V1
        assert v1 is not models.ResNet50_Weights.DEFAULT
        assert published_weights(name, "resnet50").url == v1.url
        best = models.ResNet50_Weights.DEFAULT
        assert published_weights("IMAGENET", "resnet50").url == best.url

    @pytest.mark.parametrize("call", [info, resolve])
    def test_an_unknown_name_lists_those_there_are(self, call: Callable[..., object]) -> None:
        message = refused(lambda: call("IMAGENET1K_V7", published="resnet50"), ConfigError)
        for text in ("'IMAGENET1K_V7'", "resnet50", "imagenet", "IMAGENET1K_V1", "IMAGENET1K_V2"):
            assert text in message

    def test_weights_of_a_part_only_are_not_offered(self) -> None:
        # Their classifier is not a number.
        message = refused(lambda: info("IMAGENET1K_FEATURES", published="vgg16"), ConfigError)
        assert message.endswith("imagenet, IMAGENET1K_V1")

    def test_a_family_without_published_weights_says_so(self) -> None:
        message = refused(lambda: info("imagenet", family="mlp", published=None), ConfigError)
        assert "'imagenet'" in message
        assert "mlp" in message

    def test_a_name_is_a_name_even_where_a_folder_is_called_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "imagenet").mkdir()
        monkeypatch.chdir(tmp_path)
        assert info("imagenet").kind == "published"
        assert "no model.pt" in refused(lambda: info("./imagenet"))

    @pytest.mark.parametrize("model", ZOO)
    def test_all_names_of_torchvision_are_told_from_paths(self, model: str) -> None:
        assert all(is_published(row.name) for row in models.get_model_weights(model))
        assert not is_published(f"{model}.pth")

    @pytest.mark.parametrize("source", ["", "exports/best", "imagenet.pth", "none", "imagenet1k"])
    def test_others_are_paths(self, source: str) -> None:
        assert not is_published(source)

    def test_a_file_whose_name_has_no_hash_is_not_trusted(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(MEMBER.value, "url", "https://example.org/resnet18.pth")
        assert "https://example.org/resnet18.pth" in refused(lambda: resolve("imagenet"))


class TestDownload:
    def test_it_is_fetched_once_and_its_name_and_hash_are_kept(
        self, server: Path, hub: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        resolved = resolve("imagenet")
        assert resolved == WeightsConfig(source="IMAGENET1K_V1", sha256=sha256(server))
        assert [file.name for file in hub.iterdir()] == [server.name]
        assert (hub / server.name).read_bytes() == server.read_bytes()
        server.unlink()
        assert resolve(resolved.source, resolved.sha256) == resolved
        assert capfd.readouterr() == ("", "")

    def test_loading_fetches_too(self, server: Path) -> None:
        assert_taken_over(load(little(), "imagenet", sha256(server)))

    def test_without_network_the_error_says_what_to_do(self, hub: Path) -> None:
        for call in (resolve, lambda source: load(little(), source)):
            message = refused(lambda call=call: call("imagenet"))
            for text in (
                "resnet18-f37072fd.pth",
                str(hub),
                "https://download.pytorch.org/models/resnet18-f37072fd.pth",
                "no network in the tests",
                "--set weights=none",
            ):
                assert text in message
        assert list(hub.iterdir()) == []

    def test_a_folder_that_cannot_be_made_is_an_error_of_one_line(
        self, server: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "torch").write_text("a file in the way")
        assert str(tmp_path / "torch") in refused(lambda: resolve("imagenet"))

    def test_the_user_can_put_the_file_there(self, server: Path, hub: Path) -> None:
        hub.mkdir(parents=True)
        server.rename(hub / server.name)
        assert resolve("imagenet").sha256 == sha256(hub / server.name)

    @pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
    def test_a_damaged_download_is_not_kept(self, server: Path, hub: Path, damage: str) -> None:
        whole = server.read_bytes()
        if damage == "flipped":
            flip(server)
        else:
            server.write_bytes(whole[: len(whole) // 2 if damage == "cut" else 0])
        for _ in range(2):  # nothing is there the second time either
            message = refused(lambda: resolve("imagenet"))
            assert server.name in message
            assert "hash" in message
            assert list(hub.iterdir()) == []
        server.write_bytes(whole)
        assert resolve("imagenet").sha256 == hashlib.sha256(whole).hexdigest()

    @pytest.mark.parametrize(
        "error", [ConnectionResetError("reset by peer"), TimeoutError(), IncompleteRead(b"", 7)]
    )
    def test_a_download_that_breaks_off_leaves_nothing(
        self, server: Path, hub: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        class Broken(io.BytesIO):
            def info(self) -> Message:
                return Message()

            def read(self, size: int | None = -1) -> bytes:
                chunk = super().read(1000)
                if self.tell() > 2000:
                    raise error
                return chunk

        with monkeypatch.context() as patch:
            patch.setattr(torch.hub, "urlopen", lambda _: Broken(server.read_bytes()))
            assert server.name in refused(lambda: resolve("imagenet"))
        assert list(hub.iterdir()) == []
        assert resolve("imagenet").sha256 == sha256(server)

    def test_what_a_killed_download_left_is_not_used(self, server: Path, hub: Path) -> None:
        hub.mkdir(parents=True)
        (hub / f"{server.name}.0123.partial").write_bytes(server.read_bytes()[:100])
        assert_taken_over(load(little(), "imagenet"))


class TestHash:
    @pytest.mark.parametrize("where", ["first bit", "middle", "last bit"])
    def test_a_flipped_bit_in_a_published_file_is_refused_at_every_load(
        self, downloaded: Path, where: str
    ) -> None:
        good = sha256(downloaded)
        load(little(), "imagenet")
        flip(
            downloaded,
            {"first bit": 0, "middle": None, "last bit": 8 * downloaded.stat().st_size - 1}[where],
        )
        model = little()
        before = copy_of(model)
        for call in (lambda: load(model, "imagenet"), lambda: resolve("imagenet")):
            message = refused(call)
            for text in (str(downloaded), sha256(downloaded), good[:8], "delete"):
                assert text in message
        assert same(before, copy_of(model)) == set(before)
        downloaded.unlink()
        assert resolve("imagenet").sha256 == good

    @pytest.mark.parametrize("settled", [True, False])
    def test_a_change_that_keeps_size_and_date_is_seen(
        self, downloaded: Path, monkeypatch: pytest.MonkeyPatch, settled: bool
    ) -> None:
        if settled:  # the clock has moved on since the file was written
            monkeypatch.setattr(_statefile, "_SETTLED_NS", -(10**18))
        load(little(), "imagenet")
        dates = downloaded.stat()
        flip(downloaded)
        os.utime(downloaded, ns=(dates.st_atime_ns, dates.st_mtime_ns))
        while settled and downloaded.stat().st_ctime_ns == dates.st_ctime_ns:
            os.utime(downloaded, ns=(dates.st_atime_ns, dates.st_mtime_ns))
        assert sha256(downloaded) in refused(lambda: load(little(), "imagenet"))

    def test_an_unchanged_file_is_hashed_once(
        self, downloaded: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_statefile, "_SETTLED_NS", -(10**18))  # written long ago
        count = 0
        digest = hashlib.file_digest

        def counted(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            return digest(*arguments)

        monkeypatch.setattr(hashlib, "file_digest", counted)
        for _ in range(5):
            load(little(), "imagenet")
            info(downloaded)
        assert count == 1
        flip(downloaded)
        refused(lambda: load(little(), "imagenet"))
        assert count == 2

    def test_the_stored_hash_of_published_weights_is_checked(self, downloaded: Path) -> None:
        stored = sha256(downloaded)[:-1] + "x"
        for call in (resolve, lambda *given: load(little(), *given)):
            message = refused(lambda call=call: call("imagenet", stored))
            assert stored in message
            assert sha256(downloaded) in message


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A local file in torchvision's format."""
    torch.save(published_state(), tmp_path / "mine.pth")
    return tmp_path / "mine.pth"


class TestLocalFile:
    def test_it_is_like_published_weights_of_the_network(self, saved: Path) -> None:
        assert info(saved) == WeightsInfo(
            kind="file", options=None, family="", input=info("imagenet").input
        )
        assert info(saved, family="mlp", published=None).input == InputConfig(channels=3)

    def test_weights_for_gray_images_ask_for_gray_ones(self, tmp_path: Path) -> None:
        torch.save({"conv1.weight": torch.zeros(4, 1, 3, 3)}, tmp_path / "gray.pth")
        wanted = info(tmp_path / "gray.pth").input
        assert (wanted.channels, wanted.size, wanted.normalise) == (1, (224, 224), "given")
        assert wanted.mean == pytest.approx((0.449,))
        assert wanted.std == pytest.approx((0.226,))
        assert info(tmp_path / "gray.pth", published=None).input == InputConfig()

    def test_everything_but_the_last_layer_is_taken_over(self, saved: Path) -> None:
        model = load(little(), saved)
        assert_taken_over(model)
        assert model.stages[0][1].num_batches_tracked == 2

    def test_the_last_layer_is_kept_even_where_it_would_fit(self, saved: Path) -> None:
        assert_taken_over(load(little(1000), saved), 1000)

    def test_no_random_number_is_drawn(self, saved: Path) -> None:
        state = torch.random.get_rng_state()
        load(little(), saved)
        assert torch.equal(torch.random.get_rng_state(), state)

    def test_the_models_own_names_will_do(self, tmp_path: Path) -> None:
        original = little(seed=7)
        torch.save(original.state_dict(), tmp_path / "own.pt")
        for published in (MODEL, None):
            loaded = copy_of(load(little(), tmp_path / "own.pt", published=published))
            assert set(loaded) - same(loaded, original.state_dict()) == HEAD

    def test_a_model_without_published_names_takes_its_own(self, tmp_path: Path) -> None:
        def plain(seed: int) -> StagedModel:
            return StagedModel(dict(little(seed=seed).stages.named_children()))

        torch.save(plain(7).state_dict(), tmp_path / "own.pt")
        fresh = copy_of(plain(1))
        loaded = copy_of(load(plain(1), tmp_path / "own.pt", family="mlp", published=None))
        assert same(fresh, loaded) >= {name for name in fresh if ".head." in name}
        assert torch.equal(
            loaded["stages.stem.0.weight"], plain(7).state_dict()["stages.stem.0.weight"]
        )
        message = refused(lambda: load(plain(1), tmp_path / "own.pt", sha="0" * 64))
        assert "0" * 64 in message

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    def test_other_precisions_are_converted(self, tmp_path: Path, dtype: torch.dtype) -> None:
        state = published_state()
        halves = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
        torch.save(halves, tmp_path / "half.pth")
        model = load(little(), tmp_path / "half.pth")
        assert model.stages[0][0].weight.dtype == torch.float32
        assert torch.allclose(model.stages[0][0].weight, state["conv1.weight"], atol=1e-2)

    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
    def test_both_formats_of_torch_are_read(self, tmp_path: Path, zipped: bool) -> None:
        path = tmp_path / "mine.pth"
        torch.save(published_state(), path, _use_new_zipfile_serialization=zipped)
        assert info(path).kind == "file"
        assert_taken_over(load(little(), path))

    def test_the_published_file_may_lie_anywhere(self, server: Path) -> None:
        assert info(server).kind == "file"
        assert resolve(server).source == str(server)
        flip(server)
        message = refused(lambda: info(server))
        assert sha256(server) in message
        assert "IMAGENET1K_V1" in message

    def test_its_own_weights_decide_its_images(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        torch.save({"conv1.weight": torch.zeros(4, 3, 3, 3)}, tmp_path / "any.pth")
        v1, v2 = models.ResNet50_Weights.IMAGENET1K_V1, models.ResNet50_Weights.IMAGENET1K_V2
        path = tmp_path / f"resnet50-{sha256(tmp_path / 'any.pth')[:8]}.pth"
        (tmp_path / "any.pth").rename(path)
        assert info(path, published="resnet50").input == info(v2.name, published="resnet50").input
        monkeypatch.setattr(v1.value, "url", f"https://example.org/{path.name}")
        (tmp_path / "weights").mkdir()
        moved = path.rename(tmp_path / "weights" / path.name)
        other = info(moved, published="resnet50").input
        assert other == info(v1.name, published="resnet50").input
        assert other.resize != info(v2.name, published="resnet50").input.resize

    def test_it_is_found_again_from_another_folder(
        self, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        resolved = resolve("mine.pth")
        assert resolved == WeightsConfig(source=str(saved.resolve()), sha256=sha256(saved))
        monkeypatch.chdir("/")
        assert resolve(resolved.source, resolved.sha256) == resolved
        load(little(), resolved.source, resolved.sha256)

    def test_a_home_folder_is_found(self, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(saved.parent))
        assert info("~/mine.pth").kind == "file"
        assert resolve("~/mine.pth").source == str(saved.resolve())
        assert "~nobody/mine.pth" in refused(lambda: info("~nobody/mine.pth"))

    def test_a_file_that_changed_since_is_refused(self, saved: Path) -> None:
        stored = resolve(saved).sha256
        flip(saved)
        model = little()
        before = copy_of(model)
        for call in (lambda: resolve(saved, stored), lambda: load(model, saved, stored)):
            message = refused(call)
            assert str(saved) in message
            assert stored in message
            assert sha256(saved) in message
        assert same(before, copy_of(model)) == set(before)

    @pytest.mark.parametrize("source", ["missing.pth", "no/such/folder", "a" * 5000, "nul\0.pth"])
    @pytest.mark.parametrize("call", [info, resolve, lambda source: load(little(), source)])
    def test_a_file_that_is_not_there(self, source: str, call: Callable[..., object]) -> None:
        message = refused(lambda: call(source))
        assert source[:10].replace("\0", "\\x00") in message

    def test_a_misspelt_name_lists_torchvisions(self) -> None:
        message = refused(lambda: info("imagnet"))
        assert "'imagnet'" in message
        assert "IMAGENET1K_V1" in message


class TestFit:
    """Weights that do not fit are refused, and the model stays as it was."""

    def refusal(self, tmp_path: Path, model: StagedModel, state: State) -> str:
        torch.save(state, tmp_path / "mine.pth")
        before = copy_of(model)
        message = refused(lambda: load(model, tmp_path / "mine.pth"))
        assert same(before, copy_of(model)) == set(before)
        assert str(tmp_path / "mine.pth") in message
        return message

    def test_missing_tensors_are_named(self, tmp_path: Path) -> None:
        state = published_state()
        del state["classifier.1.weight"], state["bn1.running_var"]
        message = self.refusal(tmp_path, little(), state)
        assert "no bn1.running_var, classifier.1.weight" in message

    def test_only_the_first_few_are_named(self, tmp_path: Path) -> None:
        message = self.refusal(tmp_path, little(), {"x.weight": torch.zeros(1)})
        assert "conv1.weight, conv1.bias, bn1.weight and 7 more" in message
        assert "x.weight" in message
        assert len(message) < 500 + len(str(tmp_path))

    def test_a_missing_counter_of_batches_does_not_matter(self, tmp_path: Path) -> None:
        state = published_state()
        del state["bn1.num_batches_tracked"]
        torch.save(state, tmp_path / "old.pth")
        assert load(little(), tmp_path / "old.pth").stages[0][1].num_batches_tracked == 1

    def test_other_shapes_are_named(self, tmp_path: Path) -> None:
        message = self.refusal(tmp_path, little(width=5), published_state())
        assert "conv1.weight is 4x3x3x3 instead of 5x3x3x3" in message
        assert "conv1.bias is 4 instead of 5" in message
        assert "options" in message

    def test_gray_images_against_weights_for_colours(self, tmp_path: Path) -> None:
        message = self.refusal(tmp_path, little(channels=1), published_state())
        assert "conv1.weight is 4x3x3x3 instead of 4x1x3x3" in message
        assert "3 channels" in message

    def test_colours_against_weights_for_gray_images(self, tmp_path: Path) -> None:
        gray = {**published_state(), "conv1.weight": torch.zeros(4, 1, 3, 3)}
        message = self.refusal(tmp_path, little(), gray)
        assert "gray" in message

    def test_whole_numbers_are_no_weights(self, tmp_path: Path) -> None:
        state = {**published_state(), "bn1.bias": torch.ones(4, dtype=torch.int64)}
        message = self.refusal(tmp_path, little(), state)
        assert "bn1.bias is torch.int64 instead of torch.float32" in message

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_values_that_are_not_finite(self, tmp_path: Path, value: float) -> None:
        state = published_state()
        state["classifier.1.weight"][2, 3] = value
        assert "classifier.1.weight" in self.refusal(tmp_path, little(), state)

    def test_names_from_the_file_are_made_safe(self, tmp_path: Path) -> None:
        message = self.refusal(tmp_path, little(), {"evil\n\x1b[31m": torch.zeros(1)})
        assert "evil\\n\\x1b[31m" in message

    def test_a_model_that_is_not_published_is_told_of_its_own_names(self, tmp_path: Path) -> None:
        model = StagedModel({"body": nn.Linear(2, 3), "head": nn.Linear(3, 2)})
        message = self.refusal(tmp_path, model, published_state())
        assert "no stages.body.weight, stages.body.bias, but conv1.weight" in message
        assert "options" in message

    def test_a_model_that_is_a_head_alone_takes_none(self, saved: Path) -> None:
        model = StagedModel({"head": nn.Sequential(nn.Flatten(), nn.Linear(4, 2))})
        message = refused(lambda: load(model, saved, family="logistic"), ConfigError)
        assert "logistic" in message


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


class TestWhatIsNoStateDict:
    @pytest.mark.parametrize(
        "content",
        [
            [],
            [torch.zeros(2)],
            torch.zeros(2),
            3,
            None,
            {},
            {"state_dict": {"conv1.weight": torch.zeros(2)}, "epoch": 3},
            {"conv1.weight": [1.0, 2.0]},
            {"conv1.weight": 1.0},
            {1: torch.zeros(2)},
            {"conv1.weight": torch.eye(2).to_sparse()},
            {"conv1.weight": torch.zeros(2, dtype=torch.complex64)},
            {"conv1.weight": torch.zeros(2, device="meta")},
            {"document": "{}", "state": {}, "sha256": ""},
        ],
    )
    @pytest.mark.parametrize("call", [info, resolve, lambda source: load(little(), source)])
    def test_it_is_refused(
        self, tmp_path: Path, content: object, call: Callable[..., object]
    ) -> None:
        torch.save(content, tmp_path / "mine.pth")
        assert str(tmp_path / "mine.pth") in refused(lambda: call(tmp_path / "mine.pth"))

    def test_a_nested_one_says_what_it_holds(self, tmp_path: Path) -> None:
        torch.save({"state_dict": {}, "epoch": 3}, tmp_path / "mine.pth")
        message = refused(lambda: info(tmp_path / "mine.pth"))
        assert "state_dict, epoch" in message

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"weights", bytes(1000), b"\x80\x02."])
    @pytest.mark.parametrize("name", ["mine.pth", "model.bin"])
    def test_what_is_no_file_of_torch_is_refused(
        self, tmp_path: Path, content: bytes, name: str
    ) -> None:
        (tmp_path / name).write_bytes(content)
        assert str(tmp_path / name) in refused(lambda: info(tmp_path / name))

    def test_a_truncated_file_is_refused(self, saved: Path) -> None:
        whole = saved.read_bytes()
        for length in range(0, len(whole), len(whole) // 30):
            saved.write_bytes(whole[:length])
            assert str(saved) in refused(lambda: load(little(), saved))

    @pytest.mark.parametrize("place", ["whole", "entry", "nested"])
    @pytest.mark.parametrize("zipped", [True, False, None], ids=["zip", "legacy", "pickle"])
    def test_code_in_a_file_is_never_run(
        self, tmp_path: Path, place: str, zipped: bool | None
    ) -> None:
        sprung, path = tmp_path / "sprung", tmp_path / "mine.pth"
        trap: Any = Trap(sprung)
        content = {
            "whole": trap,
            "entry": {**published_state(), "conv1.weight": trap},
            "nested": {"state_dict": [trap]},
        }[place]
        if zipped is None:
            path.write_bytes(pickle.dumps(content))
        else:
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
        for call in (info, resolve, lambda source: load(little(), source)):
            message = refused(lambda call=call: call(path))
            assert "weights_only" not in message  # torch's advice to run it all the same
        assert not sprung.exists()
        if zipped is not None:  # the trap is a real one
            torch.load(path, weights_only=False)
            assert sprung.exists()

    def test_code_in_a_published_file_is_never_run(
        self, server: Path, hub: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        torch.save({"conv1.weight": Trap(tmp_path / "sprung")}, server)
        name = f"resnet18-{sha256(server)[:8]}.pth"
        monkeypatch.setattr(MEMBER.value, "url", server.rename(server.parent / name).as_uri())
        resolve("imagenet")
        refused(lambda: load(little(), "imagenet"))
        assert not (tmp_path / "sprung").exists()


def write_safetensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """By hand: eight bytes with the length of a header in JSON, the header, the values."""
    header: dict[str, Any] = {}
    values = b""
    for name, tensor in state.items():
        data = tensor.detach().numpy().tobytes()
        kind = {torch.float32: "F32", torch.int64: "I64"}[tensor.dtype]
        offsets = [len(values), len(values) + len(data)]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": offsets}
        values += data
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + values)


class TestSafetensors:
    def test_without_the_package_the_error_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_safetensors(tmp_path / "mine.safetensors", published_state())
        monkeypatch.setitem(sys.modules, "safetensors", None)
        monkeypatch.setitem(sys.modules, "safetensors.torch", None)
        message = refused(lambda: info(tmp_path / "mine.safetensors"))
        assert "package safetensors" in message

    def test_with_the_package_it_is_read(self, tmp_path: Path) -> None:
        pytest.importorskip("safetensors")
        write_safetensors(tmp_path / "mine.safetensors", published_state())
        resolved = resolve(tmp_path / "mine.safetensors")
        assert resolved.sha256 == sha256(tmp_path / "mine.safetensors")
        assert_taken_over(load(little(), resolved.source, resolved.sha256))
        (tmp_path / "mine.safetensors").write_bytes(b"{}")
        refused(lambda: info(tmp_path / "mine.safetensors"))


EXPORTED = TrainConfig(
    family="mlp",
    options={"layers": 2, "width": 8},
    input=InputConfig(size=(6, 5), resize=(8, 7), channels=3),
)
SHAPE = ImageShape(6, 5, 3)
MLP: dict[str, Any] = {"family": "mlp", "published": None}


def export(folder: Path, config: TrainConfig = EXPORTED, *, seed: int = 3) -> StagedModel:
    """Writes what an export's folder has to have, and returns the model."""
    folder.mkdir(exist_ok=True)
    made = config if config.family == "logistic" else EXPORTED
    model = build_model(dataclasses.replace(made, seed=seed), SHAPE, 4)
    checkpoint = Checkpoint(
        state=model.state_dict(),
        config=config,
        classes=tuple("abcd"),
        preprocessing=Preprocessing(
            height=6,
            width=5,
            channels=3,
            mean=(0.1, 0.2, 0.3),
            std=(0.4, 0.5, 0.6),
            resize=(8, 7),
        ),
        metrics={"val_accuracy": 0.5},
        origin={"search": "photos", "trial": "mlp-1"},
    )
    save_checkpoint(folder / "model.pt", checkpoint)
    return model


class TestExport:
    @pytest.mark.parametrize("source", ["best", "best/", "best/model.pt"])
    def test_it_decides_the_architecture_and_the_images(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
    ) -> None:
        export(tmp_path / "best")
        monkeypatch.chdir(tmp_path)
        assert info(source, **MLP) == WeightsInfo(
            kind="export",
            options=EXPORTED.options,
            family="mlp",
            input=InputConfig(
                size=(6, 5),
                resize=(8, 7),
                channels=3,
                normalise="given",
                mean=(0.1, 0.2, 0.3),
                std=(0.4, 0.5, 0.6),
            ),
        )

    def test_a_family_of_the_users_own_goes_by_the_name_of_its_file(self, tmp_path: Path) -> None:
        own = tmp_path / "renamed.py"
        own.write_text("from hpsearch.families.mlp import FAMILY\n", encoding="utf-8")
        export(tmp_path / "best", dataclasses.replace(EXPORTED, family=str(own)))
        export(tmp_path / "of mlp")
        of_own, of_mlp = ({"weights": str(tmp_path / name)} for name in ("best", "of mlp"))
        assert weights_of(str(own), SHAPE, of_own) == ((of_own["weights"], None),)
        message = refused(lambda: weights_of(str(own), SHAPE, of_mlp), ConfigError)
        assert "of the family mlp, but the model is of the family renamed" in message

    @pytest.mark.parametrize("source", ["best", "best/model.pt"])
    def test_all_but_the_head_is_taken_over(self, tmp_path: Path, source: str) -> None:
        exported = copy_of(export(tmp_path / "best"))
        model = build_model(EXPORTED, SHAPE, 7)
        fresh = copy_of(model)
        head = {name for name in fresh if name.startswith("stages.head.")}
        resolved = resolve(tmp_path / source, **MLP)
        load(model, resolved.source, resolved.sha256, **MLP)
        loaded = copy_of(model)
        assert same({name: fresh[name] for name in head}, loaded) == head
        assert set(loaded) - head == same({n: exported[n] for n in set(loaded) - head}, loaded)

    def test_of_a_head_alone_nothing_is_taken_over(self, tmp_path: Path) -> None:
        assert "weights" not in whole_space("logistic", SHAPE)
        logistic = dataclasses.replace(EXPORTED, family="logistic", options={})
        export(tmp_path / "best", logistic)
        told = refused(lambda: info(tmp_path / "best", **MLP), ConfigError)
        assert "an export of the family logistic" in told
        assert "a head alone, nothing can be taken over" in told

    @pytest.mark.parametrize(
        ("exported", "asked"), [("mlp", "cnn"), ("cnn", "mlp"), ("net.py", "mlp")]
    )
    def test_that_of_another_family_is_refused(
        self, tmp_path: Path, exported: str, asked: str
    ) -> None:
        export(tmp_path / "best", dataclasses.replace(EXPORTED, family=exported))
        for call in (info, resolve):
            where = {"family": asked, "published": None}
            message = refused(lambda c=call, w=where: c(tmp_path / "best", **w), ConfigError)
            assert exported in message
            assert asked in message

    def test_a_family_of_the_users_own_is_the_same_wherever_its_file_lies(
        self, tmp_path: Path
    ) -> None:
        export(tmp_path / "best", dataclasses.replace(EXPORTED, family="studies/net.py"))
        found = info(tmp_path / "best", family=str(tmp_path / "net.py"), published=None)
        assert found.family == "studies/net.py"

    def test_other_options_do_not_fit(self, tmp_path: Path) -> None:
        export(tmp_path / "best")
        wider = dataclasses.replace(EXPORTED, options={"layers": 2, "width": 9})
        model = build_model(wider, SHAPE, 4)
        message = refused(lambda: load(model, tmp_path / "best", **MLP))
        assert "8x90 instead of 9x90" in message
        assert "options" in message

    def test_a_flipped_bit_is_refused_or_does_no_harm(self, tmp_path: Path) -> None:
        path = tmp_path / "best" / "model.pt"
        exported = copy_of(export(tmp_path / "best"))
        whole = path.read_bytes()
        refusals = 0
        bits = np.random.default_rng(0).choice(8 * len(whole), 100, replace=False).tolist()
        for bit in bits:
            path.write_bytes(whole)
            flip(path, bit)
            model = build_model(EXPORTED, SHAPE, 4)
            before = copy_of(model)
            expected = exported
            try:
                load(model, path, **MLP)
            except CheckpointError:
                refusals += 1
                expected = before
            backbone = {name for name in before if ".head." not in name}
            assert same(copy_of(model), expected) >= backbone, bit
        assert refusals > 40

    def test_damage_that_no_date_shows_is_found_at_the_next_load(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        export(tmp_path / "best")
        path = tmp_path / "best" / "model.pt"
        for module in (_statefile, _weights):
            monkeypatch.setattr(module, "file_stamp", lambda path: (0,) if path.is_file() else None)
        load(build_model(EXPORTED, SHAPE, 4), path, **MLP)
        content = torch.load(path, weights_only=True)
        content["state"]["stages.hidden1.1.weight"][0, 0] += 1
        torch.save(content, path)
        message = refused(lambda: load(build_model(EXPORTED, SHAPE, 4), path, **MLP))
        assert "SHA-256" in message

    def test_one_that_changed_since_is_refused(self, tmp_path: Path) -> None:
        export(tmp_path / "best")
        stored = resolve(tmp_path / "best", **MLP).sha256
        export(tmp_path / "best", seed=4)
        now = sha256(tmp_path / "best" / "model.pt")
        model = build_model(EXPORTED, SHAPE, 4)
        for call in (
            lambda: resolve(tmp_path / "best", stored, **MLP),
            lambda: load(model, tmp_path / "best", stored, **MLP),
        ):
            message = refused(call)
            assert stored in message
            assert now in message
        assert resolve(tmp_path / "best", **MLP).sha256 == now

    def test_a_folder_that_is_no_export(self, tmp_path: Path) -> None:
        message = refused(lambda: info(tmp_path, **MLP))
        assert str(tmp_path) in message
        assert "model.pt" in message

    def test_code_in_it_is_never_run(self, tmp_path: Path) -> None:
        export(tmp_path / "best")
        path = tmp_path / "best" / "model.pt"
        content = torch.load(path, weights_only=True)
        torch.save({**content, "state": Trap(tmp_path / "sprung")}, path)
        refused(lambda: info(path, **MLP))
        assert not (tmp_path / "sprung").exists()


class TestTorchvision:
    """With torchvision's own networks, as our families take them apart."""

    def test_resnet18_computes_what_torchvisions_does(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            original = models.resnet18()
            for module in original.modules():
                if isinstance(module, nn.BatchNorm2d):  # as after training
                    module.running_mean.normal_(0.0, 0.1)
                    module.running_var.uniform_(0.5, 2.0)
        publish(tmp_path / "server", monkeypatch, original.state_dict())
        shape = ImageShape(40, 32, 3)
        config = resolve_config(resnet(head=(16,)))
        model = initial_model(config, shape, 5)
        images = torch.rand(2, 3, 40, 32, generator=torch.Generator().manual_seed(0))
        original.fc = nn.Identity()
        with torch.no_grad():
            maps = model.eval().stages[:-1](images)
            features = nn.functional.adaptive_avg_pool2d(maps, 1).flatten(1)
            assert torch.equal(features, original.eval()(images))
        head = {
            k: v for k, v in build_model(config, shape, 5).state_dict().items() if ".head." in k
        }
        assert len(head) == 4
        assert same(head, copy_of(model)) == set(head)

    def test_a_small_stem_does_not_fit(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish(tmp_path / "server", monkeypatch, models.resnet18().state_dict())
        shape = ImageShape(32, 32, 3)
        message = refused(lambda: initial_model(resnet(stem="small"), shape, 5))
        assert "stages.stem" in message
        assert "stem=standard" in message
        initial_model(resnet(stem="stride1"), shape, 5)

    def test_a_model_of_gray_images_does_not_fit(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish(tmp_path / "server", monkeypatch, models.resnet18().state_dict())
        message = refused(lambda: initial_model(resnet(), ImageShape(32, 32, 1), 5))
        assert "conv1.weight is 64x3x7x7 instead of 64x1x7x7" in message
        assert "channels to 3" in message

    def test_weights_of_gray_images_are_for_models_of_gray_images(self, tmp_path: Path) -> None:
        gray = models.resnet18()
        take_gray(gray)
        torch.save(gray.state_dict(), tmp_path / "gray.pth")
        config = dataclasses.replace(
            resnet(), weights=WeightsConfig(source=str(tmp_path / "gray.pth"))
        )
        model = initial_model(config, ImageShape(32, 32, 1), 5)
        assert torch.equal(model.stages.stem.conv1.weight, gray.conv1.weight)
        small = dataclasses.replace(config, options={**config.options, "stem": "small"})
        message = refused(lambda: initial_model(small, ImageShape(32, 32, 1), 5))
        assert "stem=standard" in message
        assert "channels" not in message
        message = refused(lambda: initial_model(config, ImageShape(32, 32, 3), 5))
        assert "read the data as gray images" in message

    @pytest.mark.parametrize(
        ("name", "taken", "left"),
        [
            ("alexnet", ("fc1", "fc2", "conv1"), ("head",)),
            ("vgg11", ("fc1", "fc2"), ("head",)),
            # The norm in front of its last layer is published with the weights before it.
            ("convnext_tiny", ("stem", "head.1"), ("head.4",)),
        ],
    )
    def test_what_is_taken_over(
        self, name: str, taken: tuple[str, ...], left: tuple[str, ...]
    ) -> None:
        with torch.device("meta"):
            model = get_family("torchvision").build({"model": name}, ImageShape(224, 224, 3), 1000)
        wanted = set(without_head(model))
        assert wanted <= set(model.published)
        for part in taken:
            assert any(key.startswith(f"stages.{part}.") for key in wanted), part
        for part in left:
            assert not any(key.startswith(f"stages.{part}.") for key in wanted), part

    def vit(self, patches: int) -> StagedModel:
        """As much of a ViT as the adaptation of its weights looks at."""
        patch = nn.Module()
        patch.conv_proj = nn.Conv2d(3, 4, 16, stride=16)
        patch.positions = nn.Parameter(torch.zeros(1, 1 + patches, 4))
        names = {
            "stages.patch.conv_proj.weight": "conv_proj.weight",
            "stages.patch.conv_proj.bias": "conv_proj.bias",
            "stages.patch.positions": "encoder.pos_embedding",
        }
        return StagedModel({"patch": patch, "head": nn.Linear(4, 2)}, published=names)

    def test_the_positions_of_a_vit_follow_the_images(self, tmp_path: Path) -> None:
        positions = torch.arange(196.0).view(1, 196, 1).expand(1, 196, 4)
        state = {
            "conv_proj.weight": torch.rand(4, 3, 16, 16),
            "conv_proj.bias": torch.rand(4),
            "encoder.pos_embedding": torch.cat([torch.full((1, 1, 4), -1.0), positions], dim=1),
        }
        torch.save(state, tmp_path / "vit.pth")
        where = {"family": "torchvision", "published": "vit_b_16"}
        square = ImageShape(224, 224, 3)
        usual = load(self.vit(196), tmp_path / "vit.pth", shape=square, **where)
        assert torch.equal(usual.stages[0].positions, state["encoder.pos_embedding"])
        wide = load(self.vit(8), tmp_path / "vit.pth", shape=ImageShape(32, 64, 3), **where)
        found = wide.stages[0].positions[0, :, 0].tolist()
        # The corners stay where they are.
        assert [found[place] for place in (0, 1, 4, 5, 8)] == pytest.approx([-1, 0, 13, 182, 195])
        message = refused(
            lambda: load(self.vit(8), tmp_path / "vit.pth", shape=ImageShape(64, 64, 3), **where)
        )
        assert "encoder.pos_embedding is 1x17x4 instead of 1x9x4" in message

    @pytest.mark.parametrize("shape", [(5,), (1, 6, 4), (1, 1, 4), (3, 197, 4)])
    def test_positions_that_are_none_are_an_error_of_one_line(
        self, tmp_path: Path, shape: tuple[int, ...]
    ) -> None:
        state = {"conv_proj.weight": torch.rand(4, 3, 16, 16), "conv_proj.bias": torch.rand(4)}
        torch.save({**state, "encoder.pos_embedding": torch.rand(shape)}, tmp_path / "vit.pth")
        where = {"family": "torchvision", "published": "vit_b_16"}
        message = refused(
            lambda: load(self.vit(4), tmp_path / "vit.pth", shape=ImageShape(32, 32, 3), **where)
        )
        assert str(tmp_path / "vit.pth") in message

    def test_names_of_older_files_are_understood(self, tmp_path: Path) -> None:
        layer = "features.denseblock1.denselayer1"
        model = StagedModel(
            {"block": nn.BatchNorm2d(3), "head": nn.Linear(3, 2)},
            published={f"stages.block.{n}": f"{layer}.norm1.{n}" for n in BATCH_NORM},
        )
        old = {f"{layer}.norm.1.{n}": torch.full((3,), 7.0) for n in BATCH_NORM}
        torch.save(old, tmp_path / "densenet.pth")
        load(model, tmp_path / "densenet.pth", family="torchvision", published="densenet121")
        assert model.stages[0].weight.tolist() == [7.0] * 3


BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
