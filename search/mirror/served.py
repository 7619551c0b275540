"""What MLflow loads a logged network with: code that it copies beside the network.

It needs MLflow, NumPy and torch, nothing of Apportion.
"""

from typing import Any

import numpy as np
import torch
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class Served(PythonModel):  # type: ignore[misc]
    """An exported network: raw images to logits."""

    def load_context(self, context: Any) -> None:
        """Load the program."""
        self._network = torch.export.load(context.artifacts["program"]).module()

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        """Map uint8 RGB images (B, 3, S, S) to logits (B, classes)."""
        images = torch.from_numpy(np.ascontiguousarray(model_input, dtype=np.uint8))
        with torch.no_grad():
            return self._network(images).numpy()


set_model(Served())
