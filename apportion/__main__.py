"""`python -m apportion`: the command line."""

import signal
import sys
import threading
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, see `search.cli.main`.

    Libraries take seconds to load. Until they are there Ctrl-C ends the process at once: nothing
    has been done, and in the middle of an import an exception would be a traceback.
    """
    handler = signal.getsignal(signal.SIGINT)
    loading = handler is signal.default_int_handler
    loading = loading and threading.current_thread() is threading.main_thread()
    if loading:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from search.cli import main as run

    if loading:
        signal.signal(signal.SIGINT, handler)
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
