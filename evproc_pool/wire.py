"""What crosses between the coordinator and a worker, as bytes.

A frame is a tag and a payload. Events are packed many at a time (`PackedEvents`),
in one pass of pickle. Events of one class that pickles in Python's default way go
as the class and a list of instance dictionaries, which takes a third of the time
of pickling the instances. Where packing fails, or unpacking does on the other
side, the same events are packed again with a pickle for each, so that the one at
fault is found and fails alone.

What plain pickle cannot take, or takes by a reference into ``__main__`` (which is
another module in a worker), goes through cloudpickle, by value.

Handlers never cross here: a plan is sent once per worker, as indices into the
registry, and known by a number from then on.
"""

from __future__ import annotations

import copyreg
import functools
import inspect
import io
import itertools
import operator
import pickle
import struct
import sys
import threading
import traceback
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import cloudpickle

from evproc.exc import add_note
from evproc_pool.errors import RemoteError, SerializationError, chain_remote, rebuild_plain

PROTOCOL: Final = 5

# coordinator to worker
CONFIG: Final = 1
BATCH: Final = 2
QUIT: Final = 3
REPACKED: Final = 4  # a batch that was UNREADABLE, packed one by one; goes before others
REPACK: Final = 5  # the follow-ups of a PROGRESS frame cannot be unpacked: again, one by one
EVENTS: Final = 6  # a batch of the usual kind, without the trimmings of BATCH
# worker to coordinator
READY: Final = 16
NOT_READY: Final = 17
PROGRESS: Final = 18
UNREADABLE: Final = 19
FOLLOW_UPS: Final = 20  # the answer to REPACK
SKIPPED: Final = 21  # a batch was taken back before it began
LEAVING: Final = 23  # the worker has used up its quota, or (NEARLY) will have soon
NEARLY: Final = 24
QUIET: Final = 22  # PROGRESS of the usual kind: events of one plan, which left nothing behind

#: Marks the position of an event that could not be packed; the worker passes over it.
OMITTED: Final = -1

# how deep the search for what cannot be pickled goes
_DEEPEST: Final = 12

# For fewer events than that, pickling their states apart costs more than it saves.
_WORTHWHILE: Final = 16

# Values that cannot fail to unpickle, and so may share a pickle with others.
_ATOMS: Final = frozenset({type(None), bool, int, float, complex, str, bytes})


class BatchFrame(NamedTuple):
    """A batch as the worker sees it.

    Attributes:
        new_plans: Plan numbers that the worker has not seen, with their indices.
        plans: The plan number of each event, or OMITTED; one number if it is the same
            for all.
        size: How many events.
        chains: Start and stop of the positions where one that ends its cascade
            leaves the rest unrun.
        return_events: The positions of events that are to come back as the handlers
            left them.
        overdue: How long it may take, in seconds, before the rest is given back.
        events: The events.
    """

    new_plans: Sequence[tuple[int, tuple[int, ...]]]
    plans: Sequence[int] | int
    size: int
    chains: Sequence[tuple[int, int]]
    return_events: Sequence[int]
    overdue: float
    events: PackedEvents


class ErrorRecord(NamedTuple):
    """An exception on its way, in plain data besides its own pickle.

    Attributes:
        handler: The handler that raised it, or None.
        pickled: The exception, or None where it cannot be pickled and rebuilt.
        bases: Module and qualified name of its type, and of all bases of that, in order.
        text: `str` of it.
        traceback: As text.
        notes: Its notes, which a class's own pickling may lose.
    """

    handler: str | None
    pickled: bytes | None
    bases: tuple[str, ...]
    text: str
    traceback: str
    notes: tuple[str, ...]


class ProgressFrame(NamedTuple):
    """What a worker has done since its last frame.

    Attributes:
        done: Envelopes of the batch that are over.
        begun: When the first of those since the last frame began, in seconds of the
            worker's clock.
        ends: When each of them was over, as C doubles.
        timings: Plan number, events, and their seconds; None if all are of one plan.
        gave_back: Whether the rest of the batch is left unrun.
        told: What the events left behind; None if that is nothing.
    """

    done: int
    begun: float
    ends: bytes | bytearray
    timings: Sequence[tuple[int, int, float]] | None
    gave_back: bool
    told: Told | None


