"""The record of a study, an Optuna journal: the truth, written by one process at a time.

What is under way and not yet a candidate is kept in a log beside it.
"""

from search.record.journal import is_written
from search.record.record import (
    Contents,
    Record,
    RecordError,
    read_contents,
    read_record,
    require_no_writer,
    was_begun,
)
from search.record.writer import Writer

__all__ = [
    "Contents",
    "Record",
    "RecordError",
    "Writer",
    "is_written",
    "read_contents",
    "read_record",
    "require_no_writer",
    "was_begun",
]
