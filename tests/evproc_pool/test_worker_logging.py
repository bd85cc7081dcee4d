"""What workers log reaches the application's logging: once, in order, whatever becomes of them."""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from evproc_pool import PoolProcessor, SoftTimeoutError, WorkerLostError
from evproc_pool.coordinator.coordinator import Coordinator
from evproc_pool.testing import simulated_pool
from tests.support import actions
from tests.support import logging_handlers as there
from tests.support.actions import Do
from tests.support.helpers import (
    Background,
    Gate,
    close_in_time,
    error_of,
    installed,
    register_all,
    run_script,
    warm,
)
from tests.support.logging_handlers import Logs

_METHODS: Final = multiprocessing.get_all_start_methods()


class Records(logging.Handler):
    """Keeps records."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record)

    @property
    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.found]


@pytest.fixture
def records() -> Iterator[Records]:
    """The records that reach the root logger, which lets INFO pass."""
    handler, level = Records(), logging.root.level
    logging.root.addHandler(handler)
    logging.root.setLevel(logging.INFO)
    try:
        yield handler
    finally:
        logging.root.removeHandler(handler)
        logging.root.setLevel(level)


def _pool(workers: int = 1, **options: Any) -> PoolProcessor:
    pool = PoolProcessor(workers, **options)
    register_all(pool, [there.log, actions.act])
    return pool


# --- a record ---


@pytest.mark.parametrize("method", _METHODS)
def test_a_record_arrives_as_it_was_emitted(records: Records, method: str) -> None:
    with _pool(mp_context=method) as pool:
        began = time.time()
        assert pool.process(Logs("one", "word")) is None
        (record,) = records.found  # before the outcome is there
        pid = pool.process(Logs("pid"))
    assert (record.name, record.levelno, record.getMessage()) == (there.LOG.name, 30, "one word")
    assert (record.msg, record.args) == ("one %s", ("word",))
    assert (record.process, record.processName) == (pid, "evproc-worker-1")
    assert (record.threadName, record.filename) == ("MainThread", "logging_handlers.py")
    assert began <= record.created <= time.time()
    here = logging.makeLogRecord({})
    begun = here.created - here.relativeCreated / 1000
    assert record.relativeCreated == pytest.approx((record.created - begun) * 1000, abs=1)
    assert record.evproc_handler == "log"  # type: ignore[attr-defined]
    assert record.evproc_event == (  # type: ignore[attr-defined]
        "'logs' (tests.support.logging_handlers.Logs: Logs('one'))"
    )


def test_a_format_string_may_name_handler_and_event_of_all_records(records: Records) -> None:
    with _pool(initializer=there.note, initargs=("initializer",)) as pool:
        pool.process(Logs())
    logging.getLogger("here").warning("here")
    formatter = logging.Formatter(
        "%(evproc_handler)s %(message)s", defaults={"evproc_handler": "-"}
    )
    lines = [formatter.format(record) for record in records.found]
    assert lines == ["- in initializer", "log one line", "- here"]


def test_each_event_is_named(records: Records) -> None:
    with _pool() as pool:
        pool.process_many([Logs("one"), Logs("in thread"), Logs("many", 0, 2)])
    events = [record.evproc_event.rpartition(" ")[2] for record in records.found]  # type: ignore[attr-defined]
    assert events == ["Logs('one'))", "thread'))", "Logs('many'))", "Logs('many'))"]
    assert [record.threadName for record in records.found][1] == "other"


def test_a_failure_comes_as_text(records: Records) -> None:
    with _pool() as pool:
        pool.process(Logs("failed"))
    (record,) = records.found
    assert record.exc_info is None
    text = logging.Formatter().format(record)
    assert text.startswith("it failed\nTraceback (most recent call last):\n")
    assert "KeyError: 'what'" in text
    assert "Stack (most recent call last):" in text


@pytest.mark.parametrize(
    ("value", "same"),
    [(Path("a"), True), ({"a": [1]}, True), (bytes(100_000), True), ([bytes(100_000)], False)],
    ids=["path", "dict", "bytes", "large"],
)
def test_arguments_and_attributes_are_rebuilt_if_they_are_small(
    records: Records, value: object, same: bool
) -> None:
    with _pool() as pool:
        pool.process_many([Logs("one", value), Logs("extra", value)])
    message, more = records.found
    assert message.getMessage() == f"one {value}"
    if same:
        assert message.args == ((value,) if not isinstance(value, dict) else value)
        assert more.more == value  # type: ignore[attr-defined]
    else:
        assert (message.msg, message.args) == (f"one {value}", ())
        assert more.more == repr(value)  # type: ignore[attr-defined]


def test_what_cannot_be_pickled_comes_as_text(records: Records) -> None:
    acts = ["unpicklable", "unprintable", "extra unpicklable", "extra unprintable"]
    with _pool() as pool:
        pool.process_many([Logs(act) for act in acts])
    assert records.texts[0] == "one text"
    assert "ValueError: no text" in records.texts[1]
    assert [record.more for record in records.found[2:]] == [  # type: ignore[attr-defined]
        "repr",
        "<Unprintable without a repr>",
    ]


def test_a_record_imports_nothing_here(records: Records, tmp_path: Path) -> None:
    code = "class Thing:\n    def __str__(self): return 'a thing'\n"
    (tmp_path / "only_there.py").write_text(code, "utf-8")
    with _pool() as pool:
        pool.process(Logs("call", _log_a_thing_of, str(tmp_path)))
    assert records.texts == ["a thing"]
    assert "only_there" not in sys.modules


def _log_a_thing_of(folder: str) -> None:
    sys.path.append(folder)
    import only_there  # type: ignore[import-not-found]

    there.LOG.info("%s", only_there.Thing())


# --- levels ---


def test_the_levels_of_the_application_hold_in_workers(records: Records) -> None:
    names = ["tests.level.low", "tests.level.low.below", "tests.level.high", "tests.level"]
    low, high = logging.getLogger(names[0]), logging.getLogger(names[2])
    low.setLevel("DEBUG")
    high.setLevel("ERROR")
    try:
        with _pool() as pool:
            expected = [[10, 20, 30, 40], [10, 20, 30, 40], [40], [20, 30, 40]]
            assert pool.process(Logs("levels", *names)) == expected
            # raised while the workers are running
            there.LOG.setLevel("ERROR")
            pool.process(Logs())
            assert records.found == []
            there.LOG.setLevel("NOTSET")
            pool.process(Logs())
            assert len(records.found) == 1
        logging.disable(20)
        with _pool() as pool:
            assert pool.process(Logs("levels", *names)) == [[30, 40], [30, 40], [40], [30, 40]]
    finally:
        logging.disable(logging.NOTSET)
        low.setLevel("NOTSET")
        high.setLevel("NOTSET")
        there.LOG.setLevel("NOTSET")


def test_a_record_passes_filters_and_handlers_of_its_logger_here(records: Records) -> None:
    own = Records()
    there.LOG.addHandler(own)
    there.LOG.propagate = False

    def keep(record: logging.LogRecord) -> bool:
        return "keep" in record.getMessage()

    there.LOG.addFilter(keep)
    try:
        with _pool() as pool:
            pool.process_many([Logs("one", "keep"), Logs("one", "drop")])
    finally:
        there.LOG.removeHandler(own)
        there.LOG.removeFilter(keep)
        there.LOG.propagate = True
    assert (own.texts, records.texts) == (["one keep"], [])


# --- when ---


@pytest.mark.parametrize("method", _METHODS)
def test_what_a_worker_logs_at_its_start_and_at_its_end_arrives(
    records: Records, method: str, tmp_path: Path
) -> None:
    module = (
        "import logging\nfrom evproc import want\n"
        "logging.getLogger('imported').warning('at import')\n"
        "@want('logs')\ndef other(proc, ev): 0\n"
    )
    points = {"tests.logging": {"other": "logs_at_import:other"}}
    with installed(tmp_path, "logging", "1", {"logs_at_import": module}, points):
        pool = PoolProcessor(
            1,
            mp_context=method,
            initializer=there.note,
            initargs=("initializer",),
            finalizer=_note_at_end,
        )
        pool.load_from("tests.logging")
        records.found.clear()  # of the import here
        pool.process(Logs())
        close_in_time(pool)
    # a forked process has the module
    imported = ["at import"] if method != "fork" else []
    assert records.texts == ["in initializer", *imported, "in finalizer"]


def _note_at_end() -> None:
    there.note("finalizer")


def test_what_an_initializer_logs_arrives_before_its_error(records: Records) -> None:
    with _pool(initializer=there.note_and_fail, initargs=("initializer",)) as pool:
        assert "in the initializer" in str(error_of(lambda: pool.process(Logs())))
    assert records.texts == ["in initializer"]


def test_a_finalizer_may_log_more_than_a_channel_holds(records: Records) -> None:
    with _pool(finalizer=_log_much) as pool:
        pool.process(Logs("pid"))
    assert records.texts == [f"{number}{'x' * 1000}" for number in range(2000)]


def _log_much() -> None:
    there._many(0, 2000, "x" * 1000)


@pytest.mark.parametrize("how", ["submitted", "streamed", "asynchronous", "one by one"])
def test_records_are_there_before_the_outcome(records: Records, how: str) -> None:
    with _pool(2) as pool:
        warm(pool)
        for count in range(1, 30):
            if how == "submitted":
                pool.submit(Logs()).result()
            elif how == "streamed":
                next(pool.stream([Logs()]))
            elif how == "asynchronous":
                import asyncio

                asyncio.run(pool.process_async(Logs()))
            else:
                pool.process(Logs())
            assert len(records.found) == count


def test_records_arrive_while_a_caller_waits(records: Records, gate: Gate) -> None:
    with _pool() as pool, Background(lambda: pool.process(Logs("wait", gate.address))) as call:
        arrival = gate.arrival()
        while "waits" not in records.texts:
            time.sleep(0.001)
        assert not call.is_over
        arrival.release()


def test_a_single_event_that_logs_stays_past_the_scheduler(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    adopted: list[object] = []
    adopt = Coordinator.adopt

    def note(*args: Any) -> None:
        adopted.append(args)
        adopt(*args)

    monkeypatch.setattr(Coordinator, "adopt", note)
    with _pool() as pool:
        warm(pool)
        for _ in range(100):
            pool.process(Logs("many", 0, 3))
    assert len(records.found) == 300
    assert len(adopted) < 100  # under load an answer may take too long


# --- none is lost ---


@pytest.mark.parametrize("method", _METHODS)
def test_all_records_of_two_workers_arrive_of_which_one_is_killed(
    records: Records, method: str
) -> None:
    size, count = 250, 20
    with _pool(2, mp_context=method) as pool:
        warm(pool)
        events = [Logs("many", number * size, size) for number in range(2 * count)]
        events[count] = Logs("many then die", count * size, size)
        outcomes = list(pool.stream(events, ordered=False))
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    assert [type(error) for error in errors] == [WorkerLostError]
    found = [record for record in records.found if record.name == there.LOG.name]
    assert sorted(int(record.getMessage()) for record in found) == list(range(2 * count * size))
    by_worker = defaultdict(list)
    for record in found:
        by_worker[record.process].append(record)
    assert len(by_worker) in (2, 3)  # with the replacement
    for those in by_worker.values():
        assert [each.created for each in those] == sorted(each.created for each in those)
        numbers = [int(each.getMessage()) for each in those]
        for begin in range(0, len(numbers), size):
            assert numbers[begin : begin + size] == list(
                range(numbers[begin], numbers[begin] + size)
            )


def test_a_worker_that_logs_much_gets_batches_that_are_larger_than_its_channel(
    records: Records,
) -> None:
    with _pool(2) as pool:
        # both directions are full at once
        events = [Logs("call", _log_and_count, "x" * 1000, bytes(30_000)) for _ in range(500)]
        assert pool.process_many(events) == [30_000] * 500
    assert len(records.found) == 500 * 5


def _log_and_count(text: str, data: bytes) -> int:
    there._many(0, 5, text)
    return len(data)


def test_large_records_arrive(records: Records) -> None:
    with _pool(2) as pool:
        sizes = [1, 70_000, 3_000_000, 200] * 3
        pool.process_many([Logs("one", "x" * size) for size in sizes])
    assert sorted(len(text) - 4 for text in records.texts) == sorted(sizes)


def test_a_worker_waits_while_nobody_reads(records: Records) -> None:
    with _pool() as pool:
        stream = pool.stream([Logs("pid"), *[Logs("many", 0, 2000)] * 3, Logs("pid")])
        assert next(stream).value is not None
        assert len(records.found) < 6000
        assert len(list(stream)) == 4
    assert len(records.found) == 6000


# --- signals, threads and forks ---


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="it takes signals")
@pytest.mark.parametrize("act", ["raising signals", "logging signals"])
def test_signals_do_not_tear_records(records: Records, act: str) -> None:
    with _pool() as pool:
        caught = pool.process(Logs(act, 4000))
        pid = pool.process(Logs("pid"))
        assert {record.process for record in records.found} == {pid}, "the worker is the same"
    numbers = [text.split()[0] for text in records.texts if text.endswith("x")]
    if act == "raising signals":
        assert caught > 0
        # a call that was interrupted is repeated
        assert sorted(set(map(int, numbers))) == list(range(4000))
    else:
        assert numbers == [str(number) for number in range(4000)]
        assert {"deleted", "signalled"} <= set(records.texts)


@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="there is no soft timeout")
def test_a_soft_timeout_does_not_tear_records(records: Records, tmp_path: Path) -> None:
    began = tmp_path / "began"
    with _pool(event_soft_timeout=0.02) as pool:
        for _ in range(15):
            error = error_of(lambda: pool.process(Logs("until struck", str(began))))
            assert isinstance(error, SoftTimeoutError)
        pid = pool.process(Logs("pid"))
    assert {record.process for record in records.found} == {pid}
    assert set(records.texts) == {"x" * 3000}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_forked_process_logs_as_if_it_had_no_pool(records: Records, method: str) -> None:
    with _pool(mp_context=method, worker_output="label") as pool:
        assert pool.process(Logs("forks")) == 0
        pool.process(Logs("forks while a thread logs", 30))
    (said,) = [text for text in records.texts if text.startswith("child said")]
    assert said.startswith("child said: in the child/")
    assert said.endswith("/printed in the child")
    assert "in the child, too" in said
    others = {text for text in records.texts if text != said}
    assert others == {"on"}


# --- handlers of logging here ---


class _Raises(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise ValueError("in a logging handler")


@pytest.mark.parametrize("raises", [True, False])
def test_an_error_of_a_logging_handler_does_no_harm(
    raises: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", raises)
    handler = _Raises()
    logging.root.addHandler(handler)
    try:
        with _pool() as pool:
            assert pool.process_many([Logs(), Do("stop", 1)] * 3) == [None, 1] * 3
    finally:
        logging.root.removeHandler(handler)
    assert capsys.readouterr().err.count("ValueError: in a logging handler") == 3 * raises


def test_an_error_of_a_record_factory_does_no_harm(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogRecordFactory()

    def fail(*args: Any, **options: Any) -> logging.LogRecord:
        raise ValueError("in a factory")

    logging.setLogRecordFactory(fail)
    try:
        with _pool() as pool:
            assert pool.process_many([Logs(), Do("stop", 1)]) == [None, 1]
    finally:
        logging.setLogRecordFactory(before)
    assert "ValueError: in a factory" in capsys.readouterr().err


def test_arguments_that_do_not_fit_are_an_error_of_the_handler_here() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(io.StringIO())
    logging.root.addHandler(handler)
    before, sys.stderr = sys.stderr, stream
    try:
        with _pool() as pool:
            assert pool.process(Logs("bad arguments")) is None
    finally:
        sys.stderr = before
        logging.root.removeHandler(handler)
    assert "--- Logging error ---" in stream.getvalue()


def test_a_logging_handler_may_hand_in_events_but_not_wait(records: Records) -> None:
    futures: list[Any] = []
    errors: list[BaseException] = []

    class UsesPool(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name == there.LOG.name:
                futures.append(pool.submit(Do("stop", 5)))
                errors.append(error_of(lambda: pool.process(Do("stop", 6))))

    handler = UsesPool()
    logging.root.addHandler(handler)
    try:
        with _pool() as pool:
            for use in (pool.process, lambda ev: pool.submit(ev).result()):
                use(Logs())
            assert [future.result() for future in futures] == [5, 5]
    finally:
        logging.root.removeHandler(handler)
    assert [type(error) for error in errors] == [RuntimeError] * 2
    assert len(records.found) == 2


def test_an_interrupt_in_a_logging_handler_leaves_the_pool_usable() -> None:
    class Interrupts(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise KeyboardInterrupt

    handler = Interrupts()
    with _pool() as pool:
        logging.root.addHandler(handler)
        try:
            for use in (pool.process, lambda ev: pool.process_many([ev])):
                with pytest.raises(KeyboardInterrupt):
                    use(Logs())
        finally:
            logging.root.removeHandler(handler)
        assert pool.process(Do("stop", 1)) == 1


def test_interrupts_in_logging_handlers_while_workers_end_leave_nothing_behind() -> None:
    class Interrupts(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise KeyboardInterrupt

    handler = Interrupts()
    pool = _pool(3, finalizer=_note_at_end)
    warm(pool)
    logging.root.addHandler(handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            pool.close()
    finally:
        logging.root.removeHandler(handler)
    pool.close()


# --- what is configured in a worker ---


_MODULE = """
import logging
from evproc import want

