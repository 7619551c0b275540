"""The record of a study, an Optuna journal: the truth, written by one process at a time.

What is under way and not yet a candidate is kept in a log beside it.
"""

from search.record.record import Record, RecordError, read_record, require_no_writer
from search.record.writer import Writer

__all__ = ["Record", "RecordError", "Writer", "read_record", "require_no_writer"]
