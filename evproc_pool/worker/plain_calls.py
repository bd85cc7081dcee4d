"""A worker's work as plain calls: a batch goes in, the frames that answer it come out.

For executors. A call may land in any process, and in any thread of it. So nothing that a later call
needs stays behind, and each call brings what it needs::

    run(Call) --> registry of this process, by the fingerprint of its spec --> Worker --> frames

- A registry is made by the first call that needs it. Its config is only sent to a process that
  says that it lacks it (`run` returns None), since it may be large. The initializer is called once
  in a process.
- A worker runs one call at a time, with a `Processor` of its own. Threads have one each.
- The coordinator's own process, in which a thread executor runs, stays as it is. Any other becomes
  a worker, but keeps its environment, which belongs to the executor. What is logged there comes
  back with the answer (`call_logs`), unless the process was forked with the application's logging.
- Results are packed one by one: nobody could be asked to pack them again.

Rejected: a call that stays and reads frames from a socket (an executor need not reach this
machine); a registry for each call (an import and an initializer for each batch).
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from math import inf
from multiprocessing.util import Finalize
from typing import Any, Final, NamedTuple

from evproc import Processor
from evproc_pool.protocol import messages, status_words
from evproc_pool.protocol.frame import Data, Frame
from evproc_pool.protocol.limits import NO_LIMITS
from evproc_pool.protocol.path_modules import take_over
from evproc_pool.protocol.registry_spec import RegistrySpec, fingerprint, load_spec
from evproc_pool.protocol.worker_output import LogLevels
from evproc_pool.serialization import pickling
from evproc_pool.serialization.basics import become_worker
from evproc_pool.worker.call_logs import CallLogs
from evproc_pool.worker.current_event import CurrentEvent
from evproc_pool.worker.loop import Worker
from evproc_pool.worker.quota import Quota

# The most registries that a process of an executor keeps; more pools than use one at a time.
_MOST_REGISTRIES: Final = 8

# Finalizers run before `multiprocessing` ends what it has; it runs higher numbers first.
_EXIT_PRIORITY: Final = 10


class Home(NamedTuple):
    """The coordinator's process, and a name for its pool."""

    pid: int
    pool: str


class Batch(NamedTuple):
    """A BATCH frame.

    Attributes:
        number: Its number among those that its worker was sent.
        payload: See `messages.BatchFrame`; it has all plans that it uses.
        buffers: Its large buffers.
        modules: The payload of a MODULES frame, or None.
    """

    number: int
    payload: bytes
    buffers: Sequence[bytearray] = ()
    modules: bytes | None = None


class Call(NamedTuple):
    """What `run` gets.

    Attributes:
        home: Where the coordinator is.
        key: Names the config.
        config: What a process needs to make the registry; None: it is expected to have it.
        expected: The READY frame that another process has answered with; None: answer with it.
        batch: What to run; None: only make the registry.
    """

    home: Home
    key: bytes
    config: bytes | None
    expected: bytes | None
    batch: Batch | None


#: A frame of the answer: tag and payload.
Answer = list[tuple[int, bytes]]

# What the pools of this process share with threads of it; see `registry_spec.Config.shared`. In
# another process, or in another interpreter of this one, there is nothing.
_homes: Final[dict[Home, Sequence[Any]]] = {}


def open_home(home: Home) -> None:
    """Have calls of a pool know the process that they came from."""
    _homes[home] = ()


def share_at_home(home: Home, shared: Sequence[Any]) -> None:
    """Give calls that land in this process what no other can get."""
    _homes[home] = shared


def close_home(home: Home, *, in_peace: bool) -> None:
    """Forget a pool of this process; if `in_peace`, call its finalizer if threads have used it."""
    _homes.pop(home, None)
    process = _this_process()
    with process.lock:
        keys = [key for key in process.places if key[1] == home]
        places = [process.places.pop(key) for key in keys]
    for each in places:
        each.end(in_peace=in_peace)


class _NoMoreError(EOFError):
    """Ends the worker's loop: the call has brought no more."""


