"""What `ray submit cluster.yaml search/run.py -- --config CONFIG` runs: `apportion search`.

It also works when this file alone has been copied to a machine on which Apportion is installed.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

#: Seconds that what is left to be said has before the terminal is closed.
MOMENT = 1.0


def outlived(work: Callable[[], int]) -> int:
    """Run something in a process of its own, and wait a moment where it fails.

    Ray ends a process at once when the Ray on its machine is gone; ssh then closes the terminal.

    Returns:
        The exit status, as a shell has it.
    """
    ending = {signal.SIGINT, signal.SIGHUP, signal.SIGTERM}
    # Signals are waited for, not handled: one that came just before a wait would not end it.
    signal.pthread_sigmask(signal.SIG_BLOCK, ending | {signal.SIGCHLD})
    signal.signal(signal.SIGCHLD, lambda *_: None)
    child = os.fork()
    if not child:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ending | {signal.SIGCHLD})
        return work()
    while True:
        number = signal.sigwait(ending | {signal.SIGCHLD})
        if number in ending:  # what a terminal sends to both comes twice, and is heeded once
            os.kill(child, number)
            continue
        ended, code = os.waitpid(child, os.WNOHANG)
        if ended:
            break
    status = os.waitstatus_to_exitcode(code)
    if status:
        time.sleep(MOMENT)
    return status if status >= 0 else 128 - status


def run() -> int:
    """Run `apportion search` with this process's arguments."""
    here = Path(__file__).resolve().parent
    if (here.parent / "apportion" / "__init__.py").is_file():
        # Python put this file's folder first on the path, where its neighbours would pass for
        # top-level modules; the project's root belongs there.
        sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
        sys.path.insert(0, str(here.parent))
    try:
        from apportion.__main__ import main
    except ModuleNotFoundError as error:
        print(
            f"apportion is not installed for {sys.executable} ({error}); install it there, for "
            "example with: pip install -c constraints.txt -e .",
            file=sys.stderr,
        )
        return 2
    arguments = sys.argv[1:]
    if arguments[:1] == ["--"]:
        arguments = arguments[1:]
    return main(["search", *rejoined(arguments)])


def rejoined(words: Sequence[str]) -> list[str]:
    """Arguments as they were typed: `ray submit` hands them over without their quotes.

    Example:
        >>> rejoined(["--set", "strategies={es:", "{},", "random:", "{}}", "--resume"])
        ['--set', 'strategies={es: {}, random: {}}', '--resume']
    """
    found: list[str] = []
    for word in words:
        if found[-2:-1] == ["--set"] and _is_open(found[-1]):
            found[-1] += f" {word}"
        else:
            found.append(word)
    return found


def _is_open(text: str) -> bool:
    """Whether a bracket of YAML is not closed yet."""
    return sum(map(text.count, "{[")) > sum(map(text.count, "}]"))


if __name__ == "__main__":
    sys.exit(outlived(run))
