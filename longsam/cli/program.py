"""The commands of the command line, and how their errors and warnings are printed."""

import argparse
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from longsam import __version__
from longsam.cli import (
    app,
    correct,
    demo,
    evaluate,
    export,
    fleet,
    frame,
    info,
    preview,
    review,
    show,
    track,
)
from longsam.cli.usage import UsageError

EPILOG = """\
Try it without a checkpoint:

  longsam demo demo.mp4

With SAM 2.1 (checkpoints: https://github.com/facebookresearch/sam2#download-checkpoints):

  longsam info bees.mp4
  longsam frame bees.mp4 --at 0 --out frame.png
  longsam preview bees.mp4 --checkpoint sam2.1_hiera_tiny.pt --point 410,220:bee
  longsam track bees.mp4 --checkpoint sam2.1_hiera_tiny.pt --point 410,220:bee --out out
  longsam show out
  longsam correct out --point 410,220@120:bee
"""


def run(arguments: Sequence[str]) -> int:
    """Run a command; see `longsam.cli.main`."""
    parser = _Parser(
        prog="longsam",
        description="SAM 2 on video of any length, at constant memory.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"longsam {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (
        track,
        app,
        correct,
        preview,
        frame,
        info,
        review,
        show,
        export,
        fleet,
        evaluate,
        demo,
    ):
        command.add_parser(commands)
    options = parser.parse_args(_with_negative_numbers(arguments))
    options.arguments = list(arguments)  # to say how to resume
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        # Upstream warns on every machine without its compiled extension; it is harmless.
        warnings.filterwarnings("ignore", message="(?s).*Skipping the post-processing step")
        try:
            with _sigterm_as_ctrl_c():
                code: int = options.run(options)
        except (ValueError, RuntimeError, OSError, ImportError) as error:
            print(f"longsam: error: {_one_line(error)}", file=sys.stderr)
            return 2 if isinstance(error, UsageError) else 1
    return code


def _show_warning(message: Warning | str, *where: object) -> None:
    print(f"longsam: warning: {' '.join(str(message).split())}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """argparse's parser, with one-line errors."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM, which Slurm and Docker send, end a command like Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _with_negative_numbers(arguments: Sequence[str]) -> list[str]:
    """`--point -5,263` as `--point=-5,263`: argparse takes -5,263 for an option of its own."""
    joined: list[str] = []
    for word in arguments:
        if re.match(r"-\.?\d", word) and joined and re.fullmatch(r"--[a-z-]+", joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror[0].lower()}{error.strerror[1:]}."
    return " ".join(str(error).split()) or type(error).__name__
