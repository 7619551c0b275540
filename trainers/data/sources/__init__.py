"""Where a task's images come from: one opener per kind of source, and their registry `SOURCES`.

Opening a split reads its labels only (one column, file names, one array), so that whatever is wrong
and can be seen without decoding an image is found before any compute. The pixels follow when asked.
"""

from collections.abc import Mapping

from trainers.data.sources.base import DataError, RawSplit, Request, Source
from trainers.data.sources.builtin import open_toy
from trainers.data.sources.folder import open_folder, whole_folder
from trainers.data.sources.hub import open_hub, probe_hub
from trainers.data.sources.npz import open_npz
from trainers.data.sources.parquet import open_parquet, whole_parquet

SOURCES: Mapping[str, Source] = {
    "toy": Source(summary="built in; path names the toy task", open=open_toy),
    "parquet": Source(
        summary="a folder of <split>.parquet files, or one file",
        open=open_parquet,
        whole=whole_parquet,
    ),
    "hub": Source(
        summary="a dataset of the Hugging Face Hub, or a local folder in its layout",
        open=open_hub,
        probe=probe_hub,
    ),
    "folder": Source(
        summary="a folder of <split>/<class>/<image> or <class>/<image> files",
        open=open_folder,
        whole=whole_folder,
    ),
    "npz": Source(
        summary="an npz file of <split>_images and <split>_labels arrays",
        open=open_npz,
        suffix=".npz",
    ),
}

__all__ = ["SOURCES", "DataError", "RawSplit", "Request", "Source"]
