"""A command line from beginning to end: read, run, and its errors put into a line."""

import os
import sys
from collections.abc import Sequence

from search.cli.parser import build_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The command line without the program's name; None takes the process's own.

    Returns:
        The exit status: 0 when the command did what was asked, 1 when `doctor` found something
        broken, 2 when it could not be done, 130 when it was interrupted.
    """
    options = build_parser().parse_args(arguments)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        status: int = options.run(options) or 0
    except KeyboardInterrupt:
        print("interrupted" + options.interrupted, file=sys.stderr)
        return 130
    except (ValueError, RuntimeError, OSError, ArithmeticError) as error:
        if os.environ.get("APPORTION_DEBUG"):
            raise
        print(f"apportion: {error}", file=sys.stderr)
        return 2
    return status
