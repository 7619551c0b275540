"""What MLflow loads a logged network with: code that it copies beside the network.

It needs MLflow, NumPy and torch, nothing of Apportion.
"""

import numpy as np
import torch
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


class Served(PythonModel):  # type: ignore[misc]
    """An exported network: raw images to logits."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the program."""
        self._network = torch.export.load(context.artifacts["program"]).module()

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: object = None
    ) -> np.ndarray:
        """Map uint8 RGB images (B, 3, S, S) to logits (B, classes)."""
        images = torch.from_numpy(np.ascontiguousarray(model_input, dtype=np.uint8))
        with torch.no_grad():
            logits: torch.Tensor = self._network(images)
        return logits.numpy()


set_model(Served())
