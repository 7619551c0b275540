"""Exported networks as models of MLflow."""

import warnings
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import mlflow
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from partitioning import read_json

#: Code that a logged network is loaded with.
LOADER = Path(__file__).with_name("served.py")
#: What a logged network needs; MLflow asks for itself.
NEEDS = ("numpy", "torch")


def log_program(uri: str, run_id: str, network: Path, register: str | None) -> None:
    """Log an exported network to a run, under the name of its folder.

    Args:
        uri: Of MLflow's store.
        run_id: The run, which is left as RUNNING or FINISHED.
        network: Folder with network.pt2 and network.json.
        register: Also make it a version of this registered model.
    """
    about = read_json(network / "network.json")
    size = about["input"]["size"]
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, 3, size, size))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, len(about["classes"])))]),
    )
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:  # it says on the screen what it has done, and asks for hints of types that it can check
        with (
            redirect_stderr(StringIO()),
            warnings.catch_warnings(action="ignore"),
            mlflow.start_run(run_id=run_id),
        ):
            mlflow.pyfunc.log_model(
                name=network.name,
                python_model=str(LOADER),
                artifacts={"program": str(network / "network.pt2")},
                signature=signature,
                pip_requirements=list(NEEDS),
                registered_model_name=register,
                metadata={"classes": about["classes"]},
            )
    finally:
        mlflow.set_tracking_uri(before)
