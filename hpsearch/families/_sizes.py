"""The sizes of maps, layer by layer, computed before a network is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from hpsearch.data.dataset import ImageShape
from hpsearch.errors import InfeasibleError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """A convolution or pool: a window of `kernel` x `kernel` that moves by `stride` over a map
    with `padding` on each side.

    Attributes:
        name: as errors give it, such as block4.conv2.
    """

    name: str
    kernel: int
    stride: int = 1
    padding: int = 0

    def output(self, side: int) -> int:
        """The side of the map that it makes of one of `side`; below 1 where there is none."""
        return (side + 2 * self.padding - self.kernel) // self.stride + 1

    def least(self, output: int = 1) -> int:
        """The least side of a map of which it makes one of at least `output`."""
        return max(1, (output - 1) * self.stride + self.kernel - 2 * self.padding)


def least_side(windows: Sequence[Window]) -> int:
    """The least side of an image that leaves a map after all of `windows`, in their order."""
    side = 1
    for window in reversed(windows):
        side = window.least(side)
    return side


def final_size(
    windows: Sequence[Window], shape: ImageShape, *, network: str, advice: str = ""
) -> tuple[int, int]:
    """Height and width of the map after all of `windows`, of an image of `shape`.

    Args:
        network: how the error calls what the windows are part of.
        advice: what else than larger images would help, for the end of the error.

    Raises:
        InfeasibleError: nothing is left after one of them.
    """
    height, width = shape.height, shape.width
    for window in windows:
        if min(height, width) < window.least():
            least = least_side(windows)
            raise InfeasibleError(
                f"{network}: images of {shape.height}x{shape.width} are too small, because "
                f"{window.name} gets a map of {height}x{width} and needs {window.least()}x"
                f"{window.least()}; use images of at least {least}x{least}{advice}"
            )
        height, width = window.output(height), window.output(width)
    return height, width
