"""The load of GPUs, with a driver of our own: NVML as nvidia-ml-py shows it."""

from __future__ import annotations

import sys
import threading
import time
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch

from hpsearch.training.gpu import GpuLoad, GpuMeter, GpuReader

PLAIN, PART = "11111111-aaaa", "22222222-bbbb"


class Driver(types.ModuleType):
    """What `import pynvml` gives: a whole GPU, and a part of one (MIG)."""

    class NVMLError(Exception):
        """As NVML's."""

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.devices = {f"GPU-{PLAIN}": (2**30, 2**36, 97), f"MIG-{PART}": (2**31, 2**34, None)}
        self.opened = 0
        self.reads = 0
        self.fails = False
        self.hangs: threading.Event | None = None

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's names
        self.opened += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.opened -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid not in self.devices:
            raise self.NVMLError(uuid)
        return uuid

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:  # noqa: N802
        self.reads += 1
        if self.hangs is not None:
            self.hangs.wait()
        if self.fails:
            raise self.NVMLError("the GPU is lost")
        used, total, _ = self.devices[handle]
        return types.SimpleNamespace(used=used, total=total)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:  # noqa: N802
        busy = self.devices[handle][2]
        if busy is None:
            raise self.NVMLError("not supported")
        return types.SimpleNamespace(gpu=busy)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def properties(index: int) -> Any:
        if index > 1:
            raise AssertionError("invalid device id")
        return types.SimpleNamespace(uuid=(PLAIN, PART)[index], name=f"Card {index}")

    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    return driver


WHOLE = GpuLoad(device="cuda:0", name="Card 0", busy=0.97, used=2**30, total=2**36)


def test_devices_are_found_by_their_uuid(driver: Driver) -> None:
    reader = GpuReader(["cuda:1", "cuda:0"])
    part = GpuLoad(device="cuda:1", name="Card 1", busy=None, used=2**31, total=2**34)
    assert reader.finds
    assert reader.read() == (part, WHOLE)
    reader.close()
    assert driver.opened == 0


def test_a_part_of_a_gpu_that_the_environment_names(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA may know only the UUID of the whole, whose memory is not what there is."""
    driver.devices["MIG-cccc"] = (1, 2, None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-cccc")
    (load,) = GpuReader(["cuda"]).read()
    assert (load.used, load.total, load.busy) == (1, 2, None)


@pytest.mark.parametrize("devices", [[], ["cpu"], ["cuda:7"], ["nonsense"]])
def test_of_what_is_no_gpu_there_is_no_load(driver: Driver, devices: list[str]) -> None:
    reader = GpuReader(devices)
    assert not reader.finds
    assert reader.read() == ()
    reader.close()


def test_one_that_fails_does_not_hide_the_other(driver: Driver) -> None:
    del driver.devices[f"MIG-{PART}"]
    assert GpuReader(["cuda:1", "cuda:0"]).read() == (WHOLE,)
    driver.fails = True
    assert GpuReader(["cuda:0"]).read() == ()


def test_without_a_driver_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # as where it is not installed
    with GpuMeter(["cuda:0"]) as meter:
        wait_for(lambda: not [t for t in threading.enumerate() if t.name == "gpu meter"])
        assert meter.loads == ()


def test_the_meter_reads_again_and_again_until_it_is_left(driver: Driver) -> None:
    with GpuMeter(["cuda:0"], every=0.01) as meter:
        wait_for(lambda: meter.loads == (WHOLE,))
        driver.fails = True
        wait_for(lambda: meter.loads == ())
        driver.fails = False
        wait_for(lambda: meter.loads == (WHOLE,))
    wait_for(lambda: driver.opened == 0)
    reads = driver.reads
    time.sleep(0.1)
    assert driver.reads == reads


def test_a_driver_that_hangs_holds_nobody_up(driver: Driver) -> None:
    driver.hangs = threading.Event()
    with GpuMeter(["cuda:0"]) as meter:
        wait_for(lambda: driver.reads > 0)
        assert meter.loads == ()
    driver.hangs.set()
    wait_for(lambda: driver.opened == 0)


def wait_for(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.005)