class _CallChannel:
    """The frames of one call; see `protocol.frame.WorkerChannel`."""

    takes_buffers = False

    def __init__(self) -> None:
        self.to_read: deque[Frame] = deque()
        self.written: Answer = []

    def send(self, tag: int, payload: Data, buffers: Sequence[memoryview] = ()) -> None:
        """See `WorkerChannel`."""
        if buffers:
            raise TypeError("large buffers go with the payload here")
        self.written.append((tag, bytes(payload)))

    def receive(self) -> Frame:
        """See `WorkerChannel`."""
        if not self.to_read:
            raise _NoMoreError
        return self.to_read.popleft()


class _CallWorker:
    """A worker, and its end of the channel."""

    def __init__(self, processor: Processor, pace: Any) -> None:
        self.channel = _CallChannel()
        words = [0] * status_words.WORDS
        words[status_words.PLACE] = words[status_words.UNSENT] = status_words.NONE
        self._worker = Worker(
            self.channel, processor, words, quota=Quota(NO_LIMITS), pace=pace, has_reporter=True
        )
        self._current = CurrentEvent(words, Worker._run.__code__)  # noqa: SLF001 - it searches its frame
        self._current.handlers = processor.registry.handlers

    def log(self, record: bytes) -> None:
        """Send a log record."""
        self.channel.send(messages.LOGGED, record)

    def place(self) -> dict[str, str]:
        """What the worker is doing, as attributes of a log record."""
        found = {"evproc_handler": self._current.handler, "evproc_event": self._current.text}
        return {name: value for name, value in found.items() if value is not None}

    def run(self, batch: Batch) -> Answer:
        """Run a batch. If this raises, the worker's state is unknown."""
        buffers = [memoryview(each) for each in batch.buffers]
        self.channel.to_read.append(Frame(messages.BATCH, batch.payload, buffers))
        self._worker.count_from(batch.number)
        with contextlib.suppress(_NoMoreError):
            self._worker.run()
        answer, self.channel.written = self.channel.written, []
        return answer


class _Registry:
    """A registry of this process, and the workers that use it.

    Attributes:
        print: Its fingerprint, as a READY frame has it.
    """

    def __init__(self, call: Call, config: bytes, *, is_home: bool) -> None:
        modules, by_value, self._decimal, data, pace, levels, has_shared = pickling.loads(config)
        # at home, and in a process that was forked there, it is the application's logging
        self._levels: LogLevels | None = None if call.home in _homes else levels
        shared = _homes.get(call.home, ()) if is_home else ()
        if has_shared and not shared:
            raise TypeError(
                "initargs have a queue, a lock or a value of multiprocessing, which only a process"
                " that is being started can get: give it to the executor's own initializer"
            )
        if not is_home:
            take_over(modules, by_value)
        # nothing can be reported before the end of the call, or be packed again after it
        self._pace = pace._replace(
            target_seconds=inf, report_seconds=inf, keep_seconds=inf, batches_ahead=0
        )
        with self._context():
            self._spec: RegistrySpec = load_spec(data, shared)
            processor = self._spec.make_processor()
        self._spec = self._spec._replace(initializer=None)  # once is enough
        self._lock = threading.Lock()  # held while another worker is made
        self._idle = [_CallWorker(processor, self._pace)]
        self.print = pickling.dumps(fingerprint(processor.registry))
        self._finalizer: Finalize | None = None
        if self._spec.finalizer is not None and not is_home:
            self._finalizer = Finalize(None, self._spec.finalizer, exitpriority=_EXIT_PRIORITY)

    def run(self, batch: Batch) -> Answer:
        """Run a batch with an idle worker, or with another one."""
        try:
            worker = self._idle.pop()
        except IndexError:
            with self._lock, self._context():
                worker = _CallWorker(self._spec.make_processor(), self._pace)
        if batch.modules is not None:
            take_over(*pickling.loads(batch.modules))
        with self._context(), self._logs(worker):
            answer = worker.run(batch)
        self._idle.append(worker)  # not if it raised
        return answer

    def _logs(self, worker: _CallWorker) -> contextlib.AbstractContextManager[object]:
        if self._levels is None:
            return contextlib.nullcontext()
        return _this_process().logs.taken(self._levels, worker.log, worker.place)

    def _context(self) -> contextlib.AbstractContextManager[object]:
        if self._decimal is None:
            return contextlib.nullcontext()
        import decimal  # the coordinator uses it, too

        return decimal.localcontext(self._decimal)

    def end(self, *, in_peace: bool = True) -> None:
        """Call the finalizer, unless it was called, if `in_peace`."""
        if self._finalizer is not None:
            self._finalizer.cancel()
        if in_peace and self._spec.finalizer is not None:
            try:
                self._spec.finalizer()
            except BaseException:
                sys.excepthook(*sys.exc_info())


