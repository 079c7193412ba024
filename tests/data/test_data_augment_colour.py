"""Rows that change colours and single pixels, against torchvision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as reference
from torch import Tensor
from torchvision.transforms import RandomErasing

from hpsearch.data.augment import augment_batch, augmentation
from hpsearch.data.augment._rows import Colour

SIZES = [(16, 16), (11, 17), (20, 9)]  # height, width
CLOSE = {"atol": 1e-5, "rtol": 0.0}
N = 24

every_size = pytest.mark.parametrize(("height", "width"), SIZES)
both_formats = pytest.mark.parametrize(
    "memory_format", [torch.channels_last, torch.contiguous_format], ids=["NHWC", "NCHW"]
)
FACTORS = {
    "brightness": reference.adjust_brightness,
    "contrast": reference.adjust_contrast,
    "saturation": reference.adjust_saturation,
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(n: int = N, channels: int = 3, height: int = 11, width: int = 17) -> Tensor:
    """Noise, with patches of pure colours, of grey, black and white."""
    images = torch.rand((n, height, width, channels), generator=generator(99))
    images[:, :3, :3] = (images[:, :3, :3] > 0.5).float()
    images[:, 3:5] = images[:, 3:5, :, :1]
    return images.permute(0, 3, 1, 2)


def factors(name: str, n: int, strength: float, running: torch.Generator) -> Tensor:
    operation = augmentation(name).operation
    assert isinstance(operation, Colour)
    return operation.draw(n, strength, running).pixel


@every_size
class TestFactors:
    @pytest.mark.parametrize("strength", [0.1, 0.4, 1.0])
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("name", FACTORS)
    @both_formats
    def test_agrees_with_torchvision(
        self,
        name: str,
        height: int,
        width: int,
        channels: int,
        strength: float,
        memory_format: torch.memory_format,
    ) -> None:
        images = random_images(N, channels, height, width).contiguous(memory_format=memory_format)
        drawn = factors(name, N, strength, generator())
        out = augment_batch(images, {name: strength}, generator())
        for image, factor, result in zip(images, drawn.tolist(), out, strict=True):
            torch.testing.assert_close(result, FACTORS[name](image, factor), **CLOSE)

    def test_one_after_the_other(self, height: int, width: int) -> None:
        images = 0.4 + 0.2 * random_images(N, 3, height, width)  # nothing is cut off on the way
        strengths = dict.fromkeys(FACTORS, 0.3)
        running = generator()
        drawn = [factors(name, N, strength, running) for name, strength in strengths.items()]
        out = augment_batch(images, strengths, generator())
        for number, image in enumerate(images):
            for adjust, factor in zip(FACTORS.values(), drawn, strict=True):
                image = adjust(image, factor[number].item())
            torch.testing.assert_close(out[number], image, **CLOSE)

    @pytest.mark.parametrize("channels", [1, 3])
    def test_what_is_beyond_black_and_white_is_cut_off_at_the_end(
        self, height: int, width: int, channels: int
    ) -> None:
        images = random_images(N, channels, height, width)
        strengths = {name: 0.9 for name in FACTORS if channels == 3 or name != "saturation"}
        running = generator()
        drawn = {
            name: factors(name, N, strength, running).view(-1, 1, 1, 1)
            for name, strength in strengths.items()
        }
        out = augment_batch(images, strengths, generator())
        expected = images * drawn["brightness"]
        mean = grey(expected).mean(dim=(1, 2, 3), keepdim=True)
        expected = drawn["contrast"] * expected + (1 - drawn["contrast"]) * mean
        if channels == 3:
            expected = drawn["saturation"] * expected + (1 - drawn["saturation"]) * grey(expected)
        assert ((expected < 0) | (expected > 1)).any()
        torch.testing.assert_close(out, expected.clamp(0, 1), **CLOSE)


def grey(images: torch.Tensor) -> torch.Tensor:
    weights = torch.tensor([0.2989, 0.587, 0.114]) if images.shape[1] == 3 else torch.ones(1)
    return (images * weights.view(1, -1, 1, 1)).sum(dim=1, keepdim=True)


@pytest.mark.parametrize("name", FACTORS)
@pytest.mark.parametrize("strength", [0.1, 1.0])
def test_factors_are_uniform_about_1(name: str, strength: float) -> None:
    drawn = factors(name, 2000, strength, generator()) - 1
    assert drawn.abs().max().item() <= strength * (1 + 1e-5)
    assert drawn.max().item() > 0.99 * strength
    assert drawn.min().item() < -0.99 * strength
    assert abs(drawn.mean().item()) < 4 * strength / math.sqrt(3 * 2000)


@every_size
@pytest.mark.parametrize("strength", [0.05, 0.5])
@both_formats
def test_hue(height: int, width: int, strength: float, memory_format: torch.memory_format) -> None:
    images = random_images(N, 3, height, width).contiguous(memory_format=memory_format)
    out = augment_batch(images, {"hue": strength}, generator())
    turns = (2 * torch.rand(N, generator=generator()) - 1) * strength
    for image, turn, result in zip(images, turns.tolist(), out, strict=True):
        torch.testing.assert_close(result, reference.adjust_hue(image, turn), **CLOSE)


def test_grayscale() -> None:
    images = random_images(400)
    out = augment_batch(images, {"grayscale": 0.3}, generator())
    grey = reference.rgb_to_grayscale(images, num_output_channels=3)
    turned = [torch.allclose(*pair, atol=1e-6) for pair in zip(out, grey, strict=True)]
    untouched = [torch.equal(*pair) for pair in zip(out, images, strict=True)]
    assert [not was for was in turned] == untouched
    assert sum(turned) == pytest.approx(0.3 * 400, abs=4 * math.sqrt(0.3 * 0.7 * 400))


class TestBlur:
    @every_size
    @pytest.mark.parametrize(("strength", "radius"), [(0.3, 1), (0.8, 2), (1.5, 4), (2.0, 6)])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_agrees_with_torchvision(
        self, height: int, width: int, strength: float, radius: int, channels: int
    ) -> None:
        images = random_images(N, channels, height, width)
        out = augment_batch(images, {"blur": strength}, generator())
        sigmas = torch.rand(N, generator=generator()) * strength
        for image, sigma, result in zip(images, sigmas.tolist(), out, strict=True):
            expected = reference.gaussian_blur(image, [2 * radius + 1] * 2, [sigma] * 2)
            torch.testing.assert_close(result, expected, **CLOSE)

    def test_the_kernel_is_no_larger_than_the_image(self) -> None:
        images = random_images(N, 1, 4, 7)
        out = augment_batch(images, {"blur": 10.0}, generator())
        sigmas = torch.rand(N, generator=generator()) * 10
        for image, sigma, result in zip(images, sigmas.tolist(), out, strict=True):
            expected = reference.gaussian_blur(image, [13, 7], [sigma, sigma])
            torch.testing.assert_close(result, expected, **CLOSE)
        dot = torch.rand(3, 1, 1, 1)
        assert torch.equal(augment_batch(dot, {"blur": 10.0}, generator()), dot)


class TestErase:
    def boxes(
        self, n: int, probability: float, height: int, width: int
    ) -> tuple[Tensor, list[tuple[int, int, int, int] | None]]:
        """Erased white images; top, left, height and width of each box that is there."""
        white = torch.ones(n, 1, height, width)
        out = augment_batch(white, {"erase": probability}, generator())
        found: list[tuple[int, int, int, int] | None] = []
        for image in out[:, 0]:
            ys, xs = (image == 0).nonzero(as_tuple=True)
            if len(ys) == 0:
                found.append(None)
                continue
            top, left = int(ys.min()), int(xs.min())
            found.append((top, left, int(ys.max()) - top + 1, int(xs.max()) - left + 1))
        return out, found

    @every_size
    @pytest.mark.parametrize("channels", [1, 3])
    def test_agrees_with_torchvision(self, height: int, width: int, channels: int) -> None:
        images = 0.5 + 0.5 * random_images(64, channels, height, width)
        out = augment_batch(images, {"erase": 0.5}, generator())
        _, found = self.boxes(64, 0.5, height, width)
        assert 16 < sum(box is not None for box in found) < 48
        for image, box, result in zip(images, found, out, strict=True):
            expected = image if box is None else reference.erase(image, *box, torch.tensor(0.0))
            assert torch.equal(result, expected)

    @pytest.mark.parametrize(("height", "width"), [(256, 256), (200, 320)])
    def test_boxes_are_as_torchvision_draws_them(self, height: int, width: int) -> None:
        n = 1000
        found = np.array(
            [box for box in self.boxes(n, 1.0, height, width)[1] if box is not None], np.float64
        )
        assert len(found) > 0.99 * n
        with torch.random.fork_rng():
            torch.manual_seed(0)
            empty = torch.empty(1, height, width)
            theirs = np.array(
                [
                    RandomErasing.get_params(empty, (0.02, 0.33), (0.3, 3.3), value=[0.0])[:4]
                    for _ in range(n)
                ],
                np.float64,
            )
        where = np.linspace(0.05, 0.95, 11)
        for ours, other in zip(shapes(found), shapes(theirs), strict=True):
            assert np.quantile(ours, where) == pytest.approx(np.quantile(other, where), rel=0.1)
        for axis, side in ((0, height), (1, width)):
            room = side - found[:, axis + 2]
            place = found[:, axis] / room
            assert place.min() == 0
            assert place.max() == 1
            assert place.mean() == pytest.approx(0.5, abs=0.03)

    def test_an_image_without_room_stays(self) -> None:
        for shape in ((8, 3, 1, 9), (8, 3, 9, 1), (8, 1, 1, 1)):
            images = torch.rand(shape)
            assert torch.equal(augment_batch(images, {"erase": 1.0}, generator()), images)


def shapes(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Roots of area and of height over width, of boxes (top, left, height, width)."""
    return np.sqrt(boxes[:, 2] * boxes[:, 3]), np.sqrt(boxes[:, 2] / boxes[:, 3])
