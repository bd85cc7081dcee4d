"""Ctrl-C: one `KeyboardInterrupt` where the call is, nothing from workers, nothing left."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from evproc_pool import PoolProcessor
from tests.support.actions import Do
from tests.support.helpers import (
    PATIENCE_SECONDS,
    ROOT,
    Background,
    Gate,
    Script,
    still_alive,
    wait_until,
    warm,
)
from tests.support.sizes import BARS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")

_METHODS = [
    method
    for method in ("forkserver", "spawn", "fork")
    if method in multiprocessing.get_all_start_methods()
]

_AT_WORK = """
from evproc_pool import PoolProcessor
from tests.support.actions import Do, act
from tests.support.helpers import warm

pool = PoolProcessor(workers=2, mp_context={method!r})
pool.register(act)
warm(pool)
{use}
"""

# What the program is doing, and how many handlers run at once meanwhile.
_USES = {
    "process_many": ("pool.process_many([Do('wait_at', {address!r})] * 10)", 2),
    "stream": ("list(pool.stream([Do('wait_at', {address!r})] * 10))", 2),
    "process in a with block": ("with pool: pool.process(Do('wait_at', {address!r}))", 1),
    "the result of a future": ("pool.submit(Do('wait_at', {address!r})).result()", 1),
}


def _interrupt_at_rest(script: Script) -> None:
    """As the terminal does, to every process of the group, once the program waits.

    Not before: what an interrupt does at other moments is looked at below.
    """
    program = psutil.Process(script.process.pid)
    wait_until(lambda: program.status() == psutil.STATUS_SLEEPING, "the program comes to rest")
    os.killpg(program.pid, signal.SIGINT)


@pytest.mark.parametrize(
    ("method", "use"),
    [(method, "process_many") for method in _METHODS]
    + [(_METHODS[0], use) for use in _USES if use != "process_many"],
)
def test_an_interrupted_program_ends_with_one_traceback(
    tmp_path: Path, gate: Gate, method: str, use: str
) -> None:
    text, running = _USES[use]
    code = _AT_WORK.format(method=method, use=text.format(address=gate.address))
    with Script(code, tmp_path) as script:
        pids = {gate.arrival().pid for _ in range(running)}
        _interrupt_at_rest(script)
        finished = script.finish()
    assert len(pids) == running
    assert finished.left == []
    assert finished.code == -signal.SIGINT
    assert finished.err.count("Traceback (most recent call last)") == 1, finished.err
    assert finished.err.strip().splitlines()[-1] == "KeyboardInterrupt"
    # the traceback is the program's own
    assert str(tmp_path / "script.py") in finished.err
    assert "evproc-worker" not in finished.err


_GOES_ON = """
from evproc_pool import PoolProcessor
from tests.support.actions import Do, act
from tests.support.helpers import warm

pool = PoolProcessor(workers=2, mp_context={method!r})
pool.register(act)
warm(pool)
event = Do("wait_at", {address!r})
try:
    {call}
except KeyboardInterrupt:
    print("interrupted", flush=True)
assert pool.process_many([Do("stop", 2)] * 4) == [2] * 4
print("usable", flush=True)
pool.terminate()
with PoolProcessor(workers=1, mp_context={method!r}) as another:
    another.register(act)
    assert another.process(Do("stop", 3)) == 3