class _Place:
    """Where a registry is, or is being made.

    Attributes:
        calls: How many calls use it; changed with the lock of the process.
    """

    def __init__(self) -> None:
        self.calls = 0
        self._lock = threading.RLock()  # held while the registry is made
        self._registry: _Registry | None = None
        self._has_ended = False
        self._ends_in_peace = True

    def registry(self, call: Call, *, is_home: bool) -> _Registry | None:
        """Return the registry, or make it; None: the config is needed."""
        with self._lock:  # others wait: the initializer sets up what they need
            if self._registry is None and call.config is not None:
                self._registry = _Registry(call, call.config, is_home=is_home)
            found = self._registry
        if self._has_ended:
            self._end_registry()
        return found

    def end(self, *, in_peace: bool) -> None:
        """End the registry. If it is being made, who makes it ends it: nobody waits for that."""
        self._has_ended, self._ends_in_peace = True, in_peace
        self._end_registry()

    def _end_registry(self) -> None:
        if not self._lock.acquire(blocking=False):
            return
        try:
            registry, self._registry = self._registry, None
        finally:
            self._lock.release()
        if registry is not None:
            registry.end(in_peace=self._ends_in_peace)


class _Process:
    """The registries of this process, and what is logged by calls."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.RLock()
        # by the key of the config; of the coordinator's process also by pool, the last used last
        self.places: OrderedDict[tuple[bytes, Home | None], _Place] = OrderedDict()
        self.logs = CallLogs()
        self._is_worker = False

    def run(self, call: Call) -> Answer | None:
        """Run a call with the registry that it needs."""
        is_home = call.home.pid == self.pid and call.home in _homes
        key = call.key, call.home if is_home else None
        with self.lock:
            if not (is_home or self._is_worker):
                self._is_worker = True
                become_worker()
            place = self.places.setdefault(key, _Place())
            self.places.move_to_end(key)
            place.calls += 1
            gone = self._unused()
        try:
            for each in gone:
                each.end(in_peace=True)
            return _run(call, place, is_home=is_home)
        finally:
            with self.lock:
                place.calls -= 1

    def _unused(self) -> list[_Place]:
        """Take out what no call uses, of more than are kept. Those of this process's pools stay."""
        others = [key for key in self.places if key[1] is None]
        excess = max(0, len(others) - _MOST_REGISTRIES)
        unused = [key for key in others if not self.places[key].calls]
        return [self.places.pop(key) for key in unused[:excess]]


_processes: Final[list[_Process]] = []


def _this_process() -> _Process:
    """What this process has; nothing of the one that it was forked from."""
    if not _processes or _processes[0].pid != os.getpid():
        _processes[:] = [_Process()]
    return _processes[0]


def run(call: Call) -> Answer | None:
    """Run a call; see the module's text.

    Returns:
        The frames that a worker sends; None: this process needs the config. A registry that cannot
        be made answers with NOT_READY, one with another fingerprint with READY, and runs nothing.
    """
    return _this_process().run(call)


def _run(call: Call, place: _Place, *, is_home: bool) -> Answer | None:
    try:
        registry = place.registry(call, is_home=is_home)
    except BaseException as error:  # an initializer may raise SystemExit
        return [(messages.NOT_READY, pickling.dumps(messages.encode_error(error, None)))]
    if registry is None:
        return None
    if call.batch is None or (
        registry.print != call.expected
        and pickling.loads(registry.print) != pickling.loads(call.expected or registry.print)
    ):
        return [(messages.READY, registry.print)]
    return registry.run(call.batch)
