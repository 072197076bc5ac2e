"""Signals, after which an interrupted process cleans up and prints a message."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from facedan_cli.errors import Interrupted

TOLD = (signal.SIGTERM, signal.SIGHUP)
"""Signals of `kill`, `timeout`, schedulers, a shutdown or a closed terminal."""

GRACE_SECONDS = 2.0
"""Seconds that a process waits for the other processes to report an error, before it stops by itself."""

WAITING_SECONDS, TRAINING_SECONDS = 3.0, 25.0
"""Seconds to wait for the others after that, and for a training to finish its step and save its state."""


class Stopped(KeyboardInterrupt):
    """Raised by a signal of TOLD; like a keyboard interrupt, it passes all handlers of ordinary errors."""


_last: list[str] = []


def interrupted() -> Interrupted:
    """The error of a command that was stopped by a signal of TOLD or from the keyboard."""
    by = f" by {_last[0]}" if _last else ""
    return Interrupted(
        f"the work was interrupted{by}", "what is finished is kept: the same command, without --force, goes on"
    )


@contextmanager
def stoppable(*, of_several: bool) -> Iterator[None]:
    """Turn the signals of TOLD into `Stopped` while the block runs; ignored signals stay ignored (`nohup`).

    Args:
        of_several: whether this is one of several processes, which wait for each other in code that no signal reaches.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    patience = _Patience() if of_several else None
    before = {}
    _last.clear()
    for number in TOLD:
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, patience.told if patience else _stop)
    try:
        yield
    finally:
        if patience:
            patience.end()
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, _: FrameType | None) -> None:
    for each in TOLD:
        signal.signal(each, signal.SIG_IGN)  # whoever says it again does not disturb the cleaning up
    _last[:] = [signal.Signals(number).name]
    raise Stopped


class _Patience:
    """Ends one process of several after a signal, even if it waits for the others in a library.

    Python calls no handler while a library waits, but a thread can read the pipe that the system's handler writes to.
    """

    def __init__(self) -> None:
        self._reading, writing = os.pipe()
        os.set_blocking(writing, False)
        self._writing = writing
        self._before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._due = False
        self._ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def told(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal, once the thread has waited for the other processes."""
        if self._due:
            _stop(number, frame)

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()
        signal.set_wakeup_fd(self._before)
        os.close(self._writing)

    def _watch(self) -> None:
        while (told := os.read(self._reading, 1)) and told[0] not in TOLD:
            pass
        if not told:
            os.close(self._reading)
            return
        name, main = signal.Signals(told[0]), threading.main_thread().ident or 0
        if self._ended.wait(GRACE_SECONDS):
            return
        self._due = True
        # A training has handlers of its own, and ends after a step.
        training = getattr(signal.getsignal(name), "__self__", None) is not self
        signal.pthread_kill(main, name)
        if self._ended.wait(TRAINING_SECONDS - GRACE_SECONDS if training else WAITING_SECONDS):
            return
        _last[:] = [name.name]
        sys.stderr.write(f"Error: {interrupted()}, while it waited for the other processes\n")
        sys.stderr.flush()
        os._exit(Interrupted.exit_code)
