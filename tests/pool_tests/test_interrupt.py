"""Ctrl-C: one `KeyboardInterrupt` where the call is, nothing from workers, nothing left."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.pool_tests.helpers import PATIENCE_SECONDS, ROOT, Gate, Script
from tests.pool_tests.sizes import BARS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")

_METHODS = ["forkserver", "spawn", "fork"]

_AT_WORK = """
from evproc_pool import PoolProcessor
from tests.pool_tests.actions import Do, act

pool = PoolProcessor(workers=2, mp_context={method!r})
pool.register(act)
assert pool.process_many([Do("stop", 1)] * 4) == [1] * 4
{use}
"""

_USES = {
    "process_many": "pool.process_many([Do('wait_at', {address!r})] * 10)",
    "stream": "list(pool.stream([Do('wait_at', {address!r})] * 10))",
    "process in a with block": "with pool: pool.process(Do('wait_at', {address!r}))",
    "the result of a future": "pool.submit(Do('wait_at', {address!r})).result()",
}


def _interrupt(script: Script) -> None:
    """As the terminal does: to every process of the group."""
    os.killpg(script.process.pid, signal.SIGINT)


@pytest.mark.parametrize(
    ("method", "use"),
    [(method, "process_many") for method in _METHODS]
    + [("forkserver", use) for use in _USES if use != "process_many"],
)
def test_an_interrupted_program_ends_with_one_traceback(
    tmp_path: Path, gate: Gate, method: str, use: str
) -> None:
    code = _AT_WORK.format(method=method, use=_USES[use].format(address=gate.address))
    with Script(code, tmp_path) as script:
        gate.arrival()
        _interrupt(script)
        finished = script.finish()
    assert finished.left == []
    assert finished.code in (-signal.SIGINT, 128 + signal.SIGINT)
    assert finished.err.count("Traceback (most recent call last)") == 1, finished.err
    assert finished.err.strip().splitlines()[-1] == "KeyboardInterrupt"
    assert "worker" not in finished.err.replace("evproc_pool/worker", "")


_GOES_ON = """
from evproc_pool import PoolClosedError, PoolProcessor
from tests.pool_tests.actions import Do, act, nested

pool = PoolProcessor(workers=2, mp_context={method!r})
pool.register(act)
assert pool.process_many([Do("stop", 1)] * 4) == [1] * 4
try:
    pool.process_many([Do("wait_at", {address!r})] * 10)
except KeyboardInterrupt:
    print("interrupted", flush=True)
try:
    assert pool.process_many([Do("stop", 2)] * 4) == [2] * 4
    print("usable", flush=True)
except PoolClosedError:
    print("closed", flush=True)
pool.terminate()
with PoolProcessor(workers=1, mp_context={method!r}) as another:
    another.register(act)
    assert another.process(Do("stop", 3)) == 3
print("end", flush=True)
"""


@pytest.mark.parametrize("method", _METHODS)
def test_a_program_that_catches_the_interrupt_goes_on(
    tmp_path: Path, gate: Gate, method: str
) -> None:
    with Script(_GOES_ON.format(method=method, address=gate.address), tmp_path) as script:
        arrivals = [gate.arrival()]
        _interrupt(script)
        # a pool that stays usable waits for the handlers that were running
        gate.close()
        finished = script.finish()
    assert (finished.code, finished.err, finished.left) == (0, "", [])
    assert finished.out.split() in (
        ["interrupted", "usable", "end"],
        ["interrupted", "closed", "end"],
    )
    assert arrivals[0].pid != script.process.pid


_STARTING = """
import sys
from evproc_pool import PoolProcessor
from tests.pool_tests.actions import Do, act

pool = PoolProcessor(workers=2, mp_context={method!r})
pool.register(act)
pool.process(Do("nothing"))
"""

# Runs in every interpreter that starts, before anything else: in the script it does
# nothing, in what the script starts it waits at the gate.
_SITE = """
import os, socket, sys
if "-c" in sys.orig_argv:
    with socket.create_connection({address!r}, timeout=60) as connection:
        connection.sendall(f"{{os.getpid()}} {{sys.orig_argv[-1]}}\\n".encode())
        connection.recv(1)
