"""Why something on the cluster failed, in a line."""

from ray.exceptions import (
    ActorDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayTaskError,
    WorkerCrashedError,
)


def cause(error: BaseException) -> BaseException:
    """What was raised in the first place, of an error that Ray and Tune have wrapped."""
    while isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        error = error.cause
    return error


def reason(error: BaseException) -> str:
    """The first error in a line, with what to do where Ray does not say it."""
    error = cause(error)
    lines = str(error).strip().splitlines() or [""]
    if isinstance(error, OutOfMemoryError):
        return (
            "a worker was ended as the memory was used up; lower schedule.evaluators or "
            "proxy.images, or give the machine more memory"
        )
    if isinstance(error, ActorDiedError | WorkerCrashedError | NodeDiedError):
        raised = "creation task" in lines[0]  # by ours, at the end of a traceback
        return lines[-1] if raised else f"a worker process died: {lines[0]}"
    # The last line of a text with a traceback, the first of any other.
    text = lines[-1] if "Traceback" in str(error) else lines[0]
    known = isinstance(error, ValueError | RuntimeError | OSError) and text
    return text if known else f"{type(error).__name__}: {text}"