class Told(NamedTuple):
    """What events left behind.

    Attributes:
        number: Which frame with follow-ups this is, for REPACK.
        givers: Positions that returned follow-ups.
        counts: How many each; empty where it is one each.
        follow_ups: All of them, in order.
        values: Positions that were stopped, with the value.
        processed: Positions, with the event as the handlers left it.
        errors: Positions that failed.
    """

    number: int
    givers: Sequence[int]
    counts: Sequence[int]
    follow_ups: PackedEvents
    values: Sequence[tuple[int, PackedValue]]
    processed: Sequence[tuple[int, PackedValue]]
    errors: Sequence[tuple[int, ErrorRecord]]


_EVENTS_HEAD: Final = struct.Struct("<IId")  # plan number, events, overdue
_QUIET_HEAD: Final = struct.Struct("<I?d")  # done, whether the rest is given back, begun


def dump_events(plan: int, size: int, overdue: float, pickled: bytes) -> bytes:
    """The payload of an EVENTS frame.

    Args:
        plan: The number of the plan of all of them, known to the worker.
        size: How many.
        overdue: See `BatchFrame`.
        pickled: Packed together.
    """
    return _EVENTS_HEAD.pack(plan, size, overdue) + pickled


def load_events(payload: bytes | bytearray) -> BatchFrame:
    """Its opposite."""
    plan, size, overdue = _EVENTS_HEAD.unpack_from(payload)
    packed = PackedEvents(False, memoryview(payload)[_EVENTS_HEAD.size :])
    return BatchFrame((), plan, size, (), (), overdue, packed)


def dump_quiet(done: int, ends: bytes, begun: float, *, gave_back: bool) -> bytes:
    """The payload of a QUIET frame; see `ProgressFrame`."""
    return _QUIET_HEAD.pack(done, gave_back, begun) + ends


def load_quiet(payload: bytes | bytearray) -> ProgressFrame:
    """Its opposite."""
    done, gave_back, begun = _QUIET_HEAD.unpack_from(payload)
    return ProgressFrame(done, begun, payload[_QUIET_HEAD.size :], None, gave_back, None)


def dump_progress(frame: ProgressFrame) -> bytes:
    """The payload of a PROGRESS frame."""
    if frame.told is not None:
        frame = frame._replace(told=tuple(frame.told))  # type: ignore[arg-type]
    return dumps(tuple(frame))


def load_progress(payload: bytes | bytearray) -> ProgressFrame:
    """Its opposite."""
    frame = ProgressFrame(*loads(payload))
    return frame if frame.told is None else frame._replace(told=Told(*frame.told))


class PackedEvents(NamedTuple):
    """Events, ready to travel.

    Attributes:
        one_by_one: Whether `data` is a list with a pickle for each.
        data: Otherwise one pickle of all.
        in_parts: Whether it is a list of `sealed.SealedOrPacked` instead.
    """

    one_by_one: bool
    data: Any
    in_parts: bool = False


class PackedValue(NamedTuple):
    """A value: itself if it is one of Python's atoms, or else its pickle."""

    is_pickled: bool
    data: Any


NO_EVENTS: Final = PackedEvents(one_by_one=True, data=())


class _SameObjectTwice(Exception):
    """An object stands for two events; one by one they come out as two."""


class _EventInside(Exception):
    """An event refers to another one of these classes, or to itself."""


def _refuse(instance: object) -> Any:  # noqa: ARG001 - as `copyreg` calls it
    raise _EventInside


