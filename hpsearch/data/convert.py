"""From any source to one HDF5 file of ours (see `hpsearch.data.hdf5`)."""

from __future__ import annotations

import dataclasses
import os
import time
from importlib import metadata
from pathlib import Path

from hpsearch.data.catalog import BadImage, Catalog, check_catalog
from hpsearch.data.dataset import PARTS, ImageShape
from hpsearch.data.decode import decode_catalog
from hpsearch.data.hdf5 import ImageFileWriter, image_file
from hpsearch.data.progress import Clock, Watch
from hpsearch.data.readers import is_folder, is_there
from hpsearch.data.sources import open_catalog
from hpsearch.data.sources.hdf5 import SUFFIXES
from hpsearch.data.spec import DataSpec
from hpsearch.data.store import check_space
from hpsearch.data.target import target_of
from hpsearch.errors import DataError
from hpsearch.files import write_whole

# Besides the pixels: labels, and texts, which are packed.
_BYTES_AN_IMAGE = 64


@dataclasses.dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        images: how many.
        skipped: those that cannot be read, and were left out.
        shape: of each image.
        seconds: that it took.
        notes: what was guessed, in words.
    """

    path: Path
    images: int
    skipped: tuple[BadImage, ...]
    shape: ImageShape
    classes: tuple[str, ...]
    seconds: float
    notes: tuple[str, ...]


def convert(
    spec: DataSpec,
    out: Path,
    *,
    replace: bool = False,
    workers: int | None = None,
    watch: Watch | None = None,
) -> Converted:
    """Decodes all images of a source into one HDF5 file, which appears whole or not at all.

    The same source gives the same file. A few chunks are in memory, whatever its size.

    Args:
        replace: an existing file.
        workers: threads that decode; by default one for each core.
        watch: is told how far it has come.

    Raises:
        DataError: the source cannot be read, or the file not written.
        UnreadableImagesError: some images cannot be read, and `spec` does not say to skip them,
            or none can.
    """
    _check_out(spec, out, replace)
    return convert_catalog(open_catalog(spec), spec, out, workers=workers, watch=watch)


def convert_catalog(
    catalog: Catalog,
    spec: DataSpec,
    out: Path,
    *,
    workers: int | None = None,
    watch: Watch | None = None,
) -> Converted:
    """As `convert`, of images that are listed already; replaces an existing file."""
    began = time.perf_counter()
    check_catalog(catalog)
    watch = watch or (lambda _: None)
    watch(Clock("looking at the files", len(catalog)).at(0))
    target, notes = target_of(catalog, spec)
    images, bad = 0, list[BadImage]()

    def write(temporary: Path) -> None:
        nonlocal images, bad
        with image_file(temporary, len(catalog), target.shape) as writer:
            skip = spec.on_error == "skip"
            kept, bad = decode_catalog(
                catalog,
                target,
                writer.add,
                what="converting",
                skip=skip,
                workers=workers,
                watch=watch,
            )
            images = len(kept)
            _describe(kept, spec, writer)

    try:
        each = target.shape.nbytes + _BYTES_AN_IMAGE
        check_space(out.parent, len(catalog) * each, "write to another folder")
        write_whole(out, write)
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror or error})") from None
    return Converted(
        path=out,
        images=images,
        skipped=tuple(bad),
        shape=target.shape,
        classes=catalog.classes,
        seconds=time.perf_counter() - began,
        notes=(*catalog.notes, *notes),
    )


def _check_out(spec: DataSpec, out: Path, replace: bool) -> None:
    if out.suffix.lower() not in SUFFIXES:
        raise DataError(f"{out}: the file to write must end in .h5")
    if not is_folder(out.parent):
        raise DataError(f"{out}: cannot be written: there is no folder {out.parent}; make it first")
    if not os.path.lexists(out):
        return
    source = Path(spec.source)
    if is_there(source) and source.samefile(out):
        raise DataError(f"{out}: is the source itself; write to another file")
    if not replace:
        raise DataError(f"{out}: exists already; replace it with --force, or name another file")
    if not out.is_file():
        raise DataError(f"{out}: is no file, and cannot be replaced by one; name another file")


def _describe(catalog: Catalog, spec: DataSpec, writer: ImageFileWriter) -> None:
    texts = {"classes": catalog.classes, "names": catalog.names}
    if catalog.groups is not None:
        texts["groups"] = catalog.groups
    if catalog.official is not None:
        words = [*PARTS, ""]  # NO_PART, -1, is the last
        texts["splits"] = [words[part] for part in catalog.official.tolist()]
    writer.finish(
        catalog.labels,
        texts,
        catalog.columns,
        catalog.class_parts,
        {
            "source": catalog.name,
            "fit": spec.fit,
            "made_by": f"hpsearch {metadata.version('hpsearch')}",
        },
    )
