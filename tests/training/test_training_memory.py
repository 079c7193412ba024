from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hpsearch.training.memory import PeakMemory, is_out_of_memory, keep_freed_memory, release_memory

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks at Linux' numbers of a process")
GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="is for the GNU C library")


class TestRecognising:
    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
            MemoryError(),
            RuntimeError("could not create a memory object"),
            RuntimeError("could not create a primitive"),
            RuntimeError("std::bad_alloc"),
            RuntimeError(
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"
            ),
            RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
        ],
        ids=repr,
    )
    def test_what_says_that_memory_was_short(self, error: Exception) -> None:
        assert is_out_of_memory(error)

    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
            RuntimeError("could not create a primitive descriptor for a convolution"),
            RuntimeError("CUDA error: device-side assert triggered"),
            RuntimeError(""),
            ValueError("can't allocate memory"),
            OSError("Cannot allocate memory"),
            KeyboardInterrupt(),
        ],
        ids=repr,
    )
    def test_what_says_something_else(self, error: BaseException) -> None:
        assert not is_out_of_memory(error)

    def test_more_than_any_computer_has(self) -> None:
        with pytest.raises(RuntimeError) as caught:
            torch.empty(2**50)
        assert is_out_of_memory(caught.value)
        with pytest.raises(MemoryError) as python:
            bytearray(2**62)
        assert is_out_of_memory(python.value)


LIMITED = """
import resource
import torch
from torch import nn
from hpsearch.training.memory import is_out_of_memory

torch.set_num_threads(1)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()

def failures(width, n, size):
    model = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(width, 3),
    ).to(memory_format=torch.channels_last)
    images = torch.randn(n, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(n, dtype=torch.int64)
    count = 0
    for more in range(0, 40, 2):
        resource.setrlimit(resource.RLIMIT_AS, (used + more * 2**20, resource.RLIM_INFINITY))
        try:
            nn.functional.cross_entropy(model(images), labels).backward()
            error = None
        except Exception as raised:
            error = raised
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        if error is not None:
            count += 1
            assert is_out_of_memory(error), repr(error)
    return count

print(failures(512, 2, 8), failures(64, 64, 64))
"""


@LINUX
def test_a_real_step_that_runs_out_of_memory() -> None:
    # Wherever it fails: in oneDNN, which has words of its own for it, or in torch's allocator.
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    many_kernels, large_maps = map(int, done.stdout.split())
    assert many_kernels > 0
    assert large_maps > 0


KEPT = """
import resource
import torch
from hpsearch.training.memory import keep_freed_memory, release_memory

def megabytes():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20

def use_and_free():
    torch.ones(50 * 2**20)

use_and_free()
before = megabytes()
use_and_free()
given_back = megabytes() - before
keep_freed_memory()
use_and_free()
kept = megabytes() - before
release_memory(torch.device("cpu"))
print(given_back, kept, megabytes() - before)
"""


@LINUX
@GLIBC
def test_freed_memory_is_kept_until_it_is_released() -> None:
    done = subprocess.run(
        [sys.executable, "-c", KEPT], capture_output=True, text=True, timeout=120, check=True
    )
    given_back, kept, released = map(float, done.stdout.split())
    assert given_back < 50
    assert kept > 150  # of 200
    assert released < 50


def test_other_systems_have_no_such_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    keep_freed_memory()
    release_memory(torch.device("cpu"))


def test_other_c_libraries_have_none_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpsearch.training.memory._libc", lambda: object())
    keep_freed_memory()
    release_memory(torch.device("cpu"))


def test_an_old_c_library_gets_the_most_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    # Before 2.35 the GNU C library refuses more than 32 MiB, and keeps what it has then: 128 kB.
    given: dict[int, int] = {}

    class Old:
        @staticmethod
        def mallopt(name: int, value: int) -> int:
            if name == -3 and value > 2**25:
                return 0
            given[name] = value
            return 1

    monkeypatch.setattr("hpsearch.training.memory._libc", Old)
    keep_freed_memory()
    assert given[-3] == 2**25
    assert given[-1] > 2**30


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gets_its_memory_back() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    release_memory(device)
    before = torch.cuda.memory_reserved(device)
    tensor = torch.ones(100 * 2**20, device=device)
    assert torch.cuda.memory_reserved(device) > before
    del tensor
    assert torch.cuda.memory_reserved(device) > before
    release_memory(device)
    assert torch.cuda.memory_reserved(device) == before
    with pytest.raises(torch.OutOfMemoryError) as caught:
        torch.empty(2**44, device=device)
    assert is_out_of_memory(caught.value)


def test_the_peak_is_that_since_it_was_asked_for() -> None:
    device = torch.device("cpu")
    before = PeakMemory(device).mib()
    if before is None:
        pytest.skip("this system does not forget its peak")
    peak = PeakMemory(device)
    block = torch.ones(2**27)  # 512 MiB
    during = peak.mib()
    del block
    release_memory(device)
    assert peak.mib() == pytest.approx(during, abs=4)
    after = PeakMemory(device).mib()
    assert during is not None
    assert after is not None
    assert during - before > 450
    assert during - after > 450


def test_a_system_that_does_not_forget_its_peak_tells_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuses)
    assert PeakMemory(torch.device("cpu")).mib() is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_peak_of_a_gpu_is_what_was_allocated_there() -> None:
    device = torch.device("cuda:0")
    held = torch.cuda.memory_allocated(device) / 2**20
    block = torch.ones(2**26, device=device)  # 256 MiB
    del block
    peak = PeakMemory(device)
    small = torch.ones(2**24, device=device)
    del small
    assert peak.mib() == pytest.approx(held + 64, abs=2)
