"""What holds for every row of the table, and for rows together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from hpsearch.data.augment import (
    AUGMENTATIONS,
    Augmentation,
    _batch,
    augment_batch,
    augmentation,
    check_augmentations,
    mix_batch,
)
from hpsearch.data.augment._colour import recolour
from hpsearch.data.augment._rows import Affine, AllOf, Colour, Mix, OneOf, Pixels, Simple, Window
from hpsearch.errors import ConfigError

Sides = tuple[int, int]

SIZES = [(16, 16), (11, 17), (20, 9)]  # height, width
MIXING = [row for row in AUGMENTATIONS if isinstance(row.operation, Mix)]
MOVING = [row for row in AUGMENTATIONS if isinstance(row.operation, Affine | Window)]
OTHERS = [row for row in AUGMENTATIONS if row not in MIXING]

every_row = pytest.mark.parametrize("row", AUGMENTATIONS, ids=lambda row: row.name)
every_size = pytest.mark.parametrize(("height", "width"), SIZES)
both_formats = pytest.mark.parametrize(
    "memory_format", [torch.channels_last, torch.contiguous_format], ids=["NHWC", "NCHW"]
)


def generator(seed: int = 0, device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def random_images(
    n: int = 8, channels: int = 1, height: int = 11, width: int = 17, low: float = 0.0
) -> Tensor:
    """Noise: no blur or shift of it goes unnoticed."""
    images = torch.rand((n, height, width, channels), generator=generator(99))
    return (low + (1 - low) * images).permute(0, 3, 1, 2)  # channels_last, as the loader's


def applied(
    images: Tensor,
    strengths: dict[str, float],
    running: torch.Generator,
    size: Sides | None = None,
) -> Tensor:
    """What a training batch goes through."""
    images = augment_batch(images, strengths, running, size=size)
    labels = torch.arange(len(images), device=images.device)
    mixed = mix_batch(images, strengths, labels, running)
    return images if mixed is None else mixed.images


@every_row
class TestEveryRow:
    def test_has_help_and_ordered_strengths(self, row: Augmentation) -> None:
        assert row.help
        assert 0 < row.good <= row.high <= row.limit

    @pytest.mark.parametrize("channels", [1, 3])
    def test_strength_0_changes_nothing(self, row: Augmentation, channels: int) -> None:
        images, running = random_images(channels=channels), generator()
        assert torch.equal(applied(images, {row.name: 0.0}, running), images)
        assert torch.equal(running.get_state(), generator().get_state())

    @every_size
    @pytest.mark.parametrize("channels", [1, 3])
    def test_shape_type_and_range_are_kept(
        self, row: Augmentation, height: int, width: int, channels: int
    ) -> None:
        for n, strength in ((1, row.limit), (8, row.limit), (8, row.good), (8, 1e-3 * row.limit)):
            images = random_images(n, channels, height, width)
            before = images.clone()
            out = applied(images, {row.name: strength}, generator())
            assert torch.equal(images, before)
            assert out.shape == images.shape
            assert out.dtype == torch.float32
            assert out.min() >= 0.0
            assert out.max() <= 1.0

    @pytest.mark.parametrize("channels", [1, 3])
    def test_white_stays_in_range(self, row: Augmentation, channels: int) -> None:
        white = torch.ones(16, channels, 9, 14)
        out = applied(white, {row.name: row.limit}, generator())
        assert out.max() <= 1 + 1e-6  # the weights of a resampling add up to 1 but for rounding
        assert out.min() >= 0

    @both_formats
    @pytest.mark.parametrize("size", [None, (10, 13)], ids=["whole", "cut"])
    def test_the_memory_format_is_kept(
        self, row: Augmentation, memory_format: torch.memory_format, size: Sides | None
    ) -> None:
        images = random_images(channels=3).contiguous(memory_format=memory_format)
        out = applied(images, {row.name: row.high}, generator(), size)
        assert out.is_contiguous(memory_format=memory_format)

    def test_the_memory_format_does_not_matter(self, row: Augmentation) -> None:
        images = random_images(channels=3)
        first, second = (
            applied(
                images.contiguous(memory_format=memory_format), {row.name: row.high}, generator()
            )
            for memory_format in (torch.channels_last, torch.contiguous_format)
        )
        torch.testing.assert_close(first, second, atol=1e-6, rtol=0.0)

    @pytest.mark.parametrize("channels", [1, 3])
    def test_each_image_draws_its_own(self, row: Augmentation, channels: int) -> None:
        same = random_images(1, channels).expand(32, -1, -1, -1)
        if row in MIXING:  # black and white images show the shares
            same = same * 0 + (torch.arange(32) % 2).view(-1, 1, 1, 1)
        out = applied(same, {row.name: row.high}, generator())
        if row.rgb_only and channels == 1:
            assert torch.equal(out, same)
            return
        different: list[Tensor] = []
        for image in out[::2]:
            if not any(torch.allclose(image, other, atol=1e-3) for other in different):
                different.append(image)
        yes_or_no = row.name in ("hflip", "vflip", "grayscale")
        assert len(different) == 2 if yes_or_no else len(different) > 4

    def test_the_generator_decides_and_nothing_else(self, row: Augmentation) -> None:
        images = random_images(16, 3)
        state = torch.get_rng_state()
        first, again, other = (
            applied(images, {row.name: row.high}, generator(seed)) for seed in (1, 1, 2)
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

    def test_no_value_is_waited_for(self, row: Augmentation) -> None:
        """Fake tensors have no values: what asks for one raises. On a GPU it would wait."""
        with FakeTensorMode():
            images = torch.rand(8, 3, 12, 15)
            applied(images, {row.name: row.high}, generator(), (10, 11))

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_a_gpu_does_not_wait(self, row: Augmentation) -> None:
        running = generator(device="cuda")
        images = random_images(32, 3).cuda().contiguous(memory_format=torch.channels_last)
        torch.cuda.set_sync_debug_mode("error")
        try:
            out = applied(images, {row.name: row.high}, running, (10, 11))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert out.device == images.device
        assert out.shape == (32, 3, 10, 11)
        assert out.is_contiguous(memory_format=torch.channels_last)
        assert out.min() >= 0
        assert out.max() <= 1 + 1e-6


def test_an_unknown_augmentation_is_named_beside_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'rotation'.*rotate.*contrast"):
        check_augmentations({"rotation": 10.0})


def test_names_do_not_repeat() -> None:
    assert len({row.name for row in AUGMENTATIONS}) == len(AUGMENTATIONS)


@pytest.mark.parametrize("row", OTHERS, ids=lambda row: row.name)
@every_size
def test_a_hair_of_strength_gives_the_pixels_back(
    row: Augmentation, height: int, width: int
) -> None:
    images = random_images(64, 3, height, width)
    out = augment_batch(images, {row.name: 1e-6}, generator())
    torch.testing.assert_close(out, images, atol=1e-4, rtol=0.0)


class TestSize:
    """`size` cuts the result out of the centre, whatever else is on."""

    @both_formats
    @pytest.mark.parametrize("size", [(11, 17), (10, 16), (7, 8), (1, 1), (4, 17)])
    def test_alone_it_is_a_centre_crop(
        self, size: Sides, memory_format: torch.memory_format
    ) -> None:
        images = random_images(3, 3).contiguous(memory_format=memory_format)
        out = augment_batch(images, {}, generator(), size=size)
        assert torch.equal(out, reference.center_crop(images, list(size)))
        assert out.is_contiguous(memory_format=memory_format)

    @every_row
    @every_size
    @pytest.mark.parametrize("size", [(8, 8), (9, 7)])
    def test_every_row_gives_it(
        self, row: Augmentation, height: int, width: int, size: Sides
    ) -> None:
        images = random_images(8, 3, height, width)
        out = applied(images, {row.name: row.high}, generator(), size)
        assert out.shape == (8, 3, *size)
        assert out.std() > 0.1

    @pytest.mark.parametrize("row", MOVING, ids=lambda row: row.name)
    @every_size
    def test_what_moves_shows_the_middle_of_what_it_gives_whole(
        self, row: Augmentation, height: int, width: int
    ) -> None:
        if isinstance(row.operation, Window):
            return  # has a place of its own to cut from
        images = random_images(8, 3, height, width)
        whole = augment_batch(images, {row.name: row.high}, generator())
        for size in ((8, 8), (9, 7), (height - 1, width)):
            out = augment_batch(images, {row.name: row.high}, generator(), size=size)
            expected = reference.center_crop(whole, list(size))
            if "flip" in row.name:
                assert torch.equal(out, expected)
            torch.testing.assert_close(out, expected, atol=2e-5, rtol=0.0)

    def test_a_turned_image_shows_what_lies_beyond_the_cut(self) -> None:
        white = torch.ones(32, 1, 32, 32)
        assert augment_batch(white, {"rotate": 30.0}, generator()).min() == 0
        out = augment_batch(white, {"rotate": 30.0}, generator(), size=(20, 20))
        assert out.min() > 0.999

    @pytest.mark.parametrize("strengths", [{}, *({row.name: row.high} for row in MOVING)], ids=str)
    @pytest.mark.parametrize("size", [(12, 17), (11, 18)])
    def test_more_than_there_is_is_refused(self, strengths: dict[str, float], size: Sides) -> None:
        with pytest.raises(ValueError, match=f"{size[0]}x{size[1]}.*11x17"):
            augment_batch(random_images(), strengths, generator(), size=size)


def earlier(images: Tensor, strengths: dict[str, float], running: torch.Generator) -> Tensor:
    """rotate, translate and scale as the first version of this package computed them."""

    def uniform(high: float) -> Tensor:
        return (torch.rand(len(images), generator=running) * 2 - 1) * high

    def stacked(*values: Tensor) -> Tensor:
        rows = [torch.stack(values[row : row + 3], dim=-1) for row in (0, 3, 6)]
        return torch.stack(rows, dim=-2)

    zero, one = torch.zeros(len(images)), torch.ones(len(images))
    steps = []
    if "rotate" in strengths:
        angle = uniform(math.radians(strengths["rotate"]))
        cos, sin = angle.cos(), angle.sin()
        steps.append(stacked(cos, sin, zero, -sin, cos, zero, zero, zero, one))
    if "translate" in strengths:
        x, y = uniform(2 * strengths["translate"]), uniform(2 * strengths["translate"])
        steps.append(stacked(one, zero, x, zero, one, y, zero, zero, one))
    if "scale" in strengths:
        factor = torch.exp(uniform(math.log1p(strengths["scale"])))
        steps.append(stacked(factor, zero, zero, zero, factor, zero, zero, zero, one))
    matrix = steps[0]
    for step in steps[1:]:
        matrix = matrix @ step
    height, width = images.shape[-2:]
    shorter = min(height, width)
    sides = torch.tensor([width / shorter, height / shorter, 1.0])
    theta = matrix * sides.view(1, 1, 3) / sides.view(1, 3, 1)
    grid = F.affine_grid(theta[:, :2], list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", align_corners=False)


@both_formats
@pytest.mark.parametrize("shape", [(37, 1, 8, 8), (20, 3, 16, 16), (9, 3, 11, 17), (9, 1, 20, 9)])
@pytest.mark.parametrize("names", ["r", "t", "s", "rt", "ts", "rs", "rts"])
def test_the_first_rows_stay_as_they_were(
    names: str, shape: tuple[int, ...], memory_format: torch.memory_format
) -> None:
    """Searches that were begun with an earlier version go on as they would have."""
    strengths = {"rotate": 11.3, "translate": 0.07, "scale": 0.13}
    strengths = {name: value for name, value in strengths.items() if name[0] in names}
    images = torch.rand(shape, generator=generator(3)).contiguous(memory_format=memory_format)
    running, before = generator(5), generator(5)
    out = augment_batch(images, strengths, running)
    torch.testing.assert_close(out, earlier(images, strengths, before), atol=1e-5, rtol=0)
    assert torch.equal(running.get_state(), before.get_state())


class TestRowsOfSeveral:
    """jitter and trivial: other rows, all of them or one for each image."""

    def test_parts_are_simple_rows(self) -> None:
        for row in AUGMENTATIONS:
            if isinstance(row.operation, AllOf):
                for name, share in row.operation.parts.items():
                    assert isinstance(augmentation(name).operation, Simple)
                    assert share * row.limit <= augmentation(name).limit
            if isinstance(row.operation, OneOf):
                for name in row.operation.parts:
                    assert isinstance(augmentation(name).operation, Affine | Colour | Pixels)
                    assert row.limit * augmentation(name).high <= augmentation(name).limit

    @pytest.mark.parametrize("channels", [1, 3])
    def test_jitter_is_its_parts_in_turn(self, channels: int) -> None:
        images = 0.4 + 0.2 * random_images(32, channels)  # nothing is cut off on the way
        out = augment_batch(images, {"jitter": 0.4}, generator())
        running, expected = generator(), images
        for name, strength in {
            "brightness": 0.4,
            "contrast": 0.4,
            "saturation": 0.4,
            "hue": 0.1,
        }.items():
            expected = augment_batch(expected, {name: strength}, running)
        torch.testing.assert_close(out, expected)

    @pytest.mark.parametrize("name", augmentation("trivial").operation.parts)  # type: ignore[union-attr]
    @pytest.mark.parametrize("strength", [0.5, 2.0])
    def test_trivial_of_one_part_is_that_part_or_nothing(
        self, name: str, strength: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        row = dataclasses.replace(augmentation("trivial"), operation=OneOf((name,)))
        monkeypatch.setattr(_batch, "AUGMENTATIONS", (row,))
        images = random_images(64, 3)
        out = augment_batch(images, {"trivial": strength}, generator())
        running = generator()
        chosen = torch.randint(2, (64,), generator=running) == 0
        monkeypatch.undo()
        part = augmentation(name)
        alone = augment_batch(images, {name: strength * part.high}, running)
        assert torch.equal(out[chosen], alone[chosen])
        torch.testing.assert_close(out[~chosen], images[~chosen], atol=2e-5, rtol=0.0)
        if not isinstance(part.operation, Affine):
            assert torch.equal(out[~chosen], images[~chosen])

    @pytest.mark.parametrize("channels", [1, 3])
    def test_trivial_gives_each_image_one_part(self, channels: int) -> None:
        n = 400
        images = random_images(n, channels)
        out = augment_batch(images, {"trivial": 1.0}, generator())
        names = [
            name
            for name in augmentation("trivial").operation.parts  # type: ignore[union-attr]
            if channels == 3 or not augmentation(name).rgb_only
        ]
        assert len(names) == (8 if channels == 3 else 7)
        running = generator()
        drawn = torch.randint(len(names) + 1, (n,), generator=running)
        counts = drawn.bincount(minlength=len(names) + 1)
        assert counts.min() > 0.5 * n / len(counts)
        parts: dict[type, Callable[[Affine | Colour | Pixels, float], Tensor]] = {
            Affine: lambda part, high: moved(images, part.draw(n, high, running)),
            Colour: lambda part, high: recolour(images, part.draw(n, high, running)),
            Pixels: lambda part, high: part.apply(images, high, running),
        }
        expected = [images] * (len(names) + 1)
        for kind, apply in parts.items():
            for number, name in enumerate(names):
                row = augmentation(name)
                if isinstance(row.operation, kind):
                    expected[number] = apply(row.operation, row.high)
        for number, results in enumerate(expected):
            here = drawn == number
            torch.testing.assert_close(out[here], results[here], atol=5e-5, rtol=0.0)


def moved(images: Tensor, matrix: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    sides = torch.tensor([width, height, min(height, width)]) / min(height, width)
    theta = matrix * sides.view(1, 1, 3) / sides.view(1, 3, 1)
    grid = F.affine_grid(theta[:, :2], list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


@settings(max_examples=100)
@given(
    strengths=st.fixed_dictionaries(
        {}, optional={row.name: st.floats(0.0, row.limit) for row in AUGMENTATIONS}
    ),
    shape=st.tuples(
        st.integers(1, 5), st.sampled_from([1, 3]), st.integers(1, 12), st.integers(1, 12)
    ),
    smaller=st.tuples(st.integers(0, 11), st.integers(0, 11)),
    seed=st.integers(0, 100),
)
def test_any_mixture_gives_finite_images_in_range(
    strengths: dict[str, float],
    shape: tuple[int, int, int, int],
    smaller: Sides,
    seed: int,
) -> None:
    check_augmentations(strengths)
    images = torch.rand(shape, generator=generator(seed))
    size = max(1, shape[2] - smaller[0]), max(1, shape[3] - smaller[1])
    out = applied(images, strengths, generator(seed), size)
    assert out.shape == (*shape[:2], *size)
    assert out.dtype == images.dtype
    assert out.isfinite().all()
    assert out.min() >= 0.0
    assert out.max() <= 1 + 1e-6


def test_the_order_of_the_strengths_does_not_matter() -> None:
    images = random_images(channels=3)
    strengths = {row.name: row.good for row in AUGMENTATIONS}
    backwards = dict(reversed(strengths.items()))
    first, second = (applied(images, s, generator()) for s in (strengths, backwards))
    assert torch.equal(first, second)
