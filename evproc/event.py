"""Events, and the namespaces in which handlers leave data for each other.

An event's `proc` is made when it is first touched: an event that no handler
annotates costs nothing extra to make, to copy or to pickle. Namespaces keep
their data in their own instance dictionary, so reading ``ev.proc.tests.args``
is plain attribute access, and pickle and copy need no help from here.

What an event emits is kept in the same way, in the event itself: threads and nested
calls of `process` cannot mix the values of different events. Whoever runs handlers
takes the values when an event is over, and looks for them only once `EMITTING` is true.
"""

from __future__ import annotations

import abc
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Final, NoReturn, SupportsIndex

#: Empty until the first `Event.emit` of this process; then it holds one True. Whoever runs
#: handlers checks this one truth value as long as nobody emits.
EMITTING: Final[list[bool]] = []

#: Called at the first `Event.emit`, before `EMITTING` is true. A global that is True or False
#: is looked at in a third of the time that a list takes.
WHEN_EMITTING: Final[list[Callable[[], None]]] = []


class Namespace:
    """Holds attributes. Names that begin with an underscore are refused."""

    if TYPE_CHECKING:
        # what handlers leave here is theirs to know the type of
        def __getattr__(self, name: str) -> Any: ...

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise AttributeError(f"can't set internal attribute {name!r}")
        self.__dict__[name] = value

    def __delattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(f"can't delete internal attribute {name!r}")
        super().__delattr__(name)

    def __repr__(self) -> str:
        items = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({items})"


class ProcessorData:
    """Holds namespaces, each made when it is first read.

    The namespaces themselves cannot be set or deleted, so that handlers of
    different authors do not take each other's names.
    """

    def __getattr__(self, name: str) -> Namespace:
        # Only reached for a name that is not there yet. Python probes for
        # protocol methods (__deepcopy__, __setstate__); those must not be made.
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        # setdefault: two threads that meet here get the same namespace
        namespace: Namespace = self.__dict__.setdefault(name, Namespace())
        return namespace

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(
            f"can't set attribute {name!r}: the attributes of ev.proc are namespaces, which keep"
            f" apart what handlers leave; set it in one, as in ev.proc.billing.{name} = ..."
        )

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"can't delete attribute {name!r}: namespaces stay")

    def __repr__(self) -> str:
        items = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({items})"


class _AbstractName:
    """`Event.name`: a subclass says it, or annotates it, and each event has its own.

    No property, which would hide a name in the event's instance dictionary, where those of
    dataclasses and Pydantic models are.
    """

    __isabstractmethod__ = True
    __doc__ = "What kind of event this is; `@want` selects by it."

    def __get__(self, ev: object, cls: type) -> _AbstractName:
        what = f"class {cls.__module__}.{cls.__qualname__}"
        if ev is not None:
            raise AttributeError(f"an event of {what} has no name")
        if any("name" in _annotations(base) for base in cls.__mro__):
            # a dataclass would take anything that is given here for the field's default
            raise AttributeError(f"{what} has no name: its events have")
        return self


class _NameOfClass:
    """Abstract for as long as `name` is; see below where it is set."""

    def __get__(self, ev: object, cls: Any) -> object:
        return getattr(cls, "name", None)


def _annotations(cls: type) -> Iterable[str]:
    """The names that a class itself annotates."""
    own: Iterable[str] = vars(cls).get("__annotations__", ())
    if sys.version_info >= (3, 14):  # pragma: no cover - made when they are asked for there
        try:
            own = cls.__annotations__
        except Exception:
            return own  # one of them cannot be evaluated yet
    return own


