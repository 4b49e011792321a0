"""Wrong usage that argparse cannot see."""


class UsageError(ValueError):
    """Flags that cannot be combined; the exit code is 2, as for those that argparse refuses."""
