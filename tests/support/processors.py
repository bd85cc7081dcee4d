"""Events and handlers that most tests here use."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from evproc import Event, Processor
from evproc.annotations import HandlerFunc


class Named(Event):
    """An event whose name the test chooses."""

    def __init__(self, name: Any = "ev", ctxt: Any = None) -> None:
        super().__init__(ctxt)
        self._name = name

    @property
    def name(self) -> str:
        return self._name  # type: ignore[no-any-return]  # tests try other types as well

    def __repr__(self) -> str:
        return f"Named({self._name!r})"


class Recorder:
    """Makes handlers that record their calls.

    Attributes:
        calls: Handler names, in the order of the calls.
        seen: The events of these calls.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.seen: list[Any] = []

    def handler(
        self, name: str, does: Callable[[Any, Any], Iterable[Event] | None] | None = None
    ) -> HandlerFunc:
        """Make a handler of that `__name__`, which then does what `does` does."""

        def handler(proc: Processor, ev: Event) -> Iterable[Event] | None:
            self.calls.append(name)
            self.seen.append(ev)
            return None if does is None else does(proc, ev)

        handler.__name__ = name
        return handler

    def take(self) -> list[str]:
        """The calls since the last time."""
        calls, self.calls, self.seen = self.calls, [], []
        return calls


def raises(error: BaseException) -> Callable[[Any, Any], None]:
    """A body that raises."""

    def body(proc: Any, ev: Any) -> None:
        raise error

    return body


def notes(error: BaseException) -> list[str]:
    """The notes on an exception; without one it has no such attribute."""
    return list(getattr(error, "__notes__", []))
