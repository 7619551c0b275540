"""What is written beside an exported network, read back."""

import json
from pathlib import Path
from typing import Any

from partitioning import EXPORT


def read_export(folder: str | Path) -> dict[str, Any]:
    """What an exported network is; the network itself is `torch.export.load` of its `network.pt2`.

    Args:
        folder: Of one network, such as `networks/cifar10`.

    Returns:
        Its task and level, names of the classes in the order of its logits, input, parameters,
        macs and use, and the accuracy that it was checked with, of which split.

    Raises:
        FormatError: It was exported by an Apportion that wrote another version.
        OSError: There is no exported network.
    """
    path = Path(folder) / "network.json"
    description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    EXPORT.check(description.get("version"), path)
    return description
