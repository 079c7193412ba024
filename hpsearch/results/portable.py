"""Models as programs that run where hpsearch is not: `torch.export` for torch alone, ONNX for
others. The preprocessing is part of them: images go in, probabilities come out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpsearch.data.dataset import FloatArray, ImageDataset, UInt8Array
from hpsearch.data.preprocessing import Preprocessing, cut_centre
from hpsearch.errors import CheckpointError
from hpsearch.files import write_whole
from hpsearch.results.inference import restore_model, run_model
from hpsearch.results.resampling import Resize
from hpsearch.training.checkpoint import Checkpoint

INPUT, OUTPUT = "images", "probabilities"
"""What input and output of an ONNX file are called."""
TOLERANCE = 1e-3
"""By how much a program's probabilities may differ from those of the model."""

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_CPU = torch.device("cpu")

Run = Callable[[UInt8Array], FloatArray]


class Program(nn.Module):
    """A model with all that comes before and after it.

    Args:
        model: in evaluation mode, on the CPU.
        image: height and width of the images that come.

    Shapes:
        input uint8 (n, height, width, channels), in the size and with the channels of the data set;
        output float32 (n, classes), probabilities.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, model: nn.Module, preprocessing: Preprocessing, image: tuple[int, int]
    ) -> None:
        super().__init__()
        size = preprocessing.full_size
        self.resize = None if image == size else Resize(image, size)
        self.model = model
        self._preprocessing = preprocessing
        exact = torch.tensor([preprocessing.mean, preprocessing.std], dtype=torch.float64)
        self.register_buffer("scale", (1 / exact[1]).float())
        self.register_buffer("shift", (-exact[0] / exact[1]).float())

    def forward(self, images: Tensor) -> Tensor:
        """As `hpsearch.data.batches.eval_batches` makes the model's input, for the CPU."""
        if self.resize is not None:
            images = self.resize(images.permute(0, 3, 1, 2).double()).permute(0, 2, 3, 1)
        if self._preprocessing.crop is not None:
            images = cut_centre(images, self._preprocessing.crop)
        pixels = images.float() / 255.0
        if images.shape[3] != self._preprocessing.channels:
            pixels = pixels.expand(-1, -1, -1, self._preprocessing.channels)
        normalised = torch.addcmul(self.shift, pixels, self.scale)
        logits: Tensor = self.model(normalised.permute(0, 3, 1, 2).contiguous())
        return logits.softmax(dim=1)


def write_program(path: Path, checkpoint: Checkpoint, *, sample: UInt8Array) -> None:
    """Writes the model as a program that runs with torch alone.

    `torch.export.load(path).module()` gives a function from images to probabilities, as `Program`
    is one, for any number of images from 1 on, on the CPU. It computes in float32, whatever the
    model was trained with. `classes.json` and `config.json` are extra files in it. It is read again
    to see that it does what the model does.

    Args:
        sample: uint8 (n, height, width, channels), images of the data set in its size.

    Raises:
        CheckpointError: the model is none that `torch.export` can take, or the program does not do
            the same.
    """
    exported = _exported(checkpoint, sample)
    try:
        with _quiet():
            buffer = io.BytesIO()
            texts = {f"{name}.json": text for name, text in _texts(checkpoint).items()}
            torch.export.save(exported, buffer, extra_files=texts)
            buffer.seek(0)
            program = torch.export.load(buffer).module()
    except Exception as error:  # whatever is in a model of the user's own
        raise _refused("torch.export", checkpoint, error) from None

    def run(images: UInt8Array) -> FloatArray:
        with torch.inference_mode():
            probabilities: FloatArray = program(torch.from_numpy(images)).double().numpy()
        return probabilities

    _check("torch.export", run, checkpoint, sample)
    write_whole(path, lambda temporary: _write(temporary, buffer.getbuffer()))