LOG = logging.getLogger("configured")
LOG.addHandler(logging.FileHandler({path!r}))
LOG.propagate = False
LOG.setLevel("ERROR")
logging.getLogger().addHandler(logging.FileHandler({path!r}))
logging.getLogger("off").disabled = True

@want("logs")
def other(proc, ev):
    LOG.warning("%s", len(LOG.handlers) + len(logging.getLogger().handlers))
"""


@pytest.mark.parametrize("method", _METHODS)
def test_what_a_module_configures_holds_in_the_coordinator_only(
    method: str, tmp_path: Path, records: Records
) -> None:
    path = tmp_path / "log"
    points = {"tests.logging": {"other": "configures_logging:other"}}
    code = _MODULE.format(path=str(path))
    before = [*logging.root.handlers]
    with installed(tmp_path, "logging", "1", {"configures_logging": code}, points):
        try:
            with PoolProcessor(1, mp_context=method) as pool:
                pool.load_from("tests.logging")
                logging.getLogger("configured").setLevel("NOTSET")
                pool.process(Logs())
        finally:
            logger = logging.getLogger("configured")
            own = {*logger.handlers, *logging.root.handlers} - {*before}
            for handler in own:
                logger.removeHandler(handler)
                logging.root.removeHandler(handler)
                handler.close()
            logger.propagate = True
            logging.getLogger("off").disabled = False
    # a worker has one handler; the one of the logger here has written the line
    assert path.read_text() == "1\n"
    assert records.texts == []  # since `propagate` is off


def test_a_handler_that_the_initializer_adds_gets_records_as_well(
    records: Records, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    with _pool(initializer=there.add_file, initargs=(str(path),)) as pool:
        pool.process(Logs())
    assert path.read_text() == "one line\n"
    assert records.texts == ["one line"]


def test_an_initializer_may_take_the_records_instead(records: Records, tmp_path: Path) -> None:
    path = tmp_path / "log"
    with _pool(initializer=there.replace_handlers, initargs=(str(path),)) as pool:
        pool.process(Logs())
    assert path.read_text() == "one line\n"
    assert records.texts == []


def test_a_handler_may_collect_records_for_a_moment(records: Records) -> None:
    with _pool() as pool:
        assert pool.process(Logs("collected")) == ["one line"]
    assert records.texts == ["one line"]


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_logging_of_workers_can_be_left_alone(
    method: str, tmp_path: Path, records: Records
) -> None:
    path = tmp_path / "log"
    options: dict[str, Any] = {"initializer": there.add_file, "initargs": (str(path),)}
    with _pool(mp_context=method, worker_logging=False, **options) as pool:
        pool.process(Logs())
        assert pool.process(Logs("levels", "any")) == [[30, 40]]
    assert path.read_text() == "one line\n"
    assert records.texts == []


def test_without_workers_and_with_simulated_ones_nothing_is_changed(records: Records) -> None:
    before = [*logging.root.handlers]
    for pool in (_pool(0), simulated_pool(2)):
        with pool:
            if "log" not in pool.nodes:
                pool.register(there.log)
            pool.process_many([Logs()])
            assert logging.root.handlers == before
    assert records.texts == ["one line"] * 2
    assert not hasattr(records.found[0], "evproc_handler")


_LAZY = """
import sys
from evproc_pool.protocol.worker_output import LogLevels, WorkerOutput
from evproc_pool.worker import main, output

