"""What the model card tells a user to type does what hpsearch does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from handmade import COLOURS, colour_checkpoint, plain, write_export
from PIL import Image

from hpsearch.results.card import program_use
from hpsearch.results.portable import write_program
from hpsearch.results.predictor import load


@pytest.mark.parametrize(("fit", "expected"), [("crop", "green"), ("pad", "red")])
def test_its_code_gives_the_class_that_predict_gives(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fit: str,
    expected: str,
) -> None:
    """Of a photo that is stored on its side: red at both ends, green in the middle."""
    checkpoint = colour_checkpoint()
    folder = write_export(tmp_path / "out", checkpoint, fit=fit)
    sample = np.stack([plain(colour) for colour in COLOURS])
    write_program(folder / "model.pt2", checkpoint, sample=sample)
    ends = plain("red", 60, 40)
    photo = Image.fromarray(np.concatenate([ends, plain("green", 60, 60), ends], axis=1))
    exif = photo.getexif()
    exif[0x0112] = 6
    photo.save(folder / "photo.jpg", exif=exif)
    images = {"height": 4, "width": 4, "channels": 3, "fit": fit}
    code = "\n".join(line[4:] for line in program_use(images)[1:])
    monkeypatch.chdir(folder)
    exec(code, {})
    printed = capsys.readouterr().out.strip()
    assert printed == load(folder, device="cpu").predict("photo.jpg")[0].label == expected


def test_its_code_lays_what_is_transparent_over_white(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Red that nobody sees, with a little green."""
    checkpoint = colour_checkpoint()
    folder = write_export(tmp_path / "out", checkpoint)
    write_program(folder / "model.pt2", checkpoint, sample=plain("red")[np.newaxis])
    clear = np.dstack([plain("red", 8, 8), np.zeros((8, 8), dtype=np.uint8)])
    clear[:2] = (*plain("green")[0, 0], 255)
    Image.fromarray(clear).save(folder / "photo.jpg", format="PNG")
    images = {"height": 4, "width": 4, "channels": 3, "fit": "crop"}
    code = "\n".join(line[4:] for line in program_use(images)[1:])
    monkeypatch.chdir(folder)
    exec(code, {})
    printed = capsys.readouterr().out.strip()
    assert printed == load(folder, device="cpu").predict("photo.jpg")[0].label == "green"


def test_its_code_takes_gray_images_that_are_stretched() -> None:
    images = {"height": 8, "width": 6, "channels": 1, "fit": "stretch"}
    code = "\n".join(program_use(images))
    assert "photo).convert('L')" in code
    assert "photo.resize((6, 8), Image.Resampling.BILINEAR)" in code
    assert "reshape(1, 8, 6, 1)" in code