class EventPacker:
    """Packs events. Remembers which classes pickle in Python's default way.

    A class that has to go by value, one of ``__main__`` for example, goes once with each
    batch, as it is then.
    """

    def __init__(self) -> None:
        self._has_default_state: WeakKeyDictionary[type, bool] = WeakKeyDictionary()
        self._goes_by_value: WeakKeyDictionary[type, bool] = WeakKeyDictionary()

    def pack(self, events: Sequence[Any]) -> PackedEvents:
        """Pack all events in one pass.

        Raises:
            Exception: Whatever pickling raised; `pack_one_by_one` finds out where.
        """
        if has_same_twice(events):
            raise _SameObjectTwice  # it would come out as one object, in some batches
        kinds = list(dict.fromkeys(map(type, events)))
        if len(events) >= _WORTHWHILE * len(kinds) and all(map(self.is_plain, kinds)):
            states = self._dump_states(kinds, events)
            if states is not None:
                numbers = {kind: number for number, kind in enumerate(kinds)}
                which = map(numbers.__getitem__, map(type, events))
                order = array("H", which).tobytes() if len(kinds) > 1 else b""
                named = [self._named(kind) for kind in kinds]
                return PackedEvents(False, pickle.dumps((named, order, states), PROTOCOL))
        by_value = any(map(_lives_in_main, kinds))
        return PackedEvents(False, dumps((None, b"", events), by_value=by_value))

    def is_plain(self, kind: type) -> bool:
        """Whether instances of a class can go as their states."""
        known = self._has_default_state.get(kind)
        if known is None:
            known = self._has_default_state[kind] = has_default_state(kind)
        return known

    def _dump_states(self, kinds: Sequence[type], events: Sequence[Any]) -> bytes | None:
        """The states of events, pickled; None where that would not be the same as the events."""
        buffer = io.BytesIO()
        pickler = pickle.Pickler(buffer, PROTOCOL)
        # An instance of such a class inside a state would come out as another object than
        # the event that it is: with plain pickling it does not.
        pickler.dispatch_table = {**copyreg.dispatch_table, **dict.fromkeys(kinds, _refuse)}
        try:
            pickler.dump(list(map(_state_of, events)))
        except KeyboardInterrupt:
            raise
        except BaseException:
            return None
        data = buffer.getvalue()
        return None if _MAIN in data else data

    def _named(self, kind: type) -> type | bytes:
        """A class, or its pickle where a reference will not do: as it is now."""
        if kind not in self._goes_by_value:
            self._goes_by_value[kind] = dumps(kind) != _reference_to(kind)
        return dumps(kind, by_value=True) if self._goes_by_value[kind] else kind


def _reference_to(kind: type) -> bytes | None:
    try:
        return pickle.dumps(kind, PROTOCOL)
    except Exception:
        return None


def has_same_twice(events: Sequence[Any]) -> bool:
    """Whether an object stands for two of the events."""
    return len(set(map(id, events))) < len(events)


_state_of: Final = operator.attrgetter("__dict__")


def has_default_state(kind: Any) -> bool:
    """Whether instances pickle as their class and their `__dict__`, and nothing else."""
    inherited = ("__new__", "__reduce_ex__", "__reduce__", "__getstate__", "__setattr__")
    return (
        all(getattr(kind, name, None) is getattr(object, name, None) for name in inherited)
        and not any(hasattr(kind, name) for name in _PICKLE_HOOKS)
        and kind not in copyreg.dispatch_table
        and kind.__dictoffset__ != 0
        and not any("__slots__" in vars(base) for base in kind.__mro__)
    )


_PICKLE_HOOKS: Final = ("__setstate__", "__getnewargs__", "__getnewargs_ex__")


def unpack(packed: PackedEvents) -> list[Any]:
    """The events of a `pack`.

    Raises:
        Exception: Whatever unpickling raised.
    """
    kinds, order, content = loads(packed.data)
    if kinds is None:
        return list(content)
    kinds = [loads(kind) if isinstance(kind, bytes) else kind for kind in kinds]
    if order:
        return instances(map(kinds.__getitem__, memoryview(order).cast("H")), loads(content))
    return instances(itertools.repeat(kinds[0]), loads(content))


def instances(kinds: Iterable[type], states: Iterable[dict[str, Any]]) -> list[Any]:
    """Events of classes that pickle in Python's default way: the class and the state of each."""
    new = object.__new__
    events: list[Any] = []
    for kind, state in zip(kinds, states):  # noqa: B905 - `kinds` may be endless
        event: Any = new(kind)
        event.__dict__ = state
        events.append(event)
    return events


def pack_value(value: object) -> PackedValue:
    """Pack a value.

    Raises:
        Exception: Whatever pickling raised.
    """
    if type(value) in _ATOMS:
        return PackedValue(False, value)
    return PackedValue(True, dumps(value))


def unpack_value(packed: PackedValue) -> Any:
    """Its opposite.

    Raises:
        SerializationError: It cannot be rebuilt here.
    """
    if not packed.is_pickled:
        return packed.data
    try:
        return loads(packed.data)
    except Exception as error:
        raise cannot_rebuild("the value given to StopProcessing", error) from error


class _Process:
    """What kind of process this is.

    Attributes:
        is_worker: Whether the classes that come by value are the coordinator's.
    """

    is_worker = False


# Classes that came here by value, and are nobody's own here.
_came: Final[WeakSet[type]] = WeakSet()


