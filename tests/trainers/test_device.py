"""Which device computes."""

import pytest
import torch

from trainers.device import DeviceError, resolve_device


def test_a_gpu_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceError, match="torch sees 0 CUDA devices"):
        resolve_device("cuda")
    assert resolve_device("auto").type == "cpu"
