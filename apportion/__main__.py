"""`python -m apportion`: the command line."""

import sys

from search.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
