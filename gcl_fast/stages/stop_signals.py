"""Ctrl-C and SIGTERM while a stage trains: the step in hand is finished and saved first."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """What ends a program that was asked to end; `signal` says how."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.signal = number


@contextlib.contextmanager
def stops_on_sigterm() -> Iterator[None]:
    """Inside, SIGTERM ends the program as Ctrl-C does: schedulers send it some seconds before they kill."""

    def stop(number: int, _: FrameType | None) -> None:
        raise Stopped(number)

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class StopRequest:
    """Whether somebody asked the program to stop; `check` raises it where the caller is ready."""

    def __init__(self) -> None:
        self.number = 0

    def check(self) -> None:
        if self.number:
            raise Stopped(self.number)


@contextlib.contextmanager
def stops_put_off(*, enabled: bool = True) -> Iterator[StopRequest]:
    """Inside, the first signal only asks; a second one stops at once, as outside.

    Signals reach the main thread alone: elsewhere, and where `enabled` is False, nothing changes. SIGTERM is put off only where
    something else than the default has been set for it (`stops_on_sigterm`): a library does not change what ends a program.
    """
    request = StopRequest()
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {int(number): signal.getsignal(number) for number in SIGNALS}
    put_off = [number for number, handler in before.items() if callable(handler)]

    def ask(number: int, frame: FrameType | None) -> None:
        if request.number:
            for other in put_off:
                signal.signal(other, before[other])
            handler = before[number]
            assert callable(handler)
            handler(number, frame)
            return
        request.number = number
        print("\nstopping: this step is finished and saved first; once more stops at once", file=sys.stderr, flush=True)

    for number in put_off:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        for number in put_off:
            signal.signal(number, before[number])
