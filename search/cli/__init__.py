"""The command line: apportion COMMAND, of which `apportion --help` prints the list.

The words of every command are in one module, what it does in another, and what is printed of a
front or of a training in a third.
"""

from search.cli.entry import main
from search.cli.parser import build_parser

__all__ = ["build_parser", "main"]
