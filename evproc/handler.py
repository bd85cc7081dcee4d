"""`Handler`, a registered handler, and `Plan`, the ordered handlers for an event."""

from __future__ import annotations

from evproc.decorator import declarations_of, describe_callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from evproc.annotations import HandlerFunc
    from evproc.origin import Origin


class Handler:
    """A named handler with what it declares. Do not change it.

    Attributes:
        index: Its place in registration order, from 0.
        name: Its name in the registry.
        func: The callable that takes the Processor and the Event.
        clauses: Its `@want` clauses, top first; empty: wants every event.
        requires: Names of handlers that run before it.
        required_by: Names of handlers that it runs before.
        origin: The entry point it was loaded from, or None.
    """

    __slots__ = ("clauses", "func", "index", "name", "origin", "required_by", "requires")

    def __init__(self, index: int, name: str, func: HandlerFunc, origin: Origin | None) -> None:
        self.index = index
        self.name = name
        self.func = func
        self.clauses, self.requires, self.required_by = declarations_of(func)
        self.origin = origin

    def at(self, index: int) -> Handler:
        """Return the same handler in another place."""
        moved = object.__new__(Handler)
        for name in self.__slots__:
            setattr(moved, name, getattr(self, name))
        moved.index = index
        return moved

    def __repr__(self) -> str:
        return f"<handler {self.name!r} ({describe_callable(self.func)})>"


class Plan:
    """The ordered handlers for one event. Equal events of one registry share it.

    Attributes:
        handlers: In the order in which they run.
        indices: Their places in the registry; a worker gets these.
    """

    __slots__ = ("handlers", "indices")

    def __init__(self, handlers: tuple[Handler, ...]) -> None:
        self.handlers = handlers
        self.indices = tuple(handler.index for handler in handlers)
