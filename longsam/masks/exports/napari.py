"""OME-Zarr labels: `labels.ome.zarr`, time x height x width; napari reads only what it shows.

The first axis is the frame's index, so frames without masks are 0. Overlapping masks are handled as
in DAVIS's images. `napari labels.ome.zarr` needs the plugin napari-ome-zarr.
"""

from pathlib import Path
from typing import Any

import numpy as np

from longsam.masks.exports.source import Source, labels_of
from longsam.masks.formats import davis_palette

FILE = "labels.ome.zarr"

_CHUNK_BYTES = 1 << 24
"""Size of labels read at once, unpacked; on disk they take a hundredth of it."""

_MOST_FRAMES = 64
"""Frames in a chunk."""


def write(source: Source, folder: Path) -> None:
    """Write the masks; see `longsam.masks.exports.export`."""
    try:
        import zarr
    except ImportError as error:
        raise ImportError('OME-Zarr needs zarr: `pip install "longsam[export]"`.') from error
    height, width = source.size
    frames = source.folder.frames
    highest = max(source.numbers.values(), default=0)
    kind: Any = next(k for k in (np.uint8, np.uint16, np.uint32) if highest <= np.iinfo(k).max)
    per_chunk = _CHUNK_BYTES // (height * width * np.dtype(kind).itemsize)
    per_chunk = max(1, min(_MOST_FRAMES, per_chunk))
    group = zarr.open_group(str(folder / FILE), mode="w", zarr_format=2)
    array: Any = group.create_array(
        "0",
        shape=((frames[-1] + 1) if frames else 0, height, width),
        chunks=(per_chunk, height, width),
        dtype=kind,
        fill_value=0,
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )
    block = np.zeros((per_chunk, height, width), kind)
    number = 0

    def flush() -> None:
        start = number * per_chunk
        stop = min(start + per_chunk, array.shape[0])
        array[start:stop] = block[: stop - start]
        block[:] = 0

    for frame in source:
        if frame.line.frame_idx // per_chunk != number:
            flush()
            number = frame.line.frame_idx // per_chunk
        block[frame.line.frame_idx % per_chunk] = labels_of(frame, source.numbers, kind)
    if frames:
        flush()
    group.attrs.update(_metadata(source))


def _metadata(source: Source) -> dict[str, Any]:
    """OME-Zarr 0.4's metadata, for labels without an image."""
    axes = [{"name": "t", "type": "time"}, *({"name": n, "type": "space"} for n in "yx")]
    whole = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0] * 3}]}
    labels, palette = source.labels(), davis_palette()
    colours = [
        {"label-value": n, "rgba": [*palette[(n - 1) % 255 + 1].tolist(), 255]} for n in labels
    ]
    ids = [{"label-value": n, "id": text} for n, text in labels.items()]
    return {
        "multiscales": [{"version": "0.4", "name": "labels", "axes": axes, "datasets": [whole]}],
        "image-label": {"version": "0.4", "colors": colours, "properties": ids},
    }
