"""Keeps Ctrl-C from the processes of an executor: a terminal sends it to them, too.

Workers import this module, so it imports nothing that is slow.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Any


def undisturbed(initializer: Callable[..., object] | None) -> Callable[..., object]:
    """Return an initializer that has its process ignore Ctrl-C, and then calls `initializer`.

    The command decides what becomes of the work. In its own process, which may have the workers as
    threads, nothing changes.
    """
    return partial(_set_up, os.getpid(), initializer)


def _set_up(command: int, initializer: Callable[..., object] | None, *arguments: Any) -> None:
    # only a main thread may set it; where calls run in others, the executor decides
    if os.getpid() != command and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if initializer is not None:
        initializer(*arguments)
