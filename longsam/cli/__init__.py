"""The command line: `longsam`, or `python -m longsam`."""

import argparse
import sys
import warnings
from collections.abc import Sequence

from longsam import __version__
from longsam.cli import demo, info, show, track

EPILOG = """\
Try it without a checkpoint:

  longsam demo demo.mp4

With SAM 2.1 (checkpoints: https://github.com/facebookresearch/sam2#download-checkpoints):

  longsam info bees.mp4
  longsam track bees.mp4 --checkpoint sam2.1_hiera_tiny.pt --point 410,220 --out out
  longsam show out
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code: 0 done, 1 an error, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    parser = argparse.ArgumentParser(
        prog="longsam",
        description="SAM 2 on video of any length, at constant memory.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"longsam {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (track, info, show, demo):
        command.add_parser(commands)
    options = parser.parse_args(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        # Upstream says so on every machine without its compiled extension; it does no harm.
        warnings.filterwarnings("ignore", message="(?s).*Skipping the post-processing step")
        try:
            code: int = options.run(options)
        except KeyboardInterrupt:
            print("longsam: stopped", file=sys.stderr)
            return 130
        except (ValueError, RuntimeError, OSError, ImportError) as error:
            print(f"longsam: error: {_one_line(error)}", file=sys.stderr)
            return 1
    return code


def _show_warning(message: Warning | str, *where: object) -> None:
    print(f"longsam: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
