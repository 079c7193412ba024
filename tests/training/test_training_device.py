from __future__ import annotations

import pytest
import torch

from hpsearch.errors import ConfigError
from hpsearch.training.device import resolve_device


def test_cpu_is_the_cpu() -> None:
    assert resolve_device("cpu") == torch.device("cpu")


def test_auto_is_a_gpu_where_there_is_one() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device("auto").type == expected


@pytest.mark.parametrize("name", ["", "gpu", "tpu", "mps", "meta", "cuda:", "cuda:x", "cpu cuda"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown device") as caught:
        resolve_device(name)
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gpu_that_is_not_here_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'cuda:99' is not here"):
        resolve_device("cuda:99")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_cuda_has_a_number() -> None:
    assert resolve_device("cuda") == torch.device("cuda", 0)
