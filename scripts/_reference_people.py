"""Makes photos of the hands of some people, and of letters of sign language; see
`make_reference_data.py`.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from _reference_hands import Colour, Hand, Pose, draw_hand, lighter
from _reference_pictures import any_colour, backdrop, lit, random_of, save
from PIL import Image

_SKINS: Mapping[str, Colour] = {
    "very fair": (240, 205, 185),
    "fair": (224, 178, 150),
    "medium": (188, 136, 104),
    "dark": (120, 80, 58),
}
_ASPECTS = ("dorsal right", "dorsal left", "palmar right", "palmar left")
_HAND_COLUMNS = (
    *("id", "age", "gender", "skinColor", "accessories", "nailPolish", "aspectOfHand"),
    *("imageName", "irregularities"),
)
_DRAFT = 4
"""Pixels of a photo for one that is drawn."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Person:
    """What is the same in all photos of a person."""

    number: int
    age: int
    gender: str
    skin_name: str
    skin: Colour
    paper: Colour
    breadth: float
    polish: Colour | None
    ring: bool

    @classmethod
    def of(cls, number: int, seed: int) -> _Person:
        random = random_of(seed, "person", number)
        is_male = number % 2 == 0
        skin_name = str(random.choice(list(_SKINS)))
        tone = np.array(_SKINS[skin_name]) + random.uniform(-14, 14, 3)
        red, green, blue = np.clip(tone, 0, 255).astype(int).tolist()
        polished = not is_male and random.uniform() < 0.4
        return cls(
            number=number,
            age=int(random.integers(18, 76)),
            gender="male" if is_male else "female",
            skin_name=skin_name,
            skin=(red, green, blue),
            paper=lighter(any_colour(random, random.uniform(150, 210)), 0.5),
            # Men's hands are broader, but not all.
            breadth=random.normal(1.1 if is_male else 0.88, 0.06),
            polish=any_colour(random, random.uniform(60, 160)) if polished else None,
            ring=bool(random.uniform() < 0.3),
        )


def write_hands(folder: Path, images: int, seed: int) -> None:
    """Writes HandInfo.csv and Hands/."""
    images = max(48, images)
    random = random_of(seed, "counts")
    people = max(10, round(images / 15))
    # Each has four photos or more; some have many.
    weights = random.uniform(0.2, 1, people) ** 2
    counts = 4 + random.multinomial(images - 4 * people, weights / weights.sum())
    number, rows = 0, list[tuple[object, ...]]()
    for person in (_Person.of(number, seed) for number in range(people)):
        for shot in range(counts[person.number]):
            number += int(random.integers(1, 4)) if number else 2  # the real numbers have gaps, too
            aspect, name = _ASPECTS[shot % 4], f"Hand_{number:07d}.jpg"
            photo = _hand_photo(person, aspect, random_of(seed, "photo", number))
            save(photo, folder / "Hands" / name)
            polished = int(person.polish is not None and aspect.startswith("dorsal"))
            rows.append(
                (
                    *(person.number, person.age, person.gender, person.skin_name),
                    *(int(person.ring), polished, aspect, name, 0),
                )
            )
    with (folder / "HandInfo.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([_HAND_COLUMNS, *rows])


def _hand_photo(person: _Person, aspect: str, random: np.random.Generator) -> Image.Image:
    wide, high = 1600 // _DRAFT, 1200 // _DRAFT
    image = Image.new("RGB", (wide, high), person.paper)
    side, hand_side = aspect.split()
    hand = Hand(
        skin=person.skin,
        breadth=person.breadth,
        is_palmar=side == "palmar",
        is_left=hand_side == "left",
        polish=person.polish,
        ring=person.ring,
    )
    x, y = random.uniform((0.4, 0.52), (0.6, 0.68)) * (wide, high)
    pose = Pose(x=x, y=y, size=random.uniform(0.18, 0.25) * high, turn=random.uniform(-40, 40))
    draw_hand(image, hand, pose, random)
    return lit(image, random, noise=5).resize((1600, 1200), Image.Resampling.BILINEAR)


_Fingers = tuple[float, float, float, float, float]
_SIGNS: Mapping[str, tuple[_Fingers, float]] = {  # fingers, and how the hand is turned
    "A": ((0.9, 0, 0, 0, 0), 0),
    "B": ((0, 1, 1, 1, 1), 0),
    "C": ((1, 0.6, 0.6, 0.6, 0.6), 0),
    "D": ((0, 1, 0, 0, 0), 0),
    "E": ((0, 0, 0, 0, 0), 0),
    "F": ((0.7, 0, 1, 1, 1), 0),
    "G": ((1, 1, 0, 0, 0), -75),
    "H": ((0, 1, 1, 0, 0), -75),
    "I": ((0, 0, 0, 0, 1), 0),
}
_SIGNERS = 5


def write_sign_language(folder: Path, images: int, seed: int) -> None:
    """Writes a folder for each letter."""
    each = max(6, round(images / len(_SIGNS)))
    for letter, (fingers, turn) in _SIGNS.items():
        for number in range(1, each + 1):
            random = random_of(seed, letter, number)
            signer = _Person.of(int(random.integers(_SIGNERS)), seed)
            room = random_of(seed, "room", signer.number)
            image = backdrop(room, (224, 224), room.uniform(60, 230), blobs=8)
            hand = Hand(skin=signer.skin, fingers=fingers, breadth=signer.breadth, is_palmar=True)
            x, y = random.uniform((0.3, 0.45), (0.7, 0.75)) * 224
            size = random.uniform(0.13, 0.2) * 224
            pose = Pose(x=x, y=y, size=size, turn=turn + random.uniform(-25, 25))
            draw_hand(image, hand, pose, random)
            save(lit(image, random), folder / letter / f"{letter}{number:03d}.jpg")
