"""The model card: what a model is, how good it is, and how to use it, as a README in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpsearch.names import markdown
from hpsearch.results.words import headline, looks, score_rows, validation_text
from hpsearch.training.units import accuracy
from hpsearch.training.words import configuration

_FILES = {
    "model.pt": "the checkpoint: `hpsearch predict`, `hpsearch.load`",
    "model.pt2": "the same with normalisation, for PyTorch alone",
    "model.onnx": "the same for ONNX Runtime",
    "config.json": "all it takes to rebuild the model: classes, preprocessing, configuration",
    "image_hashes.npz": "hashes of the search's images, by which `hpsearch evaluate` knows them "
    "again; no image can be made of them, but who has an image can tell whether it was among them",
    "metrics.json": "the scores, for machines",
    "report.html": "the scores, for people",
    "confusion_matrix.csv": "rows are the true classes, columns the predicted ones",
    "confusion_matrix.png": "the same as a picture",
    "predictions.csv": "each test image: its name, true and predicted class, probabilities",
    "mistakes.png": "the most confident mistakes",
    "learning_curves.csv": "each epoch of the training",
    "learning_curves.png": "the same as a picture",
    "learning_curves_batches.csv": "each mini-batch's loss",
    "seeds.csv": "each of the seeds it was trained again with",
    "seeds.png": "their learning curves",
    "retrain.json": "the same for machines",
    "candidates.csv": "the configurations that were trained on folds, and how they fared",
    "candidates.png": "the same as a picture",
}
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
        *(f"- of the data: {markdown(note)}" for note in data.get("notes", ())),
        *(f"- wrong with the data: {markdown(error)}" for error in data.get("errors", ())),
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
        *(f"Note: {markdown(note)}\n" for note in metrics.get("notes", ())),
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
    if "model.pt2" in files:
        lines += program_use(data["images"])
    lines += [
        "## Files",
        "",
        *(f"- `{name}`: {_FILES[name]}" for name in files if name in _FILES),
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
        "With PyTorch and Pillow alone; normalisation is in model.pt2, you turn, cut and resize:",
        "",
        "    import json",
        "",
        "    import torch",
        "    from PIL import Image, ImageOps",
        "",
        '    photo = ImageOps.exif_transpose(Image.open("photo.jpg"))',
        f"    photo = photo.convert({'L' if channels == 1 else 'RGB'!r})",
        f"    photo = {fitted}",
        "    pixels = torch.frombuffer(bytearray(photo.tobytes()), dtype=torch.uint8)",
        '    model = torch.export.load("model.pt2").module()',
        f"    probabilities = model(pixels.reshape(1, {height}, {width}, {channels}))[0]",
        '    print(json.load(open("config.json"))["classes"][probabilities.argmax()])',
        "",
    ]