class Event(metaclass=abc.ABCMeta):  # noqa: B024 - `_AbstractName` is abstract
    """Something that happened, for handlers to act on.

    A subclass says its `name`, as a class attribute or as a property. A
    subclass need not call `__init__`: `ctxt` is None then.

    Args:
        ctxt: Anything that the handlers need to know besides the event.
    """

    if TYPE_CHECKING:
        ctxt: Any = None
    else:
        # `typing.get_type_hints` of a subclass would look for the name
        ctxt = None

    # what tells the classes of events, the quickest way there is
    _evproc_event = True

    def __init__(self, ctxt: Any = None) -> None:
        self.ctxt = ctxt

    @property
    def proc(self) -> ProcessorData:
        """Where handlers leave data for the handlers that run after them."""
        try:
            data: ProcessorData = self.__dict__["_proc"]
        except KeyError:
            # into __dict__, which a frozen dataclass allows too; setdefault,
            # so that two threads that meet here get the same object
            data = self.__dict__.setdefault("_proc", ProcessorData())
        return data

    def emit(self, value: Any) -> None:
        """Give the caller a value without ending anything; as often as you like.

        For handlers of this event, while they run: what was emitted before is forgotten.
        `Processor.emitted` holds the values of a whole cascade. An event that fails has
        emitted nothing.
        """
        try:
            self.__dict__["_emitted"].append(value)
        except KeyError:
            if not EMITTING:
                _begin_emitting()
            self.__dict__.setdefault("_emitted", Emitted()).append(value)

    if TYPE_CHECKING:

        @property
        @abc.abstractmethod
        def name(self) -> str:
            """What kind of event this is; `@want` selects by it."""
    else:
        name = _AbstractName()


# Python says that the class "is abstract with abstract method ..." and names it. It is given a
# name that says what to write. Checked with 3.10 to 3.13; without it, it says "name".
_HOW_TO_NAME: Final = 'name (write name = "..." in the class)'
setattr(Event, _HOW_TO_NAME, _NameOfClass())
Event.__abstractmethods__ = frozenset({_HOW_TO_NAME})


class Emitted(list["Any"]):
    """What an event has emitted. A copy of an event, or its pickle, has emitted nothing."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return Emitted, ()


def _begin_emitting() -> None:
    for call in WHEN_EMITTING:
        call()
    EMITTING[:] = (True,)


def take_emitted(ev: object) -> list[Any]:
    """Take what an event has emitted since it was taken last."""
    emitted: Emitted | None = getattr(ev, "__dict__", {}).pop("_emitted", None)
    if not emitted:
        return []
    values = list(emitted)
    emitted.clear()  # a shallow copy of the event has the same list
    return values


def put_back_emitted(ev: object, values: list[Any]) -> None:
    """Undo `take_emitted`."""
    vars(ev)["_emitted"] = Emitted(values)


def describe_event(ev: object) -> str:
    """Name an event in an error: its name, its class, and its repr if the class defines one.

    One line of a limited length. Never raises.
    """
    cls = type(ev)
    where = f"{cls.__module__}.{cls.__qualname__}"
    try:
        name = repr(getattr(ev, "name"))  # noqa: B009 - `ev` may be no Event at all
        name = shortened(name, _LONGEST_NAME)
    except Exception:
        name = ""
    if cls.__repr__ is not object.__repr__:
        room = max(_SHORTEST_REPR, _LONGEST_EVENT - len(f"{name} ({where}: )"))
        try:  # noqa: SIM105 - `contextlib` takes long to import
            where += f": {shortened(repr(ev), room)}"
        except Exception:  # noqa: S110 - it is named all the same
            pass
    return f"{name} ({where})" if name else where


def shortened(text: str, most: int) -> str:
    """A text in one line, of so many characters at the most."""
    text = " ".join(text[: 4 * most].splitlines())  # it may be huge
    return text if len(text) <= most else text[: most - 3] + "..."


def a_or_an(noun: str) -> str:
    """A noun with its article, by its first letter."""
    return f"{'an' if noun[:1].lower() in 'aeio' else 'a'} {noun}"


_LONGEST_NAME = 80
_LONGEST_EVENT = 120
_SHORTEST_REPR = 20
