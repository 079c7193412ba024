"""Rows that move pixels, against torchvision and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as reference
from numpy.typing import ArrayLike
from scipy.ndimage import map_coordinates
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomCrop, RandomResizedCrop

from hpsearch.data.augment import augment_batch, augmentation
from hpsearch.data.augment._rows import Affine, Window

Sides = tuple[int, int]

SIZES = [(16, 16), (11, 17), (20, 9)]  # height, width
# Interpolation weights and zero padding agree to a few float32 rounding errors of a coordinate.
CLOSE = {"atol": 2e-5, "rtol": 0.0}

both_formats = pytest.mark.parametrize(
    "memory_format", [torch.channels_last, torch.contiguous_format], ids=["NHWC", "NCHW"]
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(n: int = 8, channels: int = 1, height: int = 11, width: int = 17) -> Tensor:
    """Noise: no blur or shift of it goes unnoticed."""
    images = torch.rand((n, height, width, channels), generator=generator(99))
    return images.permute(0, 3, 1, 2)  # channels_last, as the loader's


def matrices(name: str, n: int, strength: float, running: torch.Generator) -> Tensor:
    operation = augmentation(name).operation
    assert isinstance(operation, Affine)
    return operation.draw(n, strength, running)


def windows(
    name: str, n: int, strength: float, image: Sides, size: Sides, running: torch.Generator
) -> Tensor:
    operation = augmentation(name).operation
    assert isinstance(operation, Window)
    return operation.draw(n, strength, image, size, running)


class TestDraws:
    """What is drawn fills the range that the strength gives, and does not leave it."""

    N = 2000

    def check_uniform(self, values: Tensor, high: float) -> None:
        assert values.abs().max().item() <= high * (1 + 1e-5)
        assert values.max().item() > 0.99 * high
        assert values.min().item() < -0.99 * high
        # Four standard errors of the mean of uniform values.
        assert abs(values.mean().item()) < 4 * high / math.sqrt(3 * self.N)

    def test_rotate(self) -> None:
        drawn = matrices("rotate", self.N, 30.0, generator())
        self.check_uniform(torch.rad2deg(torch.atan2(drawn[:, 0, 1], drawn[:, 0, 0])), 30.0)
        torch.testing.assert_close(torch.linalg.det(drawn), torch.ones(self.N))

    def test_translate(self) -> None:
        drawn = matrices("translate", self.N, 0.1, generator())
        self.check_uniform(drawn[:, 0, 2] / 2, 0.1)
        self.check_uniform(drawn[:, 1, 2] / 2, 0.1)
        assert torch.corrcoef(drawn[:, :2, 2].T)[0, 1].abs() < 0.1

    def test_scale(self) -> None:
        drawn = matrices("scale", self.N, 0.5, generator())
        assert torch.equal(drawn[:, 0, 0], drawn[:, 1, 1])
        self.check_uniform(drawn[:, 0, 0].log(), math.log(1.5))

    def test_shear(self) -> None:
        drawn = matrices("shear", self.N, 20.0, generator())
        angles = torch.rad2deg(torch.stack([drawn[:, 0, 1], drawn[:, 1, 0]]).atan())
        self.check_uniform(angles[0], 20.0)
        self.check_uniform(angles[1], 20.0)
        assert torch.corrcoef(angles)[0, 1].abs() < 0.1
        torch.testing.assert_close(torch.linalg.det(drawn), torch.ones(self.N))

    @pytest.mark.parametrize("name", ["hflip", "vflip"])
    @pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
    def test_flips(self, name: str, probability: float) -> None:
        drawn = matrices(name, self.N, probability, generator())
        axis = ["hflip", "vflip"].index(name)
        flipped = (drawn[:, axis, axis] == -1).float().mean().item()
        error = math.sqrt(probability * (1 - probability) / self.N)
        assert flipped == pytest.approx(probability, abs=4 * error)
        assert (drawn[:, 1 - axis, 1 - axis] == 1).all()

    @pytest.mark.parametrize(
        ("image", "size", "padding"), [((10, 14), (10, 14), 2), ((10, 14), (6, 9), 2)]
    )
    def test_crop(self, image: Sides, size: Sides, padding: int) -> None:
        drawn = windows("crop", self.N, padding / min(image), image, size, generator())
        assert torch.equal(drawn[:, 2:], torch.tensor(size).float().expand(self.N, 2))
        for axis in (0, 1):
            corners = (drawn[:, axis] + padding).long()
            assert torch.equal(corners - padding, drawn[:, axis])
            places = image[axis] + 2 * padding - size[axis] + 1
            counts = corners.bincount(minlength=places)
            assert len(counts) == places
            expected = self.N / places
            assert (counts - expected).abs().max() < 4.5 * math.sqrt(expected)
        assert torch.corrcoef(drawn[:, :2].T)[0, 1].abs() < 0.1

    @pytest.mark.parametrize("strength", [0.2, 0.92])
    @pytest.mark.parametrize("image", [(512, 512), (400, 520), (800, 320)])
    def test_resized_crop_draws_as_torchvision(self, image: Sides, strength: float) -> None:
        n = 4000
        drawn = windows("resized_crop", n, strength, image, (224, 224), generator()).numpy()
        scale, ratio = [1 - strength, 1.0], [3 / 4, 4 / 3]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            empty = torch.empty(1, *image)
            theirs = [RandomResizedCrop.get_params(empty, scale, ratio) for _ in range(n)]
        for ours, other in zip(measures(drawn, image), measures(theirs, image), strict=True):
            # They round to whole pixels, and each quantile has its standard error.
            where = np.linspace(0.05, 0.95, 11)
            assert np.quantile(ours, where) == pytest.approx(np.quantile(other, where), abs=0.03)
        assert drawn.min() >= -1e-3
        assert ((drawn[:, :2] + drawn[:, 2:]).max(axis=0) <= np.array(image) + 1e-3).all()

    def test_resized_crop_keeps_the_proportions_of_the_result(self) -> None:
        drawn = windows("resized_crop", self.N, 0.9, (100, 300), (50, 150), generator())
        ratio = drawn[:, 3] / drawn[:, 2] / 3
        assert 0.75 - 1e-4 < ratio.min() < 0.76
        assert 1.32 < ratio.max() < 4 / 3 + 1e-4
        share = drawn[:, 2] * drawn[:, 3] / 30000
        assert 0.1 - 1e-4 < share.min() < 0.12
        assert share.max() > 0.9


def measures(boxes: ArrayLike, image: Sides) -> tuple[np.ndarray, ...]:
    """Of boxes (top, left, height, width): their place, area and proportions, all from 0 to 1
    or little more.
    """
    top, left, height, width = np.asarray(boxes, np.float64).T
    area = height * width / (image[0] * image[1])
    return (
        top / image[0],
        left / image[1],
        height / image[0],
        width / image[1],
        area,
        width / height,
    )


def warp(
    image: Tensor,
    *,
    angle: float = 0.0,
    x: float = 0.0,
    y: float = 0.0,
    scale: float = 1.0,
    shear: tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    """torchvision's affine transformation; angles in degrees clockwise, x and y in pixels."""
    return reference.affine(
        image,
        angle=angle,
        translate=[x, y],
        scale=scale,
        shear=list(shear),
        interpolation=InterpolationMode.BILINEAR,
    )


