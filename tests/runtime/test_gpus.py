"""What the driver says about the GPUs; and that nothing breaks, or waits, where there is none or it hangs."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from runtime.gpus import Gpu, Nvml, Panel

pytestmark = pytest.mark.anyio

GPU = Gpu(0, "GPU-0", 80, 30, {7: 50})


class Refused(Exception):
    pass


class Binding:
    """NVML's functions, over the GPUs of ``table``: number -> process and bytes; None for one that has fallen off."""

    NVMLError = Refused

    def __init__(self, table: Mapping[int, list[tuple[int, int | None]] | None], tells: bool = True) -> None:
        self.table = table
        self.tells = tells

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.table)

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:  # noqa: N802
        if self.table[number] is None:
            raise Refused("GPU is lost")
        return number

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(total=1000 + handle, free=100, used=900)

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return f"GPU-{handle}"

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:  # noqa: N802
        if not self.tells:
            raise Refused("Not Supported")
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in self.table[handle] or []]


def test_every_gpu_with_who_holds_what() -> None:
    """A process that is there twice holds the sum; one of which the driver does not know what it holds is not there."""
    table: dict[int, list[tuple[int, int | None]] | None] = {0: [(7, 30), (8, 5), (7, 1)], 1: [(9, None)]}
    assert Nvml(lambda: Binding(table)).look() == (
        Gpu(0, "GPU-0", 1000, 100, {7: 31, 8: 5}),
        Gpu(1, "GPU-1", 1001, 100, {}),
    )


def test_a_gpu_that_is_lost_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """Its number stays its own, and the log says so once."""
    caplog.set_level(logging.INFO)
    nvml = Nvml(lambda: Binding({0: None, 1: []}))
    assert [one.number for one in nvml.look()] == [1] == [one.number for one in nvml.look()]
    assert caplog.text.count("GPU 0 cannot be asked for its memory: GPU is lost") == 1


def test_a_driver_that_does_not_tell_processes_apart(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert Nvml(lambda: Binding({0: [(7, 1)]}, tells=False)).look() == (Gpu(0, "GPU-0", 1000, 100, {}),)
    assert "does not tell which process holds what: Not Supported" in caplog.text


def missing() -> NoReturn:
    raise ModuleNotFoundError("No module named 'pynvml'")


def without_driver() -> Any:
    """NVML's own binding, where its library cannot be loaded."""
    pynvml = pytest.importorskip("pynvml")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        assert error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
        return pynvml
    pynvml.nvmlShutdown()
    pytest.skip("there is a driver here")


@pytest.mark.parametrize("load", [missing, without_driver])
def test_without_a_driver_there_are_no_gpus(load: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is raised, and it is said once, at info."""
    caplog.set_level(logging.INFO)
    nvml = Nvml(load)
    assert nvml.look() == nvml.look() == ()
    said = [record for record in caplog.records if "not measured" in record.message]
    assert [record.levelno for record in said] == [logging.INFO]


class Slow:
    """Answers when it may. ``looks``: how often it was asked."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.looks = 0

    def look(self) -> tuple[Gpu, ...]:
        self.looks += 1
        assert threading.current_thread() is not threading.main_thread()
        self.may.wait(10)
        return (GPU,)


async def test_a_driver_that_hangs_is_waited_for_no_longer_than_said(caplog: pytest.LogCaptureFixture) -> None:
    """No second thread hangs on it, and when it answers again it is believed again."""
    slow = Slow()
    panel = Panel(slow)
    assert await panel.read(0.001) == await panel.read(0.001) == ()
    assert slow.looks == 1
    assert caplog.text.count("has not answered") == 1
    slow.may.set()
    assert await panel.read(10) == (GPU,)
    assert await panel.read(10) == (GPU,)
    assert slow.looks == 2


async def test_who_asks_at_once_shares_a_look() -> None:
    """And one who stops waiting takes nothing away from the others."""
    slow = Slow()
    panel = Panel(slow)
    asking = [asyncio.create_task(panel.read(10)) for _ in range(3)]
    await asyncio.sleep(0)
    asking[0].cancel()
    slow.may.set()
    assert await asking[1] == await asking[2] == (GPU,)
    assert slow.looks == 1
