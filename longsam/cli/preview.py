"""`longsam preview`: the masks of the prompted frames, before hours are spent on tracking."""

import argparse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

from longsam import prompts
from longsam.cli import model, prompt_flags
from longsam.cli.drawing import mark
from longsam.frames import Frame, FrameSource, open_source
from longsam.masks import draw
from longsam.masks.ids import ObjectId

NEARLY_ALL = 0.9
"""A mask with more than this share of the frame gets a warning."""

MOST_AHEAD = 8
"""Frames held in their own size while the model loads."""

WIDTH = 1280
"""Pixels; wider frames are made smaller."""

EPILOG = """\
example:
  longsam preview bees.mp4 --checkpoint sam2.1_hiera_tiny.pt --point 410,220:bee --out preview.png
"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "preview",
        help="draw the masks of the prompted frames, before tracking",
        description="Draw the masks that the model makes from the prompts, with the prompts, each\n"
        "object's id, its area in pixels and how sure the model is that it is there (0 to 1).\n"
        "Prompts are written as for `longsam track`.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("video", help="a video file or a folder of images")
    prompt_flags.add_flags(parser)
    model.add_flags(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("preview.png"), metavar="FILE.png",
        help="the image (preview.png)",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="show no progress (off)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.out.suffix.lower() != ".png":
        raise ValueError(f"--out is {options.out}; its name must end in .png.")
    model.check_flags(options)
    grouped = prompt_flags.given(options)
    source = open_source(options.video, None)
    prompts.check(grouped, source)
    found = list(prompts.mistakes(grouped))
    with ThreadPoolExecutor(1) as reader:  # decoding far frames takes as long as loading the model
        prompted = sorted({frame_idx for _, frame_idx in grouped})
        ahead = reader.submit(_read, source, prompted[:MOST_AHEAD])
        predictor = model.load(options)
    dtype = model.dtype_of(options, predictor.device)
    masks: dict[int, dict[ObjectId, torch.Tensor]] = {}
    scores: dict[tuple[ObjectId, int], float] = {}
    with (
        model.computing_in(dtype, predictor.device),
        predictor.init_state(options.video) as state,
        model.said(f"encoding {len({f for _, f in grouped})} frame(s)", is_quiet=options.quiet),
    ):
        for obj_id, (frame_idx, obj_ids, logits) in prompts.add(predictor, state, grouped):
            mask = logits[obj_ids.index(obj_id), 0]
            masks.setdefault(frame_idx, {})[obj_id] = mask.float().cpu()
            logit = predictor.scores(state, frame_idx)[obj_id].object_score
            scores[obj_id, frame_idx] = float(torch.tensor(logit).sigmoid())
    tiles = []
    for frame_idx in sorted(masks):
        image = ahead.result().get(frame_idx)
        if image is None:
            image = _read(source, [frame_idx])[frame_idx]
        lines = []
        for obj_id, logits in masks[frame_idx].items():
            line, wrong = _said(obj_id, frame_idx, logits, scores[obj_id, frame_idx])
            lines.append(line)
            found += [wrong] if wrong else []
        given = [p for (_, frame), group in grouped.items() if frame == frame_idx for p in group]
        tiles.append(_tile(image, frame_idx, masks[frame_idx], given, lines))
        print("\n".join(f"frame {frame_idx}: {line}" for line in lines))
    source.close()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    _below_each_other(tiles).save(options.out)
    for mistake in found:
        print(f"check: {mistake}")
    print(f"{options.out}: {len(tiles)} frame(s)")
    return 0


def _read(source: FrameSource, frames: list[int]) -> dict[int, Frame]:
    """The prompted frames, in their own size."""
    read = {}
    for frame_idx in frames:
        (read[frame_idx],) = source.read(frame_idx, frame_idx + 1)
    return read


def _said(
    obj_id: ObjectId, frame_idx: int, logits: torch.Tensor, score: float
) -> tuple[str, str | None]:
    """A line about a mask, and warnings about it."""
    area, share = int((logits > 0).sum()), float((logits > 0).float().mean())
    line = f"object {obj_id}: {area:,} pixels, {100 * share:.1f} % of the frame"
    line += f", score {score:.2f}"
    where = f"object {obj_id}, frame {frame_idx}"
    if not area:
        return line, f"{where}: the mask is empty; move the point, or give a box."
    if share > NEARLY_ALL:
        return line, f"{where}: the mask covers nearly all of the frame; add --not-point, or a box."
    return line, None


def _tile(
    image: Frame,
    frame_idx: int,
    masks: dict[ObjectId, torch.Tensor],
    given: list[prompts.Prompt],
    lines: list[str],
) -> Image.Image:
    drawn = Image.fromarray(draw(image, masks, torch.stack(list(masks.values()))))
    mark(drawn, given)
    drawn.thumbnail((WIDTH, WIDTH))
    text = [f"frame {frame_idx}", *lines]
    width = max(drawn.width, 480)
    tile = Image.new("RGB", (width, drawn.height + 18 * len(text) + 8), (255, 255, 255))
    tile.paste(drawn, (0, 0))
    pen = ImageDraw.Draw(tile)
    for row, line in enumerate(text):
        pen.text((4, drawn.height + 2 + 18 * row), line, (0, 0, 0), font_size=14)
    return tile


def _below_each_other(tiles: list[Image.Image]) -> Image.Image:
    width, height = max(t.width for t in tiles), sum(t.height for t in tiles)
    sheet = Image.new("RGB", (width, height), (255, 255, 255))
    tops: Iterator[int] = iter([sum(t.height for t in tiles[:n]) for n in range(len(tiles))])
    for tile, top in zip(tiles, tops, strict=True):
        sheet.paste(tile, (0, top))
    return sheet