def degrees(tangent: Tensor) -> float:
    return math.degrees(math.atan(tangent.item()))


@pytest.mark.parametrize(("height", "width"), SIZES)
class TestAgainstTorchvision:
    def test_rotate(self, height: int, width: int) -> None:
        images = random_images(height=height, width=width, channels=3)
        drawn = matrices("rotate", len(images), 60.0, generator())
        out = augment_batch(images, {"rotate": 60.0}, generator())
        for image, matrix, result in zip(images, drawn, out, strict=True):
            clockwise = math.degrees(math.atan2(matrix[0, 1].item(), matrix[0, 0].item()))
            expected = reference.rotate(image, -clockwise, InterpolationMode.BILINEAR)
            torch.testing.assert_close(result, expected, **CLOSE)

    def test_translate(self, height: int, width: int) -> None:
        images = random_images(height=height, width=width)
        drawn = matrices("translate", len(images), 0.4, generator())
        out = augment_batch(images, {"translate": 0.4}, generator())
        for image, matrix, result in zip(images, drawn, out, strict=True):
            # The result shows what the source has at +x: its content moves by -x.
            x, y = (-matrix[:2, 2] * min(height, width) / 2).tolist()
            torch.testing.assert_close(result, warp(image, x=x, y=y), **CLOSE)

    def test_scale(self, height: int, width: int) -> None:
        images = random_images(height=height, width=width)
        drawn = matrices("scale", len(images), 1.0, generator())
        out = augment_batch(images, {"scale": 1.0}, generator())
        for image, matrix, result in zip(images, drawn, out, strict=True):
            expected = warp(image, scale=1 / matrix[0, 0].item())
            torch.testing.assert_close(result, expected, **CLOSE)

    def test_shear(self, height: int, width: int) -> None:
        images = random_images(height=height, width=width, channels=3)
        drawn = matrices("shear", len(images), 30.0, generator())
        out = augment_batch(images, {"shear": 30.0}, generator())
        for image, matrix, result in zip(images, drawn, out, strict=True):
            expected = warp(image, shear=(degrees(matrix[0, 1]), degrees(matrix[1, 0])))
            torch.testing.assert_close(result, expected, **CLOSE)

    @both_formats
    @pytest.mark.parametrize("name", ["hflip", "vflip"])
    def test_flips_copy_pixels(
        self, height: int, width: int, name: str, memory_format: torch.memory_format
    ) -> None:
        images = random_images(height=height, width=width, channels=3)
        images = images.contiguous(memory_format=memory_format)
        out = augment_batch(images, {name: 0.5}, generator(1))
        flip = {"hflip": reference.horizontal_flip, "vflip": reference.vertical_flip}[name]
        kinds = set()
        for image, result in zip(images, out, strict=True):
            kinds.add(flipped := torch.equal(result, flip(image)))
            assert flipped or torch.equal(result, image)
        assert kinds == {True, False}

    @both_formats
    @pytest.mark.parametrize("strength", [0.125, 0.5])
    def test_crop_copies_pixels(
        self, height: int, width: int, strength: float, memory_format: torch.memory_format
    ) -> None:
        images = random_images(32, 3, height, width).contiguous(memory_format=memory_format)
        sides = height, width
        padding = round(strength * min(sides))
        for size in (sides, (7, 8)):
            drawn = windows("crop", 32, strength, sides, size, generator()).long()
            out = augment_batch(images, {"crop": strength}, generator(), size=size)
            padded = reference.pad(images, [padding])
            for image, (top, left, *_), result in zip(padded, drawn.tolist(), out, strict=True):
                place = (top + padding, left + padding)
                assert torch.equal(result, reference.crop(image, *place, *size))
                # That is what torchvision draws, too.
                assert place[0] + size[0] <= image.shape[1]
                assert RandomCrop.get_params(image, size)[2:] == size

    def test_flips_and_crop_are_one_copy(self, height: int, width: int) -> None:
        images = random_images(64, 3, height, width)
        both = {"hflip": 0.5, "vflip": 0.5, "crop": 0.2}
        for size in ((height, width), (8, 5)):
            out = augment_batch(images, both, generator(), size=size)
            running, expected = generator(), images
            for name, strength in both.items():
                cut = size if name == "crop" else None
                expected = augment_batch(expected, {name: strength}, running, size=cut)
            assert torch.equal(out, expected)

    def test_all_together_are_one_affine_transformation(self, height: int, width: int) -> None:
        images = random_images(height=height, width=width, n=16)
        strengths = {"rotate": 40.0, "translate": 0.2, "scale": 0.3, "hflip": 0.5}
        running = generator(5)
        rotate, translate, scale, flip = (
            matrices(name, len(images), strength, running) for name, strength in strengths.items()
        )
        out = augment_batch(images, strengths, generator(5))
        flips = set()
        for i, image in enumerate(images):
            zoom = 1 / scale[i, 0, 0].item()
            x, y = (-translate[i, :2, 2] * min(height, width) / 2 * zoom).tolist()
            angle = math.degrees(math.atan2(rotate[i, 0, 1].item(), rotate[i, 0, 0].item()))
            expected = warp(image, angle=angle, x=x, y=y, scale=zoom)
            flips.add(flipped := flip[i, 0, 0].item() < 0)
            expected = reference.horizontal_flip(expected) if flipped else expected
            torch.testing.assert_close(out[i], expected, **CLOSE)
        assert flips == {True, False}

    def test_rotate_and_translate_resample_once(self, height: int, width: int) -> None:
        images = random_images(height=height, width=width)
        both = {"rotate": 40.0, "translate": 0.2}
        once = augment_batch(images, both, generator(3))
        running = generator(3)
        twice = images
        for name, strength in both.items():
            twice = augment_batch(twice, {name: strength}, running)
        # The same draws in two resamplings blur the noise twice.
        inside = (..., slice(4, -4), slice(4, -4)) if min(height, width) > 10 else (...,)
        assert once[inside].std() > 1.1 * twice[inside].std()

    @pytest.mark.parametrize("size", [None, (8, 8), (9, 6)])
    def test_resized_crop(self, height: int, width: int, size: Sides | None) -> None:
        images = random_images(16, 3, height, width)
        sides = height, width
        out = augment_batch(images, {"resized_crop": 0.9}, generator(), size=size)
        drawn = windows("resized_crop", 16, 0.9, sides, size or sides, generator())
        for image, window, result in zip(images, drawn, out, strict=True):
            ys, xs = centres(window, size or sides)
            expected = sampled(image, *np.meshgrid(ys, xs, indexing="ij"), outside="nearest")
            torch.testing.assert_close(result, expected, **CLOSE)

    @pytest.mark.parametrize("size", [None, (8, 8)])
    def test_windows_are_cut_out_of_the_turned_image(
        self, height: int, width: int, size: Sides | None
    ) -> None:
        images = random_images(8, 1, height, width)
        sides = height, width
        strengths = {"rotate": 40.0, "resized_crop": 0.6, "crop": 0.2}
        out = augment_batch(images, strengths, generator(), size=size)
        running = generator()
        turns = matrices("rotate", 8, 40.0, running)
        outer = windows("resized_crop", 8, 0.6, sides, size or sides, running)
        # The crop shifts what was resized already.
        inner = windows("crop", 8, 0.2, size or sides, size or sides, running)
        for image, turn, window, shift, result in zip(
            images, turns, outer, inner, out, strict=True
        ):
            ys, xs = centres(window, size or sides)
            step = window[2:] / torch.tensor(size or sides)
            y, x = np.meshgrid(
                ys + (shift[0] * step[0]).item(), xs + (shift[1] * step[1]).item(), indexing="ij"
            )
            y, x = y - (height - 1) / 2, x - (width - 1) / 2
            (cos, sin), _, _ = turn[:, :2].tolist()
            source_x, source_y = cos * x + sin * y, -sin * x + cos * y
            expected = sampled(
                image, source_y + (height - 1) / 2, source_x + (width - 1) / 2, outside="black"
            )
            torch.testing.assert_close(result, expected, **CLOSE)


