"""Events, and the namespaces in which handlers leave data for each other.

An event's `proc` is made when it is first touched: an event that no handler
annotates costs nothing extra to make, to copy or to pickle. Namespaces keep
their data in their own instance dictionary, so reading ``ev.proc.tests.args``
is plain attribute access, and pickle and copy need no help from here.
"""

from __future__ import annotations

import abc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

#: Empty until an event emits for the first time in this process.
EMITTING: list[bool] = []


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
            f"can't set attribute {name!r}: set an attribute of a namespace, as in"
            f" ev.proc.{name}.value = ..."
        )

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"can't delete attribute {name!r}: namespaces stay")

    def __repr__(self) -> str:
        items = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({items})"


class Event(metaclass=abc.ABCMeta):
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
        """Add a result to those of the cascade; see `Outcome.emitted`."""
        if not EMITTING:
            EMITTING.append(True)
        self.__dict__.setdefault("_emitted", []).append(value)

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What kind of event this is; `@want` selects by it."""


def take_emitted(ev: Event) -> list[Any]:
    """What an event emitted since it was taken last."""
    emitted: list[Any] = ev.__dict__.pop("_emitted", [])
    return emitted


def describe_event(ev: object) -> str:
    """Name an event in an error: its name and its class. Never raises."""
    cls = type(ev)
    where = f"{cls.__module__}.{cls.__qualname__}"
    try:
        name = repr(getattr(ev, "name"))  # noqa: B009 - `ev` may be no Event at all
    except Exception:
        return where
    if len(name) > _LONGEST_NAME:
        name = name[: _LONGEST_NAME - 3] + "..."
    return f"{name} ({where})"


def a_or_an(noun: str) -> str:
    """A noun with its article, by its first letter."""
    return f"{'an' if noun[:1].lower() in 'aeio' else 'a'} {noun}"


_LONGEST_NAME = 80
