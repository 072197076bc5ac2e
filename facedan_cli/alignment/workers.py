"""The workers that align batches of images: processes, or threads where processes cannot be used."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

import cv2
import torch

from facedan_cli.alignment.plan import Job
from facedan_cli.data.manifest import AlignedRecord
from facedan_cli.devices import serve
from facedan_cli.errors import FacedanError

Work = Callable[[list[Job]], list[AlignedRecord]]
Begin = Callable[[list[Job]], Future[list[AlignedRecord]]]

_of_process: list[Work] = []  # in a forked process its work
_busy: list[bool] = []  # and here something, while it works


class _Ended(BaseException):
    """Raised in a forked process that has to end while it works, so that it removes its unfinished files."""


@contextmanager
def workers(work: Work, count: int, *, processes: bool) -> Iterator[Begin]:
    """Start `count` workers, one core each, that align whole batches; yields the function that sends them a batch.

    Sharing a network of such small layers among cores costs more than it gains. So does sharing an interpreter: between
    the layers there is enough Python that two threads wait for each other a tenth of the time.
    Processes are forked, so that they are there at once and share the networks' memory; a GPU cannot be shared so, and
    outside Linux forking is not safe.

    Args:
        work: aligns a batch; batches and results must be picklable.
        count: number of workers.
        processes: whether workers are processes where these can be forked; else they are threads.

    Raises:
        FacedanError: the system has killed a process.
        OSError: it allows no more processes.
    """
    forked = processes and count > 1 and sys.platform == "linux"
    usual = torch.get_num_threads()
    others = set(multiprocessing.active_children())
    pool: Executor
    if forked:
        pool, work = _forked(work, count), _work_here
    else:
        pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield lambda batch: pool.submit(work, batch)
    except (KeyboardInterrupt, SystemExit):  # nobody waits for what they are at
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(usual)


def in_order(begin: Begin, batches: Iterable[list[Job]], ahead: int) -> Iterator[list[AlignedRecord]]:
    """The workers' results, in the order of the batches.

    Args:
        begin: the function of `workers`.
        batches: taken as they are wanted.
        ahead: so many are under way at most.

    Raises:
        FacedanError: the system has killed a process.
    """
    running: deque[Future[list[AlignedRecord]]] = deque()
    with _losses_told():
        for batch in batches:
            running.append(begin(batch))
            if len(running) == ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def _forked(work: Work, count: int) -> ProcessPoolExecutor:
    """A pool whose processes are forked at once, before the caller starts threads."""
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("fork"), _prepare, (work, os.getpid()))
    others = set(multiprocessing.active_children())
    try:
        with _losses_told():
            pool.submit(os.getpid).result()
    except BaseException:
        # Nobody else ends those that were begun before the one that could not be.
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        raise
    return pool


@contextmanager
def _losses_told() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise FacedanError(
            "a process that aligns was killed, perhaps because the memory was full",
            "run it again, it goes on from there; fewer --workers or a smaller --detector-batch take less memory",
        ) from error


def _prepare(work: Work, parent: int) -> None:
    """Initialise a forked process."""
    _of_process[:] = [work]
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, _end)
    serve(parent)
    # Threads do not survive a fork: neither library may look for its own.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def _end(number: int, _: object) -> None:
    if _busy:
        raise _Ended
    os._exit(128 + number)


def _work_here(batch: list[Job]) -> list[AlignedRecord]:
    try:
        _busy.append(True)
        return _of_process[0](batch)
    except _Ended:
        os._exit(128 + signal.SIGTERM)
    finally:
        _busy.clear()
