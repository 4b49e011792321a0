"""`python -m longsam`."""

import sys

from longsam.cli import main

sys.exit(main())