print("end", flush=True)
"""


@pytest.mark.parametrize(
    ("method", "call"),
    [(method, "pool.process_many([event] * 10)") for method in _METHODS]
    + [
        (_METHODS[0], call)
        for call in (
            "pool.process(event)",
            "list(pool.stream([event] * 10))",
            "pool.submit(event).result()",
            "pool.submit(event); pool.process_many([event])",
        )
    ],
)
def test_a_program_that_catches_the_interrupt_goes_on(
    tmp_path: Path, gate: Gate, method: str, call: str
) -> None:
    code = _GOES_ON.format(method=method, address=gate.address, call=call)
    with Script(code, tmp_path) as script:
        gate.arrival()
        if " * 10" in call or ";" in call:
            gate.arrival()
        _interrupt_at_rest(script)
        finished = script.finish()  # the handlers are not let go on
    assert (finished.code, finished.err, finished.left) == (0, "", [])
    assert finished.out.split() == ["interrupted", "usable", "end"]


def test_a_worker_takes_no_notice_of_an_interrupt(pool: PoolProcessor, gate: Gate) -> None:
    workers = warm(pool)
    with Background(lambda: pool.process(Do("wait_at", gate.address, "", "value"))) as call:
        arrival = gate.arrival()
        for pid in workers:
            os.kill(pid, signal.SIGINT)
        arrival.release()
        assert call.result() == "value"
    assert arrival.pid in workers
    assert warm(pool) == workers


# --- at any moment ---

_ANYWHERE = '''
import dis, os, sys, threading
from pathlib import Path
import evproc_pool
from evproc_pool import PoolProcessor
from tests.support.actions import Do, act
from tests.support.helpers import warm

FOLDER = str(Path(evproc_pool.__file__).parent)


class Tracer:
    """Raises KeyboardInterrupt at the n-th point of the package where Python may raise it.

    Signals are looked at behind calls, at the end of a turn of a loop, and where a
    function begins; and not, say, between a lock's release and what led to it.
    """

    POINTS = ("CALL", "RESUME", "JUMP_BACKWARD", "JUMP_ABSOLUTE")

    def __init__(self, n):
        self.left = n
        self.where = None
        self.before = {{}}

    def trace(self, frame, event, arg):
        if not frame.f_code.co_filename.startswith(FOLDER):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event == "opcode":
            before = self.before.get(frame)
            self.before[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if before and before.startswith(self.POINTS):
                self.left -= 1
                if self.left == 0:
                    self.where = f"{{Path(frame.f_code.co_filename).name}}:{{frame.f_lineno}}"
                    self.before.clear()
                    raise KeyboardInterrupt
        elif event == "return":
            self.before.pop(frame, None)
        return self.trace


def watched(what, function):
    """Call it in another thread, and end the program if it hangs."""
    outcome = []
    def call():
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(15)
    if thread.is_alive():
        print(f"{{what}} hangs after an interrupt at {{tracer.where}}, point {{n}}", flush=True)
        os._exit(1)
    return outcome[0]


def warm_pool():
    pool = PoolProcessor(workers=1)
    pool.register(act)
    warm(pool)
    for _ in range(2):
        pool.process(Do("stop", 0))
    return pool


for n in range({first}, 5_000, {step}):
    pool = warm_pool()
    # Python 3.13 tells of a function's opcodes only if it was traced just before.
    sys.settrace(Tracer(0).trace)
    {call}
    sys.settrace(None)
    tracer = Tracer(n)
    sys.settrace(tracer.trace)
    raised = None
    try:
        values = {call}
    except BaseException as error:
        raised = error
    finally:
        sys.settrace(None)
    if raised is None and tracer.where is None:
        assert values == {expected}
        watched("close", pool.close)
        break
    if raised is None:
        print(f"no interrupt came out of an interrupt at {{tracer.where}}, point {{n}}", flush=True)
    elif type(raised) is not KeyboardInterrupt:
        print(f"{{raised!r}} after an interrupt at {{tracer.where}}, point {{n}}", flush=True)
    again = watched("process_many", lambda: pool.process_many([Do("stop", 5)] * 3))
    if again != [5] * 3:
        print(f"{{again!r}} after an interrupt at {{tracer.where}}, point {{n}}", flush=True)
    ended = watched("close", pool.close)
    if ended is not None:
        print(f"close: {{ended!r}} after an interrupt at {{tracer.where}}, point {{n}}", flush=True)
print("points", n, flush=True)
'''

# Every point in full, in parts, because a test has a time limit; by default a sample.
_PARTS = 25 if BARS else 1
_STEP = 25 if BARS else 173
_FEW_POINTS_STEP = 5 if BARS else 21


@pytest.mark.skipif(
    sys.version_info[:2] == (3, 12), reason="this Python tells a trace function of no opcodes"
)
@pytest.mark.parametrize(
    ("call", "expected", "part"),
    [
        pytest.param(
            'pool.process_many([Do("stop", place) for place in range(3)])', [0, 1, 2], part
        )
        for part in range(_PARTS)
    ]
    + [
        # past the scheduler, so there are fewer points
        pytest.param(call, 1, part)
        for call in ('pool.process(Do("stop", 1))', 'pool.submit(Do("stop", 1)).result()')
        for part in range(min(_PARTS, 5))
    ]
    + [
        # with what is handed in by the turn
        pytest.param(
            '[each.result() for each in [pool.submit(Do("stop", 1)) for _ in range(3)]]',
            [1] * 3,
            part,
        )
        for part in range(min(_PARTS, 5))
    ],
)
def test_an_interrupt_at_any_moment_leaves_a_pool_that_works(
    tmp_path: Path, call: str, expected: object, part: int
) -> None:
    step = _STEP if "many" in call else _FEW_POINTS_STEP
    code = _ANYWHERE.format(first=1 + part, step=step, call=call, expected=expected)
    with Script(code, tmp_path) as script:
        finished = script.finish()
    assert finished.left == []
    assert (finished.out.splitlines()[:-1], finished.code) == ([], 0), finished.out
    # there was something to interrupt
    assert int(finished.out.split()[-1]) > step
    assert finished.err == ""


# Makes the terminal on standard input that of its session, and becomes a shell.
_SHELL = """
import fcntl, os, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp("sh", ["sh", "-i"])
"""

_PROMPT = "what next? "


class _Terminal:
    """A shell in a terminal of its own, and somebody who types and reads."""

    def __init__(self, folder: Path) -> None:
        self._ours, theirs = os.openpty()
        self.shell = subprocess.Popen(
            [sys.executable, "-c", _SHELL],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PS1": _PROMPT, "ENV": ""},
        )
        os.close(theirs)
        self.read_to(_PROMPT)

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def read_to(self, mark: str) -> str:
        """What is printed up to a text, with that."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        text = ""
        while not text.endswith(mark):
            ready, _, _ = select.select([self._ours], [], [], deadline - time.monotonic())
            assert ready, f"no {mark!r} behind {text!r}"
            text += os.read(self._ours, 1).decode(errors="replace")
        return text

    def close(self) -> None:
        for each in psutil.Process(self.shell.pid).children(recursive=True):
            each.kill()
        self.shell.kill()
        self.shell.wait()
        os.close(self._ours)


def test_in_a_terminal_the_prompt_comes_back(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(
        _AT_WORK.format(method=_METHODS[0], use="print('at', 'work', flush=True)")
        + "pool.process_many([Do('spin', 'log')] * 10)\n"
    )
    terminal = _Terminal(tmp_path)
    try:
        terminal.type(f"{sys.executable} work.py\n")
        terminal.read_to("at work\r\n")
        program = psutil.Process(terminal.shell.pid).children()[0]
        workers = program.children(recursive=True)
        log = tmp_path / "log"
        wait_until(
            lambda: log.exists() and log.read_text().count("spins") >= 2, "the workers are at work"
        )
        begin = time.monotonic()
        terminal.type("\x03")
        text = terminal.read_to(_PROMPT)
        seconds = time.monotonic() - begin
        alive = still_alive(workers)
    finally:
        terminal.close()
    assert alive == []
    assert len(workers) >= 2
    assert text.count("Traceback (most recent call last)") == 1, text
    assert text.count("KeyboardInterrupt") == 1, text
    assert "evproc-worker" not in text
    assert seconds < (2.0 if BARS else PATIENCE_SECONDS)
