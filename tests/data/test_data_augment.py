from __future__ import annotations

import math

import pytest
import torch
import torchvision.transforms.v2.functional as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import InterpolationMode

from hpsearch.data.augment import (
    AUGMENTATIONS,
    Augmentation,
    augment_batch,
    augmentation,
    check_augmentations,
)
from hpsearch.errors import ConfigError

SIZES = [(16, 16), (11, 17), (20, 9)]  # height, width
AFFINE = [row for row in AUGMENTATIONS if row.affine is not None]
# Interpolation weights and zero padding agree to a few float32 rounding errors of a coordinate.
CLOSE = {"atol": 2e-5, "rtol": 0.0}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(
    n: int = 8, channels: int = 1, height: int = 11, width: int = 17, low: float = 0.0
) -> Tensor:
    """Noise: no blur or shift of it goes unnoticed."""
    images = torch.rand((n, height, width, channels), generator=generator(99))
    return (low + (1 - low) * images).permute(0, 3, 1, 2)  # channels_last, as the loader's


def matrices(name: str, n: int, strength: float, running: torch.Generator) -> Tensor:
    draw = augmentation(name).affine
    assert draw is not None
    return draw(n, strength, running)


@pytest.mark.parametrize("row", AUGMENTATIONS, ids=lambda row: row.name)
class TestEveryAugmentation:
    def test_is_one_operation_with_help_and_ordered_limits(self, row: Augmentation) -> None:
        assert (row.affine is None) != (row.pixels is None)
        assert row.help
        assert 0 < row.high <= row.limit

    def test_strength_0_changes_nothing(self, row: Augmentation) -> None:
        images = random_images()
        assert torch.equal(augment_batch(images, {row.name: 0.0}, generator()), images)
        # Nor does the row itself, were it applied.
        if row.affine is not None:
            identity = torch.eye(3).expand(8, 3, 3)
            assert torch.equal(row.affine(8, 0.0, generator()), identity)
        if row.pixels is not None:
            torch.testing.assert_close(row.pixels(images, 0.0, generator()), images)

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("share", [1e-3, 0.5, 1.0])
    def test_shape_type_and_range_are_kept(
        self, row: Augmentation, channels: int, share: float
    ) -> None:
        images = random_images(channels=channels)
        before = images.clone()
        out = augment_batch(images, {row.name: share * row.limit}, generator())
        assert torch.equal(images, before)
        assert out.shape == images.shape
        assert out.dtype == torch.float32
        assert out.min() >= 0.0
        assert out.max() <= 1.0

    @pytest.mark.parametrize(
        "memory_format", [torch.channels_last, torch.contiguous_format], ids=["NHWC", "NCHW"]
    )
    def test_the_memory_format_is_kept(
        self, row: Augmentation, memory_format: torch.memory_format
    ) -> None:
        images = random_images(channels=3).contiguous(memory_format=memory_format)
        out = augment_batch(images, {row.name: row.high}, generator())
        assert out.is_contiguous(memory_format=memory_format)

    def test_each_image_draws_its_own(self, row: Augmentation) -> None:
        same = random_images(1).expand(16, -1, -1, -1)
        out = augment_batch(same, {row.name: row.high}, generator())
        others = [image for image in out[1:] if not torch.allclose(image, out[0], atol=1e-3)]
        assert others

    def test_the_generator_decides_and_nothing_else(self, row: Augmentation) -> None:
        images = random_images(16)
        state = torch.get_rng_state()
        first, again, other = (
            augment_batch(images, {row.name: row.high}, generator(seed)) for seed in (1, 1, 2)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert torch.equal(torch.get_rng_state(), state)

    def test_a_strength_beyond_the_limit_is_refused(self, row: Augmentation) -> None:
        check_augmentations({row.name: 0.0})
        check_augmentations({row.name: row.limit})
        for strength in (row.limit * 1.001, -0.1, math.nan, math.inf):
            with pytest.raises(ConfigError) as caught:
                check_augmentations({row.name: strength})
            assert row.name in str(caught.value)
            assert repr(strength) in str(caught.value)


def test_an_unknown_augmentation_is_named_beside_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'rotation'.*rotate.*contrast"):
        check_augmentations({"rotation": 10.0})


def test_names_do_not_repeat() -> None:
    assert len({row.name for row in AUGMENTATIONS}) == len(AUGMENTATIONS)


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

    @pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
    def test_hflip(self, probability: float) -> None:
        drawn = matrices("hflip", self.N, probability, generator())
        flipped = (drawn[:, 0, 0] == -1).float().mean().item()
        error = math.sqrt(probability * (1 - probability) / self.N)
        assert flipped == pytest.approx(probability, abs=4 * error)


def warp(
    image: Tensor, *, angle: float = 0.0, x: float = 0.0, y: float = 0.0, scale: float = 1.0
) -> Tensor:
    """torchvision's affine transformation; angle in degrees clockwise, x and y in pixels."""
    return reference.affine(
        image,
        angle=angle,
        translate=[x, y],
        scale=scale,
        shear=[0.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )


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

    def test_hflip(self, height: int, width: int) -> None:
        images = random_images(height=height, width=width, channels=3)
        out = augment_batch(images, {"hflip": 1.0}, generator())
        torch.testing.assert_close(out, reference.horizontal_flip(images), **CLOSE)

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

    @pytest.mark.parametrize("strength", [0.1, 0.4, 1.0])
    def test_brightness(self, height: int, width: int, strength: float) -> None:
        images = random_images(height=height, width=width, channels=3, low=0.1)
        out = augment_batch(images, {"brightness": strength}, generator())
        factors = []
        for image, result in zip(images, out, strict=True):
            factor = (result[result < 1] / image[result < 1]).median().item()
            factors.append(factor)
            expected = reference.adjust_brightness(image, factor)
            torch.testing.assert_close(result, expected, atol=1e-5, rtol=0.0)
        assert 1 - strength <= min(factors) < 1 < max(factors) <= 1 + strength

    @pytest.mark.parametrize("strength", [0.1, 0.4, 1.0])
    def test_contrast_of_gray_images(self, height: int, width: int, strength: float) -> None:
        images = random_images(height=height, width=width)
        out = augment_batch(images, {"contrast": strength}, generator())
        factors = []
        for image, result in zip(images, out, strict=True):
            mean = image.mean()
            seen = (result > 0) & (result < 1) & ((image - mean).abs() > 0.1)
            factor = ((result - mean)[seen] / (image - mean)[seen]).median().item()
            factors.append(factor)
            expected = reference.adjust_contrast(image, factor)
            torch.testing.assert_close(result, expected, atol=1e-5, rtol=0.0)
        assert 1 - strength <= min(factors) < 1 < max(factors) <= 1 + strength


def test_contrast_of_colour_images_keeps_their_mean() -> None:
    images = 0.3 + 0.4 * random_images(channels=3)  # so that nothing is clipped
    out = augment_batch(images, {"contrast": 0.4}, generator())
    torch.testing.assert_close(out.mean(dim=(1, 2, 3)), images.mean(dim=(1, 2, 3)))
    # The colours move with the pixels: a pixel at the mean stays at it in each channel.
    ratio = (out - images.mean((1, 2, 3), True)) / (images - images.mean((1, 2, 3), True))
    for factors in ratio:
        assert torch.quantile(factors, 0.9) - torch.quantile(factors, 0.1) < 1e-2


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("row", AFFINE, ids=lambda row: row.name)
def test_resampling_without_a_move_gives_the_pixels_back(
    row: Augmentation, height: int, width: int
) -> None:
    images = random_images(height=height, width=width)
    moved = augment_batch(images, {row.name: 1e-6}, generator())
    torch.testing.assert_close(moved, images, atol=1e-4, rtol=0.0)


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


@settings(max_examples=60)
@given(
    strengths=st.fixed_dictionaries(
        {}, optional={row.name: st.floats(0.0, row.limit) for row in AUGMENTATIONS}
    ),
    shape=st.tuples(
        st.integers(1, 5), st.sampled_from([1, 3]), st.integers(1, 12), st.integers(1, 12)
    ),
    seed=st.integers(0, 100),
)
def test_any_mixture_gives_finite_images_in_range(
    strengths: dict[str, float], shape: tuple[int, int, int, int], seed: int
) -> None:
    check_augmentations(strengths)
    images = torch.rand(shape, generator=generator(seed))
    out = augment_batch(images, strengths, generator(seed))
    assert out.shape == images.shape
    assert out.dtype == images.dtype
    assert out.isfinite().all()
    assert out.min() >= 0.0
    assert out.max() <= 1.0


def test_the_order_of_the_strengths_does_not_matter() -> None:
    images = random_images()
    strengths = {"rotate": 20.0, "translate": 0.1, "contrast": 0.3, "brightness": 0.2}
    backwards = dict(reversed(strengths.items()))
    first, second = (augment_batch(images, s, generator()) for s in (strengths, backwards))
    assert torch.equal(first, second)
