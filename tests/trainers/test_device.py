"""Which device computes."""

import pytest
import torch

from trainers.device import DeviceError, resolve_device, slow_precision


def test_a_gpu_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceError, match="torch sees 0 CUDA devices"):
        resolve_device("cuda")
    assert resolve_device("auto").type == "cpu"


def test_emulated_precision_is_said() -> None:
    assert "compute.precision=fp32" in (slow_precision("bf16", "AVX2") or "")
    assert slow_precision("bf16", "AVX512") is None
    assert slow_precision("fp32", "AVX2") is None
