"""Draws hands: seen from the back (nails) or from the palm (lines), left or right, fingers up or
curled. Used by `make_reference_data.py`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

# Units are half a palm; the origin is the middle of the palm, and fingers point up (to -y).
_BASES: tuple[Point, ...] = (
    (-0.72, 0.25),
    (-0.62, -0.75),
    (-0.2, -0.9),
    (0.22, -0.85),
    (0.6, -0.65),
)
_ANGLES = (-52, -14, -4, 6, 17)  # degrees from straight up
_LENGTHS = (1.15, 1.45, 1.65, 1.5, 1.15)
_WIDTHS = (0.44, 0.4, 0.41, 0.39, 0.34)
_CURLED = 0.5
"""Fingers shorter than this lie in the palm."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hand:
    """What is drawn.

    Attributes:
        skin: its colour.
        fingers: how much of each is stretched, from 0 to 1; the thumb first.
        breadth: how thick palm and fingers are for their length.
        is_palmar: it shows the palm and not the back.
        is_left: the thumb is on the other side.
        polish: colour of the nails, if any.
        ring: whether there is one on the fourth finger.
    """

    skin: Colour
    fingers: tuple[float, float, float, float, float] = (1, 1, 1, 1, 1)
    breadth: float = 1.0
    is_palmar: bool = False
    is_left: bool = False
    polish: Colour | None = None
    ring: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pose:
    """Where a hand is: its middle and half the width of its palm in pixels, and how it is turned
    (degrees, clockwise).
    """

    x: float
    y: float
    size: float
    turn: float


def draw_hand(image: Image.Image, hand: Hand, pose: Pose, random: np.random.Generator) -> None:
    """Draws a hand with its arm; `random` makes the fingers spread a little each time anew."""
    pen = _Pen(image, pose, mirrored=hand.is_left != hand.is_palmar)
    edge, shade = darker(hand.skin, 0.55), darker(hand.skin, 0.78)
    # A palm is paler than the back of the same hand.
    inner = lighter(hand.skin, 0.3) if hand.is_palmar else hand.skin
    spread = random.uniform(0.6, 1.3)
    bends = random.uniform(-4, 4, 5)
    fingers = [_Finger.of(number, hand, spread, float(bend)) for number, bend in enumerate(bends)]
    straight = [finger for finger in fingers if not finger.is_curled]
    curled = [finger for finger in fingers if finger.is_curled]
    breadth = hand.breadth
    for grow, colour in ((0.1, edge), (0.0, hand.skin)):
        pen.capsule((0, 0.5), (0, 5), 1.05 * breadth + grow, colour)
        pen.oval((0, 0), 0.86 * breadth + grow / 2, 1.05 + grow / 2, colour)
        for finger in straight:
            pen.capsule(finger.base, finger.tip, finger.width + grow, colour)
    pen.oval((0, 0.02), 0.76 * breadth, 0.92, inner)
    for finger in straight:
        _draw_details(pen, finger, hand, inner, shade)
    if hand.is_palmar:
        line = darker(hand.skin, 0.62)
        for path in _LINES:
            pen.path([(x * breadth, y) for x, y in path], 0.07, line)
    else:
        for x, y in _BASES[1:]:
            pen.oval((x * 0.9 * breadth, y + 0.22), 0.1, 0.06, shade)
    for finger in curled:
        pen.capsule(finger.base, finger.tip, finger.width + 0.12, edge)
        pen.capsule(finger.base, finger.tip, finger.width, inner)


_LINES: tuple[tuple[Point, ...], ...] = (
    ((-0.6, -0.35), (-0.2, -0.3), (0.25, -0.45), (0.6, -0.4)),
    ((-0.62, -0.1), (-0.1, -0.05), (0.4, 0.25)),
    ((-0.45, -0.2), (-0.2, 0.15), (-0.2, 0.75)),
)


@dataclasses.dataclass(frozen=True)
class _Finger:
    """One finger; the thumb is number 0."""

    number: int
    base: Point
    tip: Point
    width: float
    is_curled: bool

    @classmethod
    def of(cls, number: int, hand: Hand, spread: float, bend: float) -> _Finger:
        stretched = hand.fingers[number]
        is_curled = stretched < _CURLED
        x, y = _BASES[number][0] * hand.breadth, _BASES[number][1]
        angle = _ANGLES[number] * (spread if number else 1) + bend
        length = _LENGTHS[number] * stretched
        if is_curled:  # folded over the palm: fingers down, the thumb across
            length, angle = (0.8, 85) if number == 0 else (0.45, 180)
        radians = math.radians(angle)
        tip = (x + length * math.sin(radians), y - length * math.cos(radians))
        return cls(number, (x, y), tip, _WIDTHS[number] * hand.breadth, is_curled)

    def along(self, share: float) -> Point:
        """The point after this share of its length."""
        (x0, y0), (x1, y1) = self.base, self.tip
        return (x0 + share * (x1 - x0), y0 + share * (y1 - y0))


def _draw_details(pen: _Pen, finger: _Finger, hand: Hand, inner: Colour, shade: Colour) -> None:
    if hand.is_palmar:
        pen.capsule(finger.along(0.1), finger.tip, 0.72 * finger.width, inner)
    else:
        nail = hand.polish or lighter(hand.skin, 0.6)
        pen.capsule(finger.along(0.96), finger.along(1.06), 0.66 * finger.width, shade)
        pen.capsule(finger.along(0.96), finger.along(1.06), 0.52 * finger.width, nail)
    for share in (0.33, 0.66):
        (x, y), across = finger.along(share), 0.32 * finger.width
        pen.path([(x - across, y), (x + across, y)], 0.05, shade)
    if hand.ring and finger.number == 3:
        (x, y), across = finger.along(0.15), 0.55 * finger.width
        pen.path([(x - across, y), (x + across, y)], 0.16, (212, 175, 55))


class _Pen:
    """Draws in the units of a hand."""

    def __init__(self, image: Image.Image, pose: Pose, *, mirrored: bool) -> None:
        self._draw = ImageDraw.Draw(image)
        self._pose = pose
        self._side = -1 if mirrored else 1
        radians = math.radians(pose.turn)
        self._cos, self._sin = math.cos(radians), math.sin(radians)

    def _at(self, point: Point) -> Point:
        x, y = point[0] * self._side * self._pose.size, point[1] * self._pose.size
        return (
            self._pose.x + self._cos * x - self._sin * y,
            self._pose.y + self._sin * x + self._cos * y,
        )

    def capsule(self, start: Point, end: Point, width: float, colour: Colour) -> None:
        """A thick line with round ends."""
        self.path([start, end], width, colour)
        radius = width * self._pose.size / 2
        for x, y in (self._at(start), self._at(end)):
            self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def path(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """A line through the points."""
        pixels = max(1, round(width * self._pose.size))
        self._draw.line([self._at(p) for p in points], fill=colour, width=pixels, joint="curve")

    def oval(self, middle: Point, wide: float, high: float, colour: Colour) -> None:
        """An ellipse with these half axes."""
        turns = np.linspace(0, 2 * math.pi, 28, endpoint=False)
        points = [
            self._at((middle[0] + wide * math.cos(t), middle[1] + high * math.sin(t)))
            for t in turns
        ]
        self._draw.polygon(points, fill=colour)


def darker(colour: Colour, share: float) -> Colour:
    """The colour with this share of its light."""
    red, green, blue = (round(value * share) for value in colour)
    return (red, green, blue)


def lighter(colour: Colour, share: float) -> Colour:
    """The colour, moved towards white."""
    red, green, blue = (round(value + (255 - value) * share) for value in colour)
    return (red, green, blue)
