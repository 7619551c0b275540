"""A command line from beginning to end: read, run, and its errors put into a line."""

import argparse
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from search.cli.parser import build_parser

#: Signals that end a command as Ctrl-C does: docker, SLURM and systemd send the first, a terminal
#: that is closed the second.
ENDING = (signal.SIGTERM, signal.SIGHUP)
#: Seconds after which one comes again that was dropped.
SOON = 0.05


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The command line without the program's name; None takes the process's own.

    Returns:
        The exit status: 0 when the command did what was asked, 1 when `doctor` found something
        broken, 2 when it could not be done, 128 and the signal's number when a signal ended it:
        130 is Ctrl-C, 143 SIGTERM, 141 a reader that went away, as `head` does.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):  # a letter that the terminal has not is no error
            stream.reconfigure(errors="backslashreplace")
    try:
        with _ended_by_signals() as received:
            return _run(arguments, received)
    except OSError as error:  # of the output: its reader went away, or its disk is full
        is_gone = isinstance(error, BrokenPipeError)
        if os.environ.get("APPORTION_DEBUG") and not is_gone:
            raise
        # What is left to be written goes nowhere, or Python would complain of it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if is_gone:
            return 128 + signal.SIGPIPE
        print(f"apportion: the output cannot be written: {error.strerror}", file=sys.stderr)
        return 2


def _run(arguments: Sequence[str] | None, received: Sequence[int]) -> int:
    options = argparse.Namespace(interrupted="")
    try:
        try:
            build_parser().parse_args(arguments, options)
        finally:
            sys.stdout.flush()  # of a help that nobody reads to its end
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        with _ended_at_once():
            from search.cli import actions
        with _last_words(options.interrupted):
            status: int = getattr(actions, f"run_{options.command}")(options) or 0
    except KeyboardInterrupt:
        number = signal.Signals(received[0] if received else signal.SIGINT)
        what = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
        print(what + options.interrupted, file=sys.stderr)
        return 128 + number
    except BrokenPipeError:
        if options.interrupted:
            print("nobody reads the output" + options.interrupted, file=sys.stderr)
        raise
    except Exception as error:
        if os.environ.get("APPORTION_DEBUG"):
            raise
        from search.config import without_passwords

        print(f"apportion: {without_passwords(_in_words(error))}", file=sys.stderr)
        return 2
    sys.stdout.flush()
    return status


@contextmanager
def _last_words(known: str) -> Iterator[None]:
    """Have another process say what is known where this one ends without a word.

    Ray ends it so, at once, when the Ray on its machine is gone.
    """
    if not known:
        yield
        return
    script = "trap '' INT TERM HUP; read -r _ || printf '%s\\n' \"$0\" >&2"
    words = f"apportion: this process was killed, or Ray ended it, as it is gone from here{known}"
    watch = subprocess.Popen(["sh", "-c", script, words], stdin=subprocess.PIPE)
    try:
        yield
    finally:
        watch.communicate(b"\n")


def _in_words(error: Exception) -> str:
    """An error's text; of one that nobody expected also what it is, and how to see more."""
    if isinstance(error, ValueError | RuntimeError | OSError | ArithmeticError) and str(error):
        return str(error)
    lines = str(error).strip().splitlines() or ["no more is known"]
    return f"{type(error).__name__}: {lines[-1]} (APPORTION_DEBUG=1 shows where it came from)"


@contextmanager
def _ended_by_signals() -> Iterator[list[int]]:
    """Signals that ask a process to end do what Ctrl-C does, once, unless they are ignored.

    Python drops what is raised while it deletes an object; such a signal, or Ctrl-C, comes again.

    Yields:
        Those that came; what they raise does not say, as Ray raises it anew.
    """
    received: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    def lost(ignored: "sys.UnraisableHookArgs") -> None:
        if ignored.exc_type is not KeyboardInterrupt:
            hook(ignored)
            return
        number = received.pop() if received else signal.SIGINT
        if number in before:
            signal.signal(number, end)
        threading.Timer(SOON, os.kill, (os.getpid(), number)).start()

    before: dict[int, Any] = {}
    hook = sys.unraisablehook
    if threading.current_thread() is threading.main_thread():
        sys.unraisablehook = lost
        found = {number: signal.getsignal(number) for number in ENDING}
        before = {n: handler for n, handler in found.items() if handler == signal.SIG_DFL}
    for number in before:
        signal.signal(number, end)
    try:
        yield received
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            # What Ray does at Python's end must not be cut short by a second signal.
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, handler)


@contextmanager
def _ended_at_once() -> Iterator[None]:
    """Signals end the process as if nobody handled them, while libraries load and nothing is done.

    In the middle of an import an exception would be a traceback.
    """
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        found = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING)}
        handlers = {number: handler for number, handler in found.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
