"""Wrong usage that argparse cannot see."""


class UsageError(ValueError):
    """Flags that do not go together; the exit code is 2, as for those that argparse refuses."""