class Channel:
    def send_output(self, tag, payload):
        from evproc_pool.protocol.log_records import load_record
        print(load_record(payload).getMessage())

made = output.Output(Channel(), [0, -1], main.main.__code__)
made.begin(WorkerOutput(LogLevels(20, {"low": 10}, 0)))
import json
print("logging" in sys.modules)
import logging
assert logging.__spec__.loader is logging.__loader__
assert "exec_module" not in vars(logging.__loader__)
logging.getLogger("a").info("root's level")
logging.getLogger("a").debug("nothing")
logging.getLogger("low").debug("low level")
made.end()
sys.stderr = sys.stdout
logging.getLogger("low").error("by the last resort")
"""


def test_a_worker_imports_logging_only_if_a_handler_does(tmp_path: Path) -> None:
    out = run_script(_LAZY, tmp_path)
    assert out.splitlines() == ["False", "root's level", "low level", "by the last resort"]


def test_wrong_options_are_errors() -> None:
    wrong: Any = 1
    assert isinstance(error_of(lambda: PoolProcessor(1, worker_logging=wrong)), TypeError)
    assert isinstance(error_of(lambda: PoolProcessor(1, worker_output=wrong)), ValueError)
    assert isinstance(error_of(lambda: simulated_pool(worker_logging=False)), TypeError)


def test_two_threads_that_use_the_pool_get_each_record_once(records: Records) -> None:
    def use() -> None:
        for _ in range(20):
            pool.process_many([Logs("many", 0, 10)] * 4)

    with _pool(2) as pool:
        threads = [threading.Thread(target=use) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(records.found) == 3 * 20 * 4 * 10
