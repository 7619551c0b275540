"""What is written beside an exported network, read back."""

from pathlib import Path
from typing import Any

from partitioning import EXPORT, read_json


def read_export(folder: str | Path) -> dict[str, Any]:
    """What an exported network is; the network itself is `torch.export.load` of its `network.pt2`.

    Args:
        folder: Of one network, such as `networks/cifar10`.

    Returns:
        Its task and level, names of the classes in the order of its logits, input, parameters,
        macs and use, and the accuracy that it was checked with, of which split.

    Raises:
        FormatError: It was exported by an Apportion that wrote another version.
        DamagedFileError: What is written beside it is not JSON.
        OSError: There is no exported network.
    """
    path = Path(folder) / "network.json"
    description = read_json(path)
    EXPORT.check(description.get("version"), path)
    return description