def be_worker() -> None:
    """From now on classes that come by value are set again each time, to what they are there.

    In the coordinator those that are its own stay as they are: a worker sends them back as
    copies of the coordinator's, with methods that do not see its ``__main__``.
    """
    _Process.is_worker = True


class _Unpickler(pickle.Unpickler):
    """Leaves alone what cloudpickle has sent from here by value, and finds again."""

    def __init__(self, data: bytes | bytearray) -> None:
        super().__init__(io.BytesIO(data))
        with cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_LOCK:  # noqa: SLF001 - no public way
            tracked = list(cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS)  # noqa: SLF001
        self._own = {id(kind) for kind in tracked if kind not in _came}
        self._tracked = tracked  # alive meanwhile, and so no other object has its id

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        return functools.partial(self._set_state, found) if name == _SET_STATE else found

    def _set_state(self, set_state: Any, kind: Any, state: object) -> object:
        if id(kind) in self._own:
            return kind
        _came.add(kind)
        return set_state(kind, state)


_SET_STATE: Final = "_class_setstate"
_KNOWS_CLOUDPICKLE: Final = all(
    hasattr(cloudpickle.cloudpickle, name)
    for name in (_SET_STATE, "_DYNAMIC_CLASS_TRACKER_LOCK", "_DYNAMIC_CLASS_TRACKER_BY_CLASS")
)


# What pickling raises as it is. In the caller's process an interrupt is one; in a worker,
# which ignores Ctrl-C, it is something that code of the user's has raised.
_as_they_are: tuple[type[BaseException], ...] = (Exception, KeyboardInterrupt)


def ignore_interrupts() -> None:
    """From now on a `KeyboardInterrupt` in pickling is an error like others."""
    global _as_they_are  # noqa: PLW0603 - once, in a worker
    _as_they_are = (Exception,)


class PicklingExit(Exception):
    """User code raised what is no `Exception` while it was pickled or rebuilt.

    Nobody who pickles is prepared for, say, `SystemExit`; and it does not mean us.
    """


def dumps(value: object, *, by_value: bool = False) -> bytes:
    """Pickle, by value where a reference would not be found on the other side.

    Args:
        value: What to pickle.
        by_value: It is known that there would be such a reference.

    Raises:
        Exception: Whatever pickling raised; see `explain_failure`.
    """
    try:
        if by_value or _lives_in_main(type(value)):
            return _by_value(value)
        try:
            data = pickle.dumps(value, PROTOCOL)
        except Exception:
            # lambdas, local classes and the like
            return _by_value(value)
        # Maybe a reference into this process's __main__. That it may be only a text
        # costs time and nothing else.
        return _by_value(value) if _MAIN in data else data
    except _as_they_are:
        raise
    except BaseException as error:
        raise PicklingExit(f"{type(error).__name__}: {text_of(error)}") from error


# as it ends, in a process that multiprocessing made, too: there it is __mp_main__
_MAIN: Final = b"_main__"


def _lives_in_main(kind: type) -> bool:
    """Whether a class is this process's main script's, or a name in another's."""
    return kind.__module__ in ("__main__", "__mp_main__")


def _by_value(value: object) -> bytes:
    main = sys.modules.get("__mp_main__")
    if main is None:
        return bytes(cloudpickle.dumps(value, PROTOCOL))
    # the main script, under the name that it has in a child of multiprocessing
    with _main_by_value:
        if main.__name__ in cloudpickle.list_registry_pickle_by_value():
            return bytes(cloudpickle.dumps(value, PROTOCOL))  # somebody else wants it so
        cloudpickle.register_pickle_by_value(main)
        try:
            return bytes(cloudpickle.dumps(value, PROTOCOL))
        finally:
            cloudpickle.unregister_pickle_by_value(main)


# cloudpickle's registry is one for all threads; reentrant, since pickling may pickle
_main_by_value: Final = threading.RLock()


def loads(data: bytes | bytearray | memoryview) -> Any:
    """Unpickle.

    Raises:
        Exception: Whatever unpickling raised.
    """
    try:
        if not _Process.is_worker and _KNOWS_CLOUDPICKLE:
            content = bytes(data) if isinstance(data, memoryview) else data
            if _SET_STATE.encode() in content:
                return _Unpickler(content).load()
        return pickle.loads(data)
    except _as_they_are:
        raise
    except BaseException as error:
        raise PicklingExit(f"{type(error).__name__}: {text_of(error)}") from error


