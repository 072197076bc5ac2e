import errno
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import cv2
import pytest
import torch
from processes import Started, ending

from facedan_cli.alignment.workers import in_order, workers
from facedan_cli.errors import FacedanError

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads do it")


def results(work: Callable[[Any], Any], batches: list[Any], count: int, *, processes: bool) -> list[Any]:
    with workers(work, count, processes=processes) as begin:
        return list(in_order(begin, batches, ahead=3))


def slow_at_first(batch: list[int]) -> list[int]:
    time.sleep(0.2 if batch[0] == 0 else 0)
    return [os.getpid(), *batch]


@pytest.mark.parametrize("processes", [True, False])
def test_results_come_in_the_order_of_the_batches(processes: bool) -> None:
    found = results(slow_at_first, [[number] for number in range(9)], 2, processes=processes)
    assert [numbers for _, *numbers in found] == [[number] for number in range(9)]


@on_linux
def test_several_workers_are_processes_and_one_is_a_thread() -> None:
    batches = [[number] for number in range(9)]
    many = {process for process, _ in results(slow_at_first, batches, 2, processes=True)}
    assert os.getpid() not in many
    for count, processes in ((1, True), (2, False)):
        assert {process for process, _ in results(slow_at_first, batches, count, processes=processes)} == {os.getpid()}


@pytest.mark.parametrize("processes", [True, False])
def test_what_goes_wrong_comes_through_as_it_is(processes: bool) -> None:
    def full(batch: list[int]) -> list[int]:
        raise OSError(28, "No space left on device", "a/b.jpg")

    with pytest.raises(OSError, match="No space left") as caught:
        results(full, [[0]], 2, processes=processes)
    assert (caught.value.errno, caught.value.filename) == (28, "a/b.jpg")


@on_linux
def test_a_killed_process_is_told() -> None:
    def killed(batch: list[int]) -> list[int]:
        if batch[0] == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return batch

    with pytest.raises(FacedanError, match="was killed"):
        results(killed, [[0], [1], [2]], 2, processes=True)


@on_linux
def test_a_process_killed_while_it_waits_is_told_where_the_caller_ignores_signals() -> None:
    """SIGTERM is that by which the pool ends the others."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with workers(slow_at_first, 3, processes=True) as begin:
            for process in multiprocessing.active_children()[:2]:
                process.kill()
            with pytest.raises(FacedanError, match="was killed"):
                list(in_order(begin, [[0], [1], [2]], ahead=3))
    finally:
        signal.signal(signal.SIGTERM, before)


@on_linux
def test_a_system_without_room_for_processes_says_so_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    fork, begun = os.fork, []

    def full() -> int:
        if begun:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        begun.append(fork())
        return begun[0]

    monkeypatch.setattr(os, "fork", full)
    with pytest.raises(OSError, match="temporarily unavailable"), workers(slow_at_first, 2, processes=True):
        pass
    gone, _ = os.waitpid(begun[0], 0)
    assert gone == begun[0]


@on_linux
def test_libraries_with_threads_work_in_a_forked_process() -> None:
    def calculate(batch: list[int]) -> list[float]:
        pixels = torch.full((64, 64, 3), float(batch[0]))
        resized = cv2.resize(pixels.numpy(), (512, 512))
        found = torch.nn.functional.conv2d(torch.from_numpy(resized)[None, None, :, :, 0], torch.ones(1, 1, 3, 3))
        return [float(found.mean()), torch.get_num_threads(), cv2.getNumThreads()]

    usual = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        calculate([1])  # the threads of this process, which no forked one has, have worked
        found = results(calculate, [[number] for number in range(4)], 2, processes=True)
    finally:
        torch.set_num_threads(usual)
    assert [mean for mean, *_ in found] == [0, 9, 18, 27]
    assert {threads for _, *threads in found for threads in threads} == {1}


def say_and_wait(batch: list[int]) -> list[int]:
    os.write(1, f"{os.getpid()}\n".encode())
    time.sleep(60)
    return batch


def work_for_long() -> None:
    results(say_and_wait, [[0], [1]], 2, processes=True)


@on_linux
def test_no_process_outlives_the_one_that_it_works_for() -> None:
    parent = Started(work_for_long)
    with ending(parent):
        deadline = time.monotonic() + 60
        while len(children := [int(line) for line in parent.said()[0].split()]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    deadline = time.monotonic() + 10
    while any(map(is_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, children))


def is_alive(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat", encoding="ascii", errors="replace") as status:
            return status.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