def write_onnx(path: Path, checkpoint: Checkpoint, *, sample: UInt8Array) -> None:
    """Writes the model as an ONNX file, which is one of `write_program`'s programs: its input is
    `images`, its output `probabilities`, and `classes` and `config` are in its metadata as JSON.
    It is run by onnxruntime to see that it does what the model does.

    Raises:
        CheckpointError: a package of the extra `onnx` is missing, the model is none that the
            exporter can take, or the file does not do the same.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise CheckpointError(
            f"ONNX needs the package {missing[0]}, which is not installed here: pip install "
            "'hpsearch[onnx]'"
        )
    import onnx
    import onnxruntime

    exported = _exported(checkpoint, sample)
    try:
        with _quiet():
            converted = torch.onnx.export(
                exported, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False
            )
            assert converted is not None  # noqa: S101 (only without dynamo)
            model = converted.model_proto
            _name_batch(model.graph)
            onnx.helper.set_model_props(model, _texts(checkpoint))
            content: bytes = model.SerializeToString()
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4  # it warns on stderr of what it makes faster
            session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
    except Exception as error:  # the exporter, protobuf and onnxruntime raise a dozen kinds
        raise _refused("torch.onnx.export", checkpoint, error) from None

    def run(images: UInt8Array) -> FloatArray:
        return np.asarray(session.run([OUTPUT], {INPUT: images})[0], dtype=np.float64)

    _check("ONNX", run, checkpoint, sample)
    write_whole(path, lambda temporary: _write(temporary, content))


def _exported(checkpoint: Checkpoint, sample: UInt8Array) -> torch.export.ExportedProgram:
    height, width = sample.shape[1:3]
    model = restore_model(checkpoint).requires_grad_(False)
    program = Program(model, checkpoint.preprocessing, (height, width)).eval()
    # An example of one image would make a program that takes one image.
    example = torch.from_numpy(np.concatenate([sample[:1], sample[:1]]))
    batch = torch.export.Dim("batch", min=1)
    try:
        with _quiet(), torch.no_grad():
            return torch.export.export(program, (example,), dynamic_shapes=({0: batch},))
    except Exception as error:  # whatever is in a model of the user's own
        raise _refused("torch.export", checkpoint, error) from None


def _check(tool: str, run: Run, checkpoint: Checkpoint, sample: UInt8Array) -> None:
    """Refuses a program that does not do what the model does: for one image, and for several."""
    expected = _by_model(checkpoint, sample)
    for count in {1, len(sample)}:
        found = run(np.ascontiguousarray(sample[:count]))
        if found.shape != expected[:count].shape:
            raise CheckpointError(
                f"{tool} made a program that gives {found.shape} for {count} images, not "
                f"{expected[:count].shape}"
            )
        gap = float(np.abs(found - expected[:count]).max())
        # Of two classes that are as likely, either may be the first.
        chosen = np.take_along_axis(expected[:count], found.argmax(axis=1)[:, np.newaxis], axis=1)
        lost = float((expected[:count].max(axis=1) - chosen[:, 0]).max())
        if not gap <= TOLERANCE:
            raise CheckpointError(
                f"{tool} made a program that does not do what the model does: its probabilities "
                f"for {count} images differ by up to {gap:.3g}, of which {TOLERANCE:g} is allowed"
            )
        if not lost <= TOLERANCE / 100:
            raise CheckpointError(
                f"{tool} made a program that does not do what the model does: of {count} images it "
                f"gives one another class, which the model takes for less probable by {lost:.3g}, "
                f"of which {TOLERANCE / 100:g} is allowed"
            )


def _by_model(checkpoint: Checkpoint, images: UInt8Array) -> FloatArray:
    """Probabilities as the model itself gives them in float32: float64 (n, classes)."""
    config = dataclasses.replace(checkpoint.config, precision="fp32")
    labels = np.zeros(len(images), dtype=np.int64)
    dataset = ImageDataset("sample", images, labels, checkpoint.classes)
    outputs = run_model(
        restore_model(checkpoint),
        dataclasses.replace(checkpoint, config=config),
        dataset.part(),
        _CPU,
    )
    probabilities: FloatArray = outputs.logits.double().softmax(dim=1).numpy()
    return probabilities


def _texts(checkpoint: Checkpoint) -> dict[str, str]:
    about = {
        "family": checkpoint.config.family,
        "preprocessing": checkpoint.preprocessing.to_dict(),
        "config": checkpoint.config.to_dict(),
        "origin": dict(checkpoint.origin),
        "versions": dict(checkpoint.versions),
    }
    return {
        "classes": json.dumps(checkpoint.classes, ensure_ascii=False),
        "config": json.dumps(about, ensure_ascii=False),
    }


def _name_batch(graph: Any) -> None:
    """Calls the number of images n, where the exporter has a number of its own."""
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    del graph.value_info[:]  # sizes in between, which are found again when it is loaded
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == symbol:
                dim.dim_param = "n"


def _refused(tool: str, checkpoint: Checkpoint, error: Exception) -> CheckpointError:
    first: BaseException = error
    while first.__cause__ is not None:  # the exporter wraps what was wrong into general advice
        first = first.__cause__
    lines = str(first).strip().splitlines()
    reason = f"{type(first).__name__}: {lines[0][:200]}" if lines else type(first).__name__
    if "specialized it to be a constant" in str(error):
        reason = (
            "its code makes the number of images a fixed one, as len(images) does; "
            "images.shape[0] does not"
        )
    return CheckpointError(
        f"{tool} cannot take models of the family {checkpoint.config.family} ({reason})"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters print, warn and log what is of no use to anyone here."""
    disabled = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)


def _write(path: Path, content: bytes | memoryview) -> None:
    path.write_bytes(content)