def cannot_pickle(
    what: str,
    value: object,
    cause: BaseException,
    advice: str = (
        "keep it out of what crosses to another process, or give its class a __reduce__"
    ),
) -> SerializationError:
    """Say which part of a value cannot be pickled."""
    path, part = _find_culprit(value)
    where = f" at {path.strip()}" if path else ""
    error = SerializationError(
        f"{what} cannot be pickled{where} ({type(part).__qualname__}):"
        f" {type(cause).__name__}: {text_of(cause)}; {advice}"
    )
    error.__cause__ = cause
    return error


def cannot_rebuild(what: str, cause: BaseException) -> SerializationError:
    """Say that something was pickled but cannot be unpickled on the other side."""
    error = SerializationError(
        f"{what} was pickled, but cannot be rebuilt on the other side:"
        f" {type(cause).__name__}: {text_of(cause)}; can its class be imported there, and does its"
        " __reduce__ or __setstate__ take what it gives?"
    )
    error.__cause__ = cause
    return error


def _find_culprit(value: object) -> tuple[str, object]:
    """The path to the deepest part that fails by itself, and that part."""
    path = ""
    for _ in range(_DEEPEST):
        for step, part in _parts(value):
            if not can_pickle(part):
                path, value = path + step, part
                break
        else:
            break
    return path, value


def can_pickle(value: object) -> bool:
    """Whether pickling a value raises nothing."""
    try:
        dumps(value)
    except Exception:
        return False
    return True


def _parts(value: object) -> list[tuple[str, object]]:
    """The parts of a value, each with the step that leads to it; none if it resists."""
    try:
        if isinstance(value, dict):
            return [(f"[{key!r}]", item) for key, item in value.items()]
        if isinstance(value, (list, tuple)):
            return [(f"[{place}]", item) for place, item in enumerate(value)]
        if inspect.isfunction(value):  # it goes by value
            used = inspect.getclosurevars(value)
            return [
                (f" variable {name!r}", item)
                for name, item in (*used.nonlocals.items(), *used.globals.items())
            ]
        attributes = getattr(value, "__dict__", None)
        if isinstance(attributes, dict):
            return [(f".{name}", item) for name, item in attributes.items()]
    except Exception:  # noqa: S110 - then the whole of it is named
        pass
    return []


def text_of(error: BaseException) -> str:
    """`str` of an exception, or what can be said where that fails."""
    try:
        return str(error)
    except BaseException:
        return "<unprintable>"


def encode_error(error: BaseException, handler: str | None) -> ErrorRecord:
    """Turn an exception into what can cross in any case. Never raises."""
    kind = type(error)
    text = text_of(error)
    try:
        lines = "".join(traceback.format_exception(kind, error, error.__traceback__))
    except BaseException:
        lines = f"{kind.__qualname__}: {text}\n"
    try:
        notes = tuple(note for note in getattr(error, "__notes__", ()) if isinstance(note, str))
    except BaseException:
        notes = ()
    bases = tuple([f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__])
    return ErrorRecord(handler, _pickle_error(error), bases, text, lines, notes)


class _WithoutConstructor:
    """Pickles as an exception that is rebuilt without its class's constructor.

    Python rebuilds an exception by calling its class with its `args`, which fails or
    differs for a constructor that wants something else than it gives to its base.
    """

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        error = self._error
        return rebuild_plain, (type(error), error.args), error.__dict__


def _pickle_error(error: BaseException) -> bytes | None:
    """Pickle an exception such that it can be rebuilt as what it is; None: there is no way."""
    nearly: bytes | None = None
    ways: list[object] = [error]
    if type(error).__reduce__ is BaseException.__reduce__:
        ways.append(_WithoutConstructor(error))
    for content in ways:
        try:
            pickled = dumps(content)
            # one that cannot be rebuilt is found here rather than there
            copy = loads(pickled)
            if type(copy) is not type(error):
                continue
            nearly = nearly or pickled
            if copy.args == error.args:
                return pickled
        except Exception:  # noqa: S112 - there is another way, or none
            continue
    return nearly


def decode_error(record: ErrorRecord) -> BaseException:
    """Rebuild an exception; where that is not possible, a `RemoteError`."""
    error: BaseException | None = None
    if record.pickled is not None:
        try:
            error = loads(record.pickled)
        except Exception:
            error = None
    if not isinstance(error, BaseException):
        error = RemoteError(record.bases[0], record.text, record.traceback, record.bases)
    for note in record.notes:
        add_note(error, note)
    return chain_remote(error, record.traceback)
