"""The model card: what a model is, how good it is, and how to use it, as a README in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpsearch.names import markdown
from hpsearch.results.folder import CONFIG, FILES, PROGRAM
from hpsearch.results.words import headline, looks, score_rows, validation_text
from hpsearch.training.units import accuracy
from hpsearch.training.words import configuration

_MOST_CLASSES = 30


def model_card(metrics: Mapping[str, Any], *, title: str, files: Sequence[str]) -> str:
    """The card of a model.

    Args:
        metrics: the content of its `metrics.json`.
        title: such as "digits, cnn-7".
        files: what lies beside it.
    """
    config, shape = metrics["config"], metrics["preprocessing"]
    data, test = metrics["data"], metrics["test"]
    classes = list(test["classes"])
    shown = ", ".join(markdown(name) for name in classes[:_MOST_CLASSES])
    more = f" and {len(classes) - _MOST_CLASSES} more" if len(classes) > _MOST_CLASSES else ""
    best, images = headline(metrics)
    low, high = best["accuracy_95"]
    counts = data["counts"]
    lines = [
        f"# {markdown(title)}",
        "",
        f"Tells {len(classes)} classes of images apart: {shown}{more}.",
        "",
        f"- model: {markdown(config['family'])}, {metrics['parameters']:,} parameters, input "
        f"{shape['height']}x{shape['width']}x{shape['channels']}",
        f"- started from: {markdown(_start(config))}",
        f"- data: {markdown(data['name'])}, {counts['train']:,} training, {counts['val']:,} "
        f"validation and {counts['test']:,} test images",
        *(f"- of the data: {markdown(note)}" for note in data["notes"]),
        *(f"- wrong with the data: {markdown(error)}" for error in data["errors"]),
        f"- origin: {markdown(metrics['chosen'])}",
        f"- validation accuracy: {validation_text(metrics)}",
        "",
        "## What to expect",
        "",
        f"**{accuracy(best['accuracy'])}** of {markdown(images)} were classified right (95 % "
        f"interval {accuracy(low)} to {accuracy(high)}, {best['interval']}). "
        f"{looks(metrics['test_split_opened'])}",
        "",
        f"| on {'the' if best is test else 'all'} test images | |",
        "|---|---:|",
        *(f"| {markdown(name)} | {markdown(value)} |" for name, value in score_rows(test)),
        "",
        "This holds for images like those of the data: of other cameras, places or people it may "
        "do worse, and it gives one of its classes to any image at all.",
        "",
        *(f"Note: {markdown(note)}\n" for note in metrics["notes"]),
        "## Use",
        "",
        "    hpsearch predict . photo.jpg folder/",
        "",
        "    import hpsearch",
        "",
        '    model = hpsearch.load(".")',
        '    print(model.predict("photo.jpg"))',
        "",
    ]
    if PROGRAM in files:
        lines += program_use(data["images"])
    lines += [
        "## Files",
        "",
        *(f"- `{name}`: {FILES[name]}" for name in files if name in FILES),
        "",
        "## Training",
        "",
        *(f"- {name}: {markdown(value)}" for name, value in configuration(config)),
        "",
        "Versions: "
        + ", ".join(f"{name} {version}" for name, version in metrics["versions"].items())
        + ".",
        "",
    ]
    return "\n".join(lines)


def _start(config: Mapping[str, Any]) -> str:
    """The weights that training started from, by the name that they have without their folder."""
    weights = config.get("weights")
    if not weights:
        return "random weights"
    return f"{Path(weights['source']).name} (SHA-256 {weights['sha256'][:16]})"


def program_use(images: Mapping[str, Any]) -> list[str]:
    """How to use the model with PyTorch alone, from a picture file on.

    Args:
        images: what pictures are brought to, as in `config.json`.
    """
    height, width, channels = (images[side] for side in ("height", "width", "channels"))
    size = f"({width}, {height}), Image.Resampling.BILINEAR"
    fitted = {
        "crop": f"ImageOps.fit(photo, {size})",
        "pad": f"ImageOps.pad(photo, {size})",
        "stretch": f"photo.resize({size})",
    }[images["fit"]]
    return [
        "With PyTorch and Pillow alone, for pictures of 8 bits; normalisation is in "
        f"{PROGRAM}, you turn, cut and resize:",
        "",
        "    import json",
        "",
        "    import torch",
        "    from PIL import Image, ImageOps",
        "",
        '    photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGBA")',
        '    white = Image.new("RGBA", photo.size, "white")  # shows where it is transparent',
        "    photo = Image.alpha_composite(white, photo)"
        f".convert({'L' if channels == 1 else 'RGB'!r})",
        f"    photo = {fitted}",
        "    pixels = torch.frombuffer(bytearray(photo.tobytes()), dtype=torch.uint8)",
        f'    model = torch.export.load("{PROGRAM}").module()',
        f"    probabilities = model(pixels.reshape(1, {height}, {width}, {channels}))[0]",
        f'    print(json.load(open("{CONFIG}"))["classes"][probabilities.argmax()])',
        "",
    ]
