"""The command line: `longsam`, or `python -m longsam`."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The words after `longsam`; None takes those of this process.

    Returns:
        The exit code: 0 done, 1 an error, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    try:
        from longsam.cli import program  # takes seconds (torch); Ctrl-C may come meanwhile

        return program.run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        print("longsam: stopped", file=sys.stderr)
        return 130
