"""What cannot be a handler, or an event's name, and what is said to do instead."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import evproc
from evproc import Processor, want
from tests.support.processors import Named


def two(proc: Any, ev: Any) -> None: ...
def more(proc: Any, ev: Any, *, extra: int = 1) -> None: ...
def default(proc: Any, ev: Any, extra: int = 1) -> None: ...
def defaults_only(proc: Any = None, ev: Any = None) -> None: ...
def any_number(*args: Any) -> None: ...
def one_and_any(proc: Any, *args: Any, **kwargs: Any) -> None: ...
def positional(proc: Any, ev: Any, /) -> None: ...
def three(first: Any, proc: Any, ev: Any) -> None: ...
def with_keyword(proc: Any, ev: Any, *, extra: int) -> None: ...
def any_keyword(proc: Any, ev: Any, **kwargs: Any) -> None: ...
def none_at_all() -> None: ...
def one(ev: Any) -> None: ...
def only_keywords(*, proc: Any, ev: Any) -> None: ...


@functools.wraps(one)
def wrapper(proc: Any, ev: Any) -> None: ...


@functools.wraps(one)
def wide_wrapper(*args: Any, **kwargs: Any) -> None: ...


class Calls:
    def __init__(self, *given: Any) -> None: ...
    def __call__(self, proc: Any, ev: Any) -> None: ...
    def method(self, proc: Any, ev: Any) -> None: ...
    def short(self, ev: Any) -> None: ...

    @classmethod
    def of_class(cls, proc: Any, ev: Any) -> None: ...
    @staticmethod
    def static(proc: Any, ev: Any) -> None: ...


class CallsShort:
    def __call__(self, ev: Any) -> None: ...


class CallsObject:
    __call__ = Calls()


class MadeOfTwo:
    def __init__(self, proc: Any, ev: Any) -> None: ...
    def __iter__(self) -> Any:
        return iter(())


class MadeOfOne:
    def __init__(self, ev: Any) -> None: ...


GOOD: dict[str, Any] = {
    **{
        each.__name__: each
        for each in (two, more, default, defaults_only, any_number, one_and_any, positional)
    },
    "wrapper": wrapper,
    "wide wrapper": wide_wrapper,
    "lambda": lambda proc, ev: None,
    "object": Calls(),
    "object in object": CallsObject(),
    "method": Calls().method,
    "method of class": Calls.of_class,
    "static": Calls.static,
    "class": MadeOfTwo,
    "partial": functools.partial(three, 1),
    "partial with keyword": functools.partial(with_keyword, extra=1),
    "partial with any keyword": functools.partial(any_keyword, extra=1),
    "partial of partial": functools.partial(functools.partial(three, 1)),
    "partial of method": functools.partial(Calls().method),
    "partial of object": functools.partial(Calls()),
    "written in C": [].__class__.__eq__,
    "written in C, with any number": print,
    "without a signature": type.__call__,
}
UNTYPED: Any = functools.partial  # a type checker finds these mistakes, too
BAD: dict[str, Any] = {
    **{each.__name__: each for each in (none_at_all, one, only_keywords, three, with_keyword)},
    "lambda": lambda ev: None,
    "object": CallsShort(),
    "method": Calls().short,
    "method of no instance": Calls.method,
    "class": MadeOfOne,
    "partial": functools.partial(two, 1),
    "partial by name": functools.partial(two, proc=1),
    "partial by name in front": functools.partial(three, first=1),
    "partial with a keyword too many": UNTYPED(two, extra=1),
    "partial by a name that is positional": UNTYPED(positional, ev=1),
    "partial of method": functools.partial(Calls().short, 1),
    "written in C": len,
}


@pytest.mark.parametrize("kind", GOOD)
def test_what_can_be_called_with_two_arguments_can_be_a_handler(kind: str) -> None:
    assert Processor().register(GOOD[kind], "name") == "name"


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_is_an_error_that_shows_both_signatures(kind: str) -> None:
    proc = Processor()
    with pytest.raises(TypeError, match=r"is called with two arguments, \(proc, ev\)"):
        proc.register(BAD[kind], "name")
    assert proc.nodes == {}
    with pytest.raises(TypeError):
        BAD[kind](None, None)


def test_the_error_names_the_handler_and_shows_its_signature() -> None:
    with pytest.raises(TypeError, match=r"^handler .*test_mistakes\.one has the signature \(ev"):
        Processor().register(one)  # type: ignore[arg-type]  # what is tested
    with pytest.raises(TypeError, match="register the method of an instance"):
        Processor().register(Calls.method)  # type: ignore[arg-type]  # likewise


def test_registering_what_is_written_in_python_does_not_import_inspect() -> None:
    code = """
import functools, sys, evproc
class Calls:
    def __call__(self, proc, ev): ...
    def method(self, proc, ev): ...
def function(extra, proc, ev): ...
proc = evproc.Processor()
for number, each in enumerate(
    [Calls(), Calls().method, functools.partial(function, 1), lambda proc, ev: None]
):
    proc.register(each, str(number))
assert "inspect" not in sys.modules
"""
    root = Path(evproc.__file__).parents[1]
    subprocess.run([sys.executable, "-S", "-c", code], cwd=root, check=True)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("name", two), r"the handler comes first, register\(two, 'name'\)"),
        (([two],), "register one handler at a time"),
        (((two,), "name"), "register one handler at a time"),
        (("group",), r"a handler is a callable \(proc, ev\), not 'group'$"),
        ((Named,), r"Named is a class of events"),
        ((want(Named)(lambda proc, ev: None),), r"@want\(lambda ev: isinstance\(ev, Named\)\)"),
    ],
    ids=["swapped", "list", "tuple", "string", "event class", "wants a class"],
)
def test_other_mistakes_are_told_what_to_write(args: tuple[Any, ...], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        Processor().register(*args)


def test_a_class_of_events_that_is_wanted_is_told_its_name() -> None:
    class Order(evproc.Event):
        name = "order"

    with pytest.raises(TypeError, match=r"@want\(.*Order\), a class of events: .*@want\('order'\)"):
        Processor().register(want(Order)(lambda proc, ev: None))


def test_a_handler_that_is_required_is_told_its_name() -> None:
    with pytest.raises(TypeError, match=r"names of handlers, not .*: write @requires\('two'\)"):
        evproc.requires(two)  # type: ignore[arg-type]  # what is tested


@pytest.mark.parametrize("name", ["process_many", "stream", "submit"])
def test_what_only_a_pool_has_is_told_to_handlers(name: str) -> None:
    proc = Processor()
    with pytest.raises(AttributeError, match=f"{name!r}: that is a method of a PoolProcessor"):
        getattr(proc, name)
    assert not hasattr(proc, name)


def test_a_requirement_that_is_misspelt_is_told_what_was_meant() -> None:
    proc = Processor()
    proc.register(evproc.requires("chekc")(lambda proc, ev: None))
    proc.register(any_number, "check")
    with pytest.raises(evproc.IncompatibleRequirementsException, match="did you mean 'check'"):
        proc.process(Named())
