"""``python -m viewloom``."""

import sys

from viewloom.cli import main

if __name__ == "__main__":
    sys.exit(main())
