"""A notebook: cells in a real kernel of Jupyter, with its threads, its loop and its interrupts."""

from __future__ import annotations

import contextlib
import json
import textwrap
from pathlib import Path

import psutil
import pytest

from tests.support.helpers import run_script, still_alive

pytest.importorskip("ipykernel", reason="there is no kernel")

# Runs the cells one after the other, in a process of its own: the client leaves sockets and
# threads behind. A cell that begins with "# interrupted" is interrupted once, when its handler has
# begun: until then the interrupt could strike where Python itself swallows it, as in an import.
_CLIENT = '''
import asyncio, json, os, threading, time
from pathlib import Path

for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
    os.environ[name] = str(Path("jupyter").absolute())

from jupyter_client.manager import start_new_kernel


def interrupt_when_begun():
    while not Path("begun").exists():
        time.sleep(0.01)
    manager.interrupt_kernel()
    asyncio.get_event_loop().close()  # of this thread; the client would leave it open


def run(cell):
    """Run a cell; give what it printed and displayed, and its error if it has one."""
    printed, errors = [], []

    def hook(message):
        content = message["content"]
        if message["msg_type"] == "stream":
            printed.append(content["text"])
        elif message["msg_type"] in ("display_data", "update_display_data"):
            printed.append(message["msg_type"] + " " + content["data"]["text/plain"])
        elif message["msg_type"] == "error":
            errors.append(content["ename"])

    interrupts = threading.Thread(target=interrupt_when_begun, daemon=True)
    if cell.startswith("# interrupted"):
        interrupts.start()
    client.execute_interactive(cell, timeout=60, output_hook=hook)
    if interrupts.ident is not None:
        interrupts.join()
    return ["".join(printed).split(), errors]


options = ["--log-level=ERROR"]
errors = Path("kernel.err")
# A kernel may have something to say of its own, of tasks that an interrupt has ended for one.
with errors.open("wb") as file:
    manager, client = start_new_kernel(
        kernel_name="python3", extra_arguments=options, stderr=file
    )
try:
    print(json.dumps([run(cell) for cell in json.loads(CELLS)]))
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=False)
assert "evproc" not in errors.read_text(), errors.read_text()
'''


def run_cells(cells: list[str], folder: Path) -> list[tuple[list[str], list[str]]]:
    """Run cells in a new kernel.

    Returns:
        For each the words that it printed, and the name of its error if it has one.
    """
    texts = [textwrap.dedent(cell).strip() for cell in cells]
    code = _CLIENT.replace("CELLS", repr(json.dumps(texts)))
    out = run_script(code, folder, python=["-W", "ignore"])
    return [(printed, errors) for printed, errors in json.loads(out)]


_DEFINITIONS = """
    from evproc import Event, StopProcessing, want
    from evproc_pool import PoolProcessor
    from evproc_pool.testing import worker_pids

    class Value:
        def __init__(self, number):
            self.number = number

    class Reading(Event):
        name = "reading"

        def __init__(self, number):
            self.number = number

        def doubled(self):
            return 2 * self.number

    @want("reading")
    def handle(proc, ev):
        if ev.number == 3:
            return [Reading(7)]
        raise StopProcessing(Value(ev.doubled()))

    pool = PoolProcessor(workers=2)
    pool.register(handle)
"""


def test_what_cells_define_works_and_can_be_defined_anew(tmp_path: Path) -> None:
    cells = [
        _DEFINITIONS,
        "old = [Reading(number) for number in range(4)]",
        "print(*[value.number for value in pool.process_many(old)])",
        "print(pool.process(Reading(3)).number, pool.submit(Reading(5)).result().number)",
        "print(type(pool.process(Reading(1))) is Value, len(set(worker_pids(pool))) <= 2)",
        """
        class Reading(Event):
            name = "reading"

            def __init__(self, number):
                self.number = number

            def doubled(self):
                return -2 * self.number
        """,
        "print(*[value.number for value in pool.process_many(old[:3] + [Reading(3), Reading(4)])])",
        "print(sum(value.number for value in pool.process_many(map(Reading, range(3000)))))",
        "pool.close(); print(len(worker_pids(pool)))",
    ]
    (*_, many, single, kind, _, anew, total, end) = run_cells(cells, tmp_path)
    assert many == (["0", "2", "4", "14"], [])
    assert single == (["14", "10"], [])
    assert kind == (["True", "True"], [])
    # handlers have the new class: instances of the old one are none of it, as in one process
    assert anew == (["0", "2", "4", "-14", "-8"], [])
    assert total == ([str(-2 * (sum(range(3000)) - 3 + 7))], [])  # 3 is followed by 7
    assert end == (["0"], [])


def test_a_cell_can_be_interrupted(tmp_path: Path) -> None:
    cells = [
        _DEFINITIONS,
        """
        # interrupted
        import time
        from pathlib import Path
        from evproc import required_by

        @want("reading")
        @required_by("handle")
        def wait(proc, ev):
            Path("begun").touch()
            time.sleep(100)

        pool.register(wait)
        print("waits")
        pool.process_many([Reading(1), Reading(2)])
        """,
        """
        with PoolProcessor(workers=2) as pool:
            pool.register(handle)
            print(pool.process(Reading(1)).number)
        """,
    ]
    assert run_cells(cells, tmp_path) == [
        ([], []),
        (["waits"], ["KeyboardInterrupt"]),
        (["2"], []),
    ]


def test_a_kernel_that_ends_takes_its_workers_with_it(tmp_path: Path) -> None:
    look = """
        pool.process(Reading(1))
        future = pool.submit(Reading(2))
        print(*worker_pids(pool))
    """
    _, (pids, errors) = run_cells([_DEFINITIONS, look], tmp_path)
    assert pids
    assert not errors
    workers = []
    for pid in map(int, pids):
        with contextlib.suppress(psutil.NoSuchProcess):
            workers.append(psutil.Process(pid))
    assert not still_alive(workers)


def test_awaiting_a_future_in_a_cell(tmp_path: Path) -> None:
    cells = [
        _DEFINITIONS,
        """
        import asyncio
        value = await asyncio.wrap_future(pool.submit(Reading(4)))
        print(value.number)
        pool.close()
        """,
    ]
    assert run_cells(cells, tmp_path) == [([], []), (["8"], [])]


def test_progress_is_shown_below_the_cell_without_widgets(tmp_path: Path) -> None:
    pytest.importorskip("rich", reason="the extra is not installed")
    cells = [
        _DEFINITIONS,
        """
        values = pool.process_many([Reading(number) for number in range(40)], progress=True)
        print(len(values))
        pool.close()
        """,
    ]
    _, (printed, errors) = run_cells(cells, tmp_path)
    assert errors == []
    text = " ".join(printed)
    assert text.startswith("display_data ")
    assert "0 of 40 events (0 %)" in text.partition("update_display_data")[0]
    assert "41 events" in text.rpartition("update_display_data")[2]
    assert printed[-1] == "40"