def centres(window: Tensor, size: Sides) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixels of a result lie in the image, along y and along x: pixel 0 is at 0."""
    top, left, height, width = window.double().tolist()
    ys = top + (np.arange(size[0]) + 0.5) * height / size[0] - 0.5
    xs = left + (np.arange(size[1]) + 0.5) * width / size[1] - 0.5
    return ys, xs


def sampled(image: Tensor, ys: np.ndarray, xs: np.ndarray, *, outside: str) -> Tensor:
    """SciPy's bilinear interpolation of an image (channels, height, width)."""
    mode = {"black": "grid-constant", "nearest": "nearest"}[outside]
    planes = [
        map_coordinates(plane.double().numpy(), [ys, xs], order=1, mode=mode, cval=0.0)
        for plane in image
    ]
    return torch.from_numpy(np.stack(planes)).float()


def test_resized_crop_has_no_dark_rim() -> None:
    white = torch.ones(64, 1, 12, 12)
    out = augment_batch(white, {"resized_crop": 0.9, "hflip": 0.5}, generator())
    assert out.min() > 1 - 1e-6


def test_a_resized_crop_is_padded_with_black() -> None:
    white = torch.ones(64, 1, 12, 12)
    out = augment_batch(white, {"resized_crop": 0.1, "crop": 0.3}, generator())
    assert (out.flatten(1).amin(dim=1) == 0).float().mean() > 0.5


def test_what_comes_from_outside_is_0() -> None:
    white = torch.ones(32, 1, 8, 8)
    out = augment_batch(white, {"translate": 1.0}, generator())
    drawn = matrices("translate", 32, 1.0, generator())
    # Shifted by two pixels at least, one edge is outside whole.
    far = (drawn[:, :2, 2].abs() > 0.5).any(dim=1)
    assert far.any()
    for image in out[far]:
        assert image.min() == 0.0
        assert (
            min(edge.max().item() for edge in (image[0, 0], image[0, -1], *image[0].T[[0, -1]]))
            == 0
        )
