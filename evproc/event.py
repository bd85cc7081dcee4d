"""Events, and the namespaces in which handlers leave data for each other.

An event's `proc` is made at the first access. An event without it costs nothing extra to make,
to copy or to pickle. Namespaces keep their data in their own instance dictionary. So reading
``ev.proc.tests.args`` is plain attribute access, and pickle and copy need no help from here.

Emitted values are kept in the event itself, too: threads and nested calls of `process` cannot mix
the values of different events. The code that runs handlers takes the values when an event is
over. It looks for them only once `EMITTING` is true.
"""

from __future__ import annotations

import abc
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Final, NoReturn, SupportsIndex

#: Empty until the first `Event.emit` of this process; then it holds one True. Until then the code
#: that runs handlers checks this one truth value only.
EMITTING: Final[list[bool]] = []

#: Called at the first `Event.emit`, before `EMITTING` is true. A module may keep a global bool
#: this way, which is read in a third of the time of a list.
WHEN_EMITTING: Final[list[Callable[[], None]]] = []


class Namespace:
    """Holds attributes. Names that begin with an underscore are refused."""

    if TYPE_CHECKING:
        # handlers know the types of what they leave here
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

    The namespaces themselves cannot be set or deleted, so that handlers of different authors do
    not take each other's names.
    """

    def __getattr__(self, name: str) -> Namespace:
        # Called only for a name that does not exist yet. Python probes for protocol methods
        # (__deepcopy__, __setstate__): these are no namespaces.
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
    """`Event.name`: a subclass sets it, or annotates it and each event sets its own.

    No property: that would hide a name in the event's instance dictionary, in which dataclasses
    and Pydantic models keep theirs.
    """

    __isabstractmethod__ = True
    __doc__ = "The kind of this event; `@want` selects by it."

    def __get__(self, ev: object, cls: type) -> _AbstractName:
        what = f"class {cls.__module__}.{cls.__qualname__}"
        if ev is not None:
            raise AttributeError(f"an event of {what} has no name")
        if any("name" in _annotations(base) for base in cls.__mro__):
            # a dataclass would take any value returned here for the field's default
            raise AttributeError(f"{what} has no name: its events have")
        return self


class _NameOfClass:
    """Abstract as long as `name` is; see `_HOW_TO_NAME`."""

    def __get__(self, ev: object, cls: Any) -> object:
        return getattr(cls, "name", None)


def _annotations(cls: type) -> Iterable[str]:
    """Return the names that a class itself annotates."""
    own: Iterable[str] = vars(cls).get("__annotations__", ())
    if sys.version_info >= (3, 14):  # pragma: no cover - they are made at the first access there
        try:
            own = cls.__annotations__
        except Exception:
            return own  # one of them cannot be evaluated yet
    return own


class Event(metaclass=abc.ABCMeta):  # noqa: B024 - `_AbstractName` is abstract
    """Something that happened, for handlers to act on.

    A subclass sets its `name`, as a class attribute or as a property. A
    subclass need not call `__init__`: `ctxt` is None then.

    Args:
        ctxt: Anything else that the handlers need to know.
    """

    if TYPE_CHECKING:
        ctxt: Any = None
    else:
        # `typing.get_type_hints` of a subclass would look for the name
        ctxt = None

    # by its presence classes of events are known, in the quickest way
    _evproc_event = True

    def __init__(self, ctxt: Any = None) -> None:
        self.ctxt = ctxt

    @property
    def proc(self) -> ProcessorData:
        """The namespaces in which handlers leave data for the handlers that run after them."""
        try:
            data: ProcessorData = self.__dict__["_proc"]
        except KeyError:
            # Into __dict__, which a frozen dataclass allows, too. By setdefault: two threads
            # that meet here get the same object.
            data = self.__dict__.setdefault("_proc", ProcessorData())
        return data

    def emit(self, value: Any) -> None:
        """Give the caller a value without ending anything; as often as you like.

        For handlers of this event, while they run: values emitted before that are dropped.
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
            """The kind of this event; `@want` selects by it."""
    else:
        name = _AbstractName()


# Python's error names the abstract methods of a class. This one has a name that says what to
# write. Checked with Python 3.11 to 3.15; if it did not work, the error would say "name".
_HOW_TO_NAME: Final = 'name (write name = "..." in the class)'
setattr(Event, _HOW_TO_NAME, _NameOfClass())
Event.__abstractmethods__ = frozenset({_HOW_TO_NAME})


class Emitted(list["Any"]):
    """The values that an event emitted. A copy of an event, or its pickle, has none."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return Emitted, ()


def _begin_emitting() -> None:
    for call in WHEN_EMITTING:
        call()
    EMITTING[:] = (True,)


def take_emitted(ev: object) -> list[Any]:
    """Take the values that an event emitted since the last call."""
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
    where = class_name(cls)
    try:
        name = repr(getattr(ev, "name"))  # noqa: B009 - `ev` may be no Event at all
        name = shortened(name, _LONGEST_NAME)
    except Exception:
        name = ""
    try:
        if cls.__repr__ is not object.__repr__:
            room = max(_SHORTEST_REPR, _LONGEST_EVENT - len(f"{name} ({where}: )"))
            where += f": {shortened(repr(ev), room)}"
    except Exception:  # noqa: S110 - it is named all the same
        pass
    return f"{name} ({where})" if name else where


def qualname(cls: type) -> str:
    """Return the qualified name of a class, from the class itself: its metaclass may raise."""
    name: str = _QUALNAME(cls)
    return name


def module_of(cls: type) -> str:
    """Return the name of the module of a class, likewise."""
    try:
        name = _MODULE(cls)
    except AttributeError:
        return "builtins"  # `type` makes such classes, if there is no frame
    return name if type(name) is str else "<unknown>"


def class_name(cls: type) -> str:
    """Return module and qualified name of a class, likewise."""
    return f"{module_of(cls)}.{qualname(cls)}"


_QUALNAME = type.__dict__["__qualname__"].__get__
_MODULE = type.__dict__["__module__"].__get__


def shortened(text: str, most: int) -> str:
    """Return a text in one line, of at most `most` characters."""
    text = " ".join(text[: 4 * most].splitlines())  # it may be huge
    return text if len(text) <= most else text[: most - 3] + "..."


def a_or_an(noun: str) -> str:
    """Return a noun with its article, by its first letter."""
    return f"{'an' if noun[:1].lower() in 'aeio' else 'a'} {noun}"


_LONGEST_NAME = 80
_LONGEST_EVENT = 120
_SHORTEST_REPR = 20