"""


def test_an_interrupt_while_a_worker_starts_shows_nothing_from_the_worker(
    tmp_path: Path, gate: Gate
) -> None:
    (tmp_path / "sitecustomize.py").write_text(_SITE.format(address=gate.address), "utf-8")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    code = _STARTING.format(method="spawn")
    with Script(code, tmp_path, environment={"PYTHONPATH": path}) as script:
        # the resource tracker of multiprocessing starts first, then the worker
        arrival = gate.arrival()
        while "resource_tracker" in arrival.text:
            arrival.release()
            arrival = gate.arrival()
        _interrupt(script)
        gate.close()
        finished = script.finish()
    assert finished.left == []
    assert finished.err.count("Traceback (most recent call last)") == 1, finished.err
    assert "sitecustomize" not in finished.err


# --- at any moment ---

_ANYWHERE = """
import gc, os, signal, sys, threading
from pathlib import Path
import evproc_pool
from evproc_pool import PoolClosedError, PoolProcessor
from tests.pool_tests.actions import Do, act
from tests.pool_tests.helpers import warm

FOLDER = str(Path(evproc_pool.__file__).parent)
first, last, step = (int(word) for word in sys.argv[1:] or {numbers!r})


class Tracer:
    "Raises KeyboardInterrupt at the n-th line that the package comes to."

    def __init__(self, n):
        self.left = n
        self.where = None

    def trace(self, frame, event, arg):
        if not frame.f_code.co_filename.startswith(FOLDER):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                self.where = f"{{Path(frame.f_code.co_filename).name}}:{{frame.f_lineno}}"
                raise KeyboardInterrupt
        return self.trace


def watched(what, function):
    "Call it in another thread, and end the program if it hangs."
    outcome = []
    def call():
        try:
            outcome.append(function())
        except PoolClosedError:
            outcome.append("closed")
        except BaseException as error:
            outcome.append(error)
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(20)
    if thread.is_alive():
        print(f"{{what}} hangs after an interrupt at {{tracer.where}} (line {{n}})", flush=True)
        os._exit(1)
    return outcome[0]


n = first
while n < last:
    pool = PoolProcessor(workers=1)
    pool.register(act)
    if {is_warm!r}:
        warm(pool)
    tracer = Tracer(n)
    sys.settrace(tracer.trace)
    try:
        values = pool.process_many([Do("stop", place) for place in range(3)])
    except KeyboardInterrupt:
        values = None
    finally:
        sys.settrace(None)
    if values is not None:
        assert values == [0, 1, 2]
        watched("close", pool.close)
        break
    again = watched("process_many", lambda: pool.process_many([Do("stop", 5)] * 3))
    if again not in ([5] * 3, "closed"):
        print(f"{{again!r}} after an interrupt at {{tracer.where}}", flush=True)
    ended = watched("close", pool.close)
    if ended is not None:
        print(f"close: {{ended!r}} after an interrupt at {{tracer.where}}", flush=True)
    n += step
print("lines", n, flush=True)
"""


@pytest.mark.skip(
    reason="an interrupt in the few instructions in which a thread hands on the driver's part"
    " can still leave the others waiting"
)
@pytest.mark.parametrize("is_warm", [False, True])
def test_an_interrupt_at_any_line_leaves_a_pool_that_works_or_says_that_it_is_closed(
    tmp_path: Path, is_warm: bool
) -> None:
    # every line by turns in full, a sample by default
    numbers = (1, 5_000, 1) if BARS else (1, 5_000, 29)
    code = _ANYWHERE.format(numbers=numbers, is_warm=is_warm)
    with Script(code, tmp_path) as script:
        script.process.wait(PATIENCE_SECONDS * (40 if BARS else 3))
        finished = script.finish()
    assert finished.left == []
    assert (finished.out.splitlines()[:-1], finished.code) == ([], 0), finished.out
    assert finished.out.startswith("lines")
    assert finished.err == ""
