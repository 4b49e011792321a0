"""The model of a command: its flags, how it is loaded, and its number format."""

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from longsam import LongVideoPredictor, build_long_video_predictor
from longsam.fleet.precision import DTYPES as DTYPES
from longsam.fleet.precision import computing_in as computing_in
from longsam.fleet.precision import dtype_on
from longsam.testing import load_predictor


def add_flags(parser: Any) -> None:
    model = parser.add_argument_group("the model")
    model.add_argument("--checkpoint", type=Path, metavar="FILE",
                       help="one of Meta's files, such as sam2.1_hiera_tiny.pt (none)")  # fmt: skip
    model.add_argument(
        "--config", metavar="NAME|FILE.yaml",
        help="tiny, small, base_plus, large, an upstream name such as sam2.1_hiera_t, or your own "
        "file (the released one that fits the checkpoint)",
    )  # fmt: skip
    model.add_argument(
        "--testing-model", action="store_true",
        help="the small model that comes with longsam; only good for `demo` videos (off)",
    )  # fmt: skip
    model.add_argument("--device", help="cuda, cuda:1, cpu, ... (cuda if there is a GPU, else cpu)")
    model.add_argument(
        "--dtype", choices=DTYPES,
        help="number format of the model (bfloat16 on a GPU that has it, as upstream's examples; "
        "else float32)",
    )  # fmt: skip


def check_flags(options: argparse.Namespace) -> None:
    """Refuse obvious mistakes before anything is loaded.

    Raises:
        ValueError: There is no model, or no such device.
    """
    if options.checkpoint is None and not options.testing_model:
        raise ValueError(
            "no model: give --checkpoint with one of Meta's files (https://github.com/"
            "facebookresearch/sam2#download-checkpoints), or --testing-model to try longsam."
        )
    try:
        device = torch.device(options.device or default_device(options))
    except RuntimeError:
        raise ValueError(
            f"--device is {options.device!r}; it must be cuda, cuda:1, cpu, ..."
        ) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device is cuda, but torch finds no GPU here; use --device cpu.")


def default_device(options: argparse.Namespace) -> str:
    """The testing model is as fast on a CPU."""
    return "cuda" if torch.cuda.is_available() and not options.testing_model else "cpu"


def load(options: argparse.Namespace, *, vos_optimized: bool = False) -> LongVideoPredictor:
    """Load the model that the flags name."""
    device = options.device or default_device(options)
    what = "the testing model" if options.testing_model else options.checkpoint
    with said(f"loading {what} on {device}", is_quiet=options.quiet):
        if options.testing_model:
            return load_predictor(device, vos_optimized=vos_optimized)
        return build_long_video_predictor(
            options.config, options.checkpoint, device=device, vos_optimized=vos_optimized
        )


def dtype_of(options: argparse.Namespace, device: torch.device) -> str:
    """The value of --dtype, or its default for the device."""
    return dtype_on(options.dtype, device)


@contextmanager
def said(what: str, *, is_quiet: bool) -> Iterator[None]:
    """Print that something began, how long it has been running, and how long it took."""
    if is_quiet:
        yield
        return
    began, is_over = time.perf_counter(), threading.Event()
    print(f"{what} ...", end="", file=sys.stderr, flush=True)

    def tick() -> None:
        while not is_over.wait(1):
            print(f"\r{what} ... {time.perf_counter() - began:.0f} s", end="", file=sys.stderr)
            sys.stderr.flush()

    ticking = threading.Thread(target=tick, daemon=True)
    if sys.stderr.isatty():
        ticking.start()
    try:
        yield
    except BaseException:
        is_over.set()
        print(file=sys.stderr)
        raise
    is_over.set()
    if ticking.is_alive():
        ticking.join()
        print(f"\r{what} ...", end="", file=sys.stderr)
    print(f" {time.perf_counter() - began:.1f} s", file=sys.stderr)
