"""The registry: which handlers want an event, and in which order they run."""

from __future__ import annotations

import enum
import functools
import itertools
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

import evproc
from evproc import (
    IncompatibleRequirementsException,
    ProcessorReregisterException,
    StopProcessing,
    required_by,
    requires,
    want,
)
from evproc import index as index_module
from evproc.origin import Origin
from evproc.registry import Registry
from tests.support.processors import Named, notes


def nothing(proc: Any, ev: Any) -> None:
    pass


def _type_name(value: object) -> str:
    return type(value).__name__


def make(*decorators: Callable[[Any], Any]) -> Any:
    """A handler with these declarations, top first."""
    handler: Any = functools.partial(nothing)
    for decorator in reversed(decorators):
        handler = decorator(handler)
    return handler


def registry_of(**handlers: Any) -> Registry:
    """A registry with these handlers, in this order."""
    made = Registry()
    for name, handler in handlers.items():
        made.add(handler, name)
    return made


def match(made: Registry, name: Any = "ev") -> list[str]:
    """The names of the handlers that want an event of a name, in order."""
    return [handler.name for handler in made.match(Named(name)).handlers]


# --- adding ---


def test_handlers_are_kept_in_registration_order_with_what_they_declare() -> None:
    origin = Origin("group", "dist", "1.0")
    made = Registry()
    handler = make(want("a"), requires("x", "y"), required_by("z"))
    assert made.add_all([(nothing, "one", None), (handler, "two", origin)]) == ("one", "two")
    one, two = made.handlers
    assert (one.index, one.name, one.func, one.origin) == (0, "one", nothing, None)
    assert (one.clauses, one.requires, one.required_by) == ((), (), ())
    assert (two.index, two.name, two.func, two.origin) == (1, "two", handler, origin)
    assert two.clauses[0].names == {"a"}
    assert (two.requires, two.required_by) == (("x", "y"), ("z",))
    assert repr(one) == f"<handler 'one' ({__name__}.nothing)>"


def test_by_name_is_a_live_read_only_view() -> None:
    made = Registry()
    view = made.by_name
    assert dict(view) == {}
    made.add(nothing)
    assert list(view) == ["nothing"]
    assert view["nothing"] is made.handlers[0]
    with pytest.raises(TypeError):
        view["other"] = made.handlers[0]  # type: ignore[index]  # what is tested


@pytest.mark.parametrize("name", [None, ""])
def test_a_handler_without_a_name_of_its_own_takes_that_of_the_function(name: str | None) -> None:
    made = Registry()
    made.add(nothing, name)
    assert list(made.by_name) == ["nothing"]


@pytest.mark.parametrize(
    "func", [functools.partial(nothing), make(want("a"))], ids=["partial", "decorated partial"]
)
def test_a_partial_takes_the_name_of_its_function(func: Any) -> None:
    made = Registry()
    made.add(func)
    assert list(made.by_name) == ["nothing"]


@pytest.mark.parametrize("func", [None, 5, "name", [], Named("ev")], ids=repr)
def test_what_cannot_be_called_is_refused(func: Any) -> None:
    with pytest.raises(
        TypeError, match=re.escape(f"a handler is a callable (proc, ev), not {func!r}")
    ):
        Registry().add(func, "name")


@pytest.mark.parametrize("name", [0, 5, b"name", ("name",), nothing], ids=_type_name)
def test_a_name_that_is_no_string_is_refused(name: Any) -> None:
    with pytest.raises(TypeError, match="a handler's name is a string, not"):
        Registry().add(nothing, name)


def test_an_object_without_a_name_has_to_be_given_one() -> None:
    class Handler:
        def __call__(self, proc: Any, ev: Any) -> None:
            pass

    made = Registry()
    with pytest.raises(TypeError, match=r"has no __name__: register it with name=\.\.\."):
        made.add(Handler())
    made.add(Handler(), "given")
    assert match(made) == ["given"]


async def coroutine(proc: Any, ev: Any) -> None:
    pass


class AsyncObject:
    async def __call__(self, proc: Any, ev: Any) -> None:
        pass


class NamedAsyncObject(AsyncObject):
    def __init__(self) -> None:
        self.__name__ = "named"


@pytest.mark.parametrize(
    "func",
    [
        coroutine,
        functools.partial(coroutine),
        AsyncObject(),
        AsyncObject().__call__,
        NamedAsyncObject(),
    ],
    ids=["function", "partial", "object", "bound method", "named object"],
)
def test_an_async_handler_is_refused_and_named(func: Any) -> None:
    with pytest.raises(TypeError, match=r"(coroutine|AsyncObject).* is asynchronous"):
        Registry().add(func, "name")


def _without_parentheses(decorator: Any) -> Any:
    def handler(proc: Any, ev: Any) -> None:
        pass

    return decorator(handler)


def test_a_decorator_without_its_parentheses_is_refused_by_name() -> None:
    handler = _without_parentheses(want)
    with pytest.raises(TypeError, match=r"@want was used without its arguments.*@want\(\.\.\.\)"):
        Registry().add(handler)
    with pytest.raises(TypeError, match="@want was used without its arguments"):
        Registry().add(handler, "name")


@pytest.mark.parametrize("on_top", [want("ev"), requires("other"), required_by("other")])
def test_a_decorator_without_its_parentheses_is_refused_beneath_others(on_top: Any) -> None:
    def decorate_and_register() -> None:
        Registry().add(on_top(_without_parentheses(want)), "name")

    # at the decoration or at the registration, but before the first event
    with pytest.raises(TypeError, match="without its arguments"):
        decorate_and_register()


@pytest.mark.parametrize("decorator", [requires, required_by])
def test_a_requirement_without_its_parentheses_is_refused_at_once(decorator: Any) -> None:
    with pytest.raises(TypeError, match=f"@{decorator.__name__}"):
        _without_parentheses(decorator)


def test_a_second_handler_of_a_name_is_refused_and_both_are_named() -> None:
    made = registry_of(taken=nothing)

    def other(proc: Any, ev: Any) -> None:
        pass

    with pytest.raises(ProcessorReregisterException) as caught:
        made.add(other, "taken")
    text = str(caught.value)
    assert "'taken' has already been registered" in text
    assert f"{__name__}.nothing" in text
    assert "<locals>.other" in text
    assert [handler.func for handler in made.handlers] == [nothing]


def test_the_same_function_can_be_registered_under_two_names() -> None:
    assert match(registry_of(one=nothing, two=nothing)) == ["one", "two"]


def test_lambdas_get_names_of_their_own_in_the_order_of_their_registration() -> None:
    made = Registry()
    first: Any = lambda proc, ev: None  # noqa: E731 - what is tested
    assert made.add(first) == "<lambda>"
    assert made.add(lambda proc, ev: None) == "<lambda>-2"
    assert made.add(functools.partial(lambda proc, ev: None)) == "<lambda>-3"
    assert list(made.by_name) == ["<lambda>", "<lambda>-2", "<lambda>-3"]
    # the first name that is free
    made.remove("<lambda>-2")
    several = made.add_all([(lambda proc, ev: None, None, None) for _ in range(2)])
    assert several == ("<lambda>-2", "<lambda>-4")
    # but the same one twice is a mistake, and a name that is given is that name
    for name in (None, "<lambda>"):
        with pytest.raises(ProcessorReregisterException, match="'<lambda>'"):
            made.add(first, name)
    with pytest.raises(TypeError, match=r"name=\.\.\."):
        made.add(first, replace=True)


def _print(made: Registry) -> list[tuple[int, str, Any]]:
    """Index, name and function of each handler; seen in every way in which they can be."""
    assert list(made.by_name.values()) == list(made.handlers)
    assert list(made.by_name) == [handler.name for handler in made.handlers]
    return [(handler.index, handler.name, handler.func) for handler in made.handlers]


def test_a_handler_is_replaced_in_its_place() -> None:
    one, two, three, new = make(), make(), make(), make(want("ev", "x"), required_by("one"))
    made = registry_of(one=one, two=two, three=three)
    before = made.handlers
    assert match(made) == ["one", "two", "three"]
    assert made.add(new, "two", replace=True) == "two"
    assert _print(made) == [(0, "one", one), (1, "two", new), (2, "three", three)]
    # with what the new one declares, and nothing of the old one's
    assert match(made) == ["two", "one", "three"]
    assert [handler.func for handler in before] == [one, two, three]
    # where there is none it is a new one; and twice the same is no mistake
    for _ in range(2):
        assert made.add(nothing, replace=True) == "nothing"
    assert list(made.by_name) == ["one", "two", "three", "nothing"]
    with pytest.raises(TypeError, match="callable"):
        made.add(5, "two", replace=True)  # type: ignore[arg-type]  # what is tested
    assert made.by_name["two"].func is new


def test_a_handler_is_removed_and_the_others_move_up() -> None:
    one, two, three = make(want("ev")), make(required_by("one")), make(want("ev", "x"))
    made = registry_of(one=one, two=two, three=three)
    before, nodes = made.handlers, made.by_name
    assert match(made) == ["two", "one", "three"]
    made.remove("two")
    assert _print(made) == [(0, "one", one), (1, "three", three)]
    assert list(nodes) == ["one", "three"]  # the view is a live one
    plan = made.match(Named("ev"))
    assert plan.indices == (0, 1)
    assert made.plan(plan.indices).handlers == made.handlers == plan.handlers
    # whoever has the old ones, a plan for example, has them as they were
    assert [(handler.index, handler.name) for handler in before] == [
        (0, "one"),
        (1, "two"),
        (2, "three"),
    ]
    # and the name is free
    made.add(nothing, "two")
    assert match(made) == ["one", "three", "two"]
    made.add(make(requires("three")), "last")
    made.remove("three")
    with pytest.raises(IncompatibleRequirementsException, match="'three', which is not registered"):
        match(made)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sceond", "no handler is called 'sceond'; did you mean 'second'"),
        ("quite another", "no handler is called 'quite another'; registered are 'first', 'second'"),
        (nothing, "unregister() takes its name"),
        (None, "unregister() takes its name"),
        ([], "unregister() takes its name"),
    ],
)
def test_a_handler_that_is_not_there_cannot_be_removed(name: Any, said: str) -> None:
    processor = evproc.Processor()
    for each in ("first", "second"):
        processor.register(nothing, each)
    before = processor.registry.handlers
    with pytest.raises(evproc.HandlerNotRegisteredException, match=re.escape(said)) as caught:
        processor.unregister(name)
    assert isinstance(caught.value, LookupError)
    assert processor.registry.handlers is before
    with pytest.raises(evproc.HandlerNotRegisteredException, match="registered are none"):
        evproc.Processor().unregister("any")


def test_a_processor_says_under_which_name_it_has_registered() -> None:
    processor = evproc.Processor()
    assert processor.register(nothing) == "nothing"
    assert processor.register(nothing, "other") == "other"
    assert processor.register(lambda proc, ev: None) == "<lambda>"
    assert processor.register(nothing, replace=True) == "nothing"
    processor.unregister("<lambda>")
    assert list(processor.nodes) == ["nothing", "other"]


@pytest.mark.parametrize(
    "bad",
    [
        (nothing, "present", None),
        (nothing, "first", None),
        (5, "other", None),
        (coroutine, "other", None),
    ],
    ids=["registered before", "twice among the new", "no callable", "async"],
)
def test_of_several_handlers_all_are_added_or_none(bad: Any) -> None:
    made = registry_of(present=nothing)
    before = made.handlers
    with pytest.raises((ProcessorReregisterException, TypeError)):
        made.add_all([(nothing, "first", None), bad, (nothing, "last", None)])
    assert made.handlers is before
    assert list(made.by_name) == ["present"]
    assert match(made) == ["present"]
    # and the names that were not taken are free
    assert made.add_all([(nothing, "first", None), (nothing, "last", None)]) == ("first", "last")
    assert match(made) == ["present", "first", "last"]


def test_an_iterable_that_fails_adds_nothing() -> None:
    def items() -> Iterator[tuple[Any, str, None]]:
        yield nothing, "first", None
        raise RuntimeError("in the middle")

    made = Registry()
    with pytest.raises(RuntimeError, match="in the middle"):
        made.add_all(items())
    assert made.handlers == ()
    assert dict(made.by_name) == {}


def test_handlers_that_several_threads_add_are_all_there() -> None:
    processor = evproc.Processor()
    made = processor.registry
    per_thread, threads = 300, 4
    barrier = threading.Barrier(threads)

    def add(prefix: int) -> None:
        barrier.wait()
        for number in range(per_thread):
            processor.register(nothing, f"{prefix}.{number}")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that threads meet in the middle of adding
    try:
        running = [threading.Thread(target=add, args=(prefix,)) for prefix in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(made.by_name) == per_thread * threads
    assert {handler.name for handler in made.handlers} == set(made.by_name)
    assert [handler.index for handler in made.handlers] == list(range(per_thread * threads))


# --- matching ---


def test_a_handler_without_want_wants_every_event() -> None:
    made = registry_of(all=nothing)
    for name in ("a", "b", ""):
        assert match(made, name) == ["all"]


def test_without_handlers_nothing_matches() -> None:
    assert match(Registry()) == []
    assert match(registry_of(a=make(want("a"))), "b") == []


def truth(value: object) -> Callable[[Any], object]:
    return lambda ev: value


@pytest.mark.parametrize(
    ("decorators", "wanted"),
    [
        ([want("a")], {"a"}),
        ([want("a", "b")], {"a", "b"}),
        ([want("a"), want("b")], {"a", "b"}),
        ([want(truth(True))], {"a", "b", "c"}),
        ([want(truth(False))], set()),
        ([want("a", truth(True))], {"a"}),
        ([want("a", truth(False))], set()),
        ([want("a", truth(True), truth(False))], set()),
        ([want("a", truth(True), truth(True))], {"a"}),
        ([want("a", truth(False)), want("a", "b")], {"a", "b"}),
        ([want("a"), want(truth(False))], {"a"}),
        ([want("a", truth(False)), want(truth(True))], {"a", "b", "c"}),
        ([want("a", truth(False)), want("b", truth(True)), want("c")], {"b", "c"}),
        ([want(lambda ev: ev.name == "b")], {"b"}),
        ([want("a", "b", lambda ev: ev.name == "b")], {"b"}),
        ([want(truth("yes"))], {"a", "b", "c"}),
        ([want(truth([]))], set()),
        ([want(truth(None))], set()),
    ],
)
def test_any_clause_with_any_name_and_every_filter_matches(
    decorators: list[Any], wanted: set[str]
) -> None:
    made = registry_of(handler=make(*decorators))
    assert {name for name in "abc" if match(made, name)} == wanted


def test_filters_may_be_any_callable() -> None:
    class Filter:
        __slots__ = ()

        def __call__(self, ev: Any) -> bool:
            return bool(ev.name == "a")

        def method(self, ev: Any) -> bool:
            return bool(ev.name == "a")

    def named(name: str, ev: Any) -> bool:
        return bool(ev.name == name)

    for function in (
        Filter(),
        Filter().method,
        functools.partial(named, "a"),
        lambda ev: ev.name == "a",
    ):
        made = registry_of(handler=make(want(function)))
        assert match(made, "a") == ["handler"]
        assert match(made, "b") == []


def test_filters_are_asked_in_order_and_only_as_far_as_needed() -> None:
    asked: list[str] = []

    def asks(name: str, answer: bool) -> Callable[[Any], bool]:
        def function(ev: Any) -> bool:
            asked.append(name)
            return answer

        return function

    made = registry_of(
        first=make(
            want("other", asks("not for this name", True)),
            want("ev", asks("1.2.1", True), asks("1.2.2", False), asks("after a no", True)),
            want(asks("1.3", True)),
            want(asks("after a yes", True)),
        ),
        second=make(
            want("ev", asks("2.1", False)), want("ev"), want(asks("after a sure one", True))
        ),
        third=make(want("other", asks("never", True))),
    )
    assert match(made) == ["first", "second"]
    assert asked == ["1.2.1", "1.2.2", "1.3", "2.1"]


def test_filters_are_asked_in_registration_order_whether_or_not_a_name_is_given() -> None:
    asked: list[str] = []

    def asks(name: str) -> Callable[[Any], bool]:
        def ask(ev: Any) -> bool:
            asked.append(name)
            return True

        return ask

    made = registry_of(
        named=make(want("ev", asks("named"))),
        any_name=make(want(asks("any name"))),
        named_too=make(want("ev", "other", asks("named too"))),
    )
    match(made)
    assert asked == ["named", "any name", "named too"]


def test_no_filter_is_asked_of_a_handler_that_cannot_want_the_name() -> None:
    def forbidden(ev: Any) -> bool:
        raise AssertionError("asked")

    made = registry_of(
        **{f"h{number}": make(want(f"name {number}", forbidden)) for number in range(50)}
    )
    assert match(made, "ev") == []


def test_a_filter_sees_the_event() -> None:
    seen = []

    def filtering(ev: Any) -> bool:
        seen.append(ev)
        return True

    ev = Named("ev")
    registry_of(handler=make(want(filtering))).match(ev)
    assert len(seen) == 1
    assert seen[0] is ev


def test_a_filter_whose_answer_changes_is_asked_for_each_event() -> None:
    made = registry_of(
        number=make(want(lambda ev: ev.ctxt > 1), requires("always")), always=nothing
    )
    assert [
        [handler.name for handler in made.match(Named("ev", number)).handlers]
        for number in (1, 2, 1, 3)
    ] == [["always"], ["always", "number"], ["always"], ["always", "number"]]


def test_names_equal_to_a_string_match_like_it() -> None:
    class Kind(str, enum.Enum):  # noqa: UP042 - not what StrEnum's __str__ says
        A = "a"

    class Text(str):
        __slots__ = ()

    made = registry_of(handler=make(want("a")))
    assert match(made, Kind.A) == ["handler"]
    assert match(made, Text("a")) == ["handler"]
    assert match(registry_of(handler=make(want(Kind.A))), "a") == ["handler"]


@pytest.mark.parametrize(
    ("name", "kind"), [(None, "None"), (5, "an int"), (("a",), "a tuple"), (b"a", "a bytes")]
)
def test_a_name_that_is_no_string_is_an_error_that_says_what_to_write(name: Any, kind: str) -> None:
    for made in (registry_of(all=nothing), registry_of(some=make(want("a")))):
        for _ in range(2):  # before and after the index is made
            with pytest.raises(TypeError) as caught:
                made.match(Named(name))
            said = str(caught.value)
            assert f"event {name!r} ({Named.__module__}.Named" in said
            assert f"an event's name is a string, not {kind}: write name = " in said
            assert made.common_plan([Named(name)]) is None
        match(made, "other")
        assert made.common_plan([Named(name)]) is None
        explained = made.explain(Named(name))
        assert str(explained.error) == said


@pytest.mark.parametrize("name", [["a"], {"a": 1}, {"a"}], ids=repr)
@pytest.mark.parametrize(
    "handlers", [{}, {"all": nothing}, {"some": make(want("a"))}], ids=" ".join
)
def test_an_unhashable_name_is_an_error_that_says_so(name: Any, handlers: dict[str, Any]) -> None:
    made = registry_of(**handlers)
    for _ in range(2):  # before and after the index is made
        with pytest.raises(TypeError) as caught:
            made.match(Named(name))
        assert f"an event's name is a string, not a {type(name).__name__}" in str(caught.value)
        assert "Named" in str(caught.value)


def test_a_name_that_cannot_be_hashed_for_its_contents_raises_its_own_error() -> None:
    made = registry_of(all=nothing)
    with pytest.raises(TypeError, match="unhashable"):
        made.match(Named(("a", [])))


def test_a_name_property_that_raises_raises_its_own_error() -> None:
    class Odd(evproc.Event):
        error: Exception = RuntimeError("no name today")

        @property
        def name(self) -> str:
            raise self.error

    made = registry_of(all=nothing)
    with pytest.raises(RuntimeError, match="no name today"):
        made.match(Odd())
    Odd.error = TypeError("not with this type")
    with pytest.raises(TypeError, match="not with this type"):
        made.match(Odd())


# --- filters that raise ---


def raising(error: BaseException) -> Callable[[Any], bool]:
    def named_filter(ev: Any) -> bool:
        raise error

    return named_filter


def test_a_filter_that_raises_is_named_with_its_handler_and_event() -> None:
    class Own(Exception):
        pass

    error = Own("original", 1)
    made = registry_of(
        first=nothing, asking=make(want("a"), want("ev", truth(True), raising(error)))
    )
    with pytest.raises(Own) as caught:
        made.match(Named("ev"))
    assert caught.value is error
    assert caught.value.args == ("original", 1)
    [note] = notes(caught.value)
    for text in (
        f"{__name__}.raising.<locals>.named_filter",
        "(@want 2)",
        "handler 'asking'",
        f"event 'ev' ({Named.__module__}.Named: Named('ev'))",
    ):
        assert text in note
    assert note in "".join(traceback.format_exception(caught.value))


def test_the_note_is_added_once_however_often_the_exception_is_raised() -> None:
    made = registry_of(asking=make(want(raising(ValueError("the same object")))))
    for _ in range(3):
        with pytest.raises(ValueError, match="the same object") as caught:
            made.match(Named("ev"))
        assert len(notes(caught.value)) == 1


def test_a_value_without_a_truth_is_an_error_of_its_filter() -> None:
    class Undecided:
        def __bool__(self) -> bool:
            raise ValueError("neither true nor false")

    made = registry_of(asking=make(want(truth(Undecided()))))
    with pytest.raises(ValueError, match="neither") as caught:
        made.match(Named("ev"))
    assert "filter" in notes(caught.value)[0]


def test_a_filter_that_raises_stop_processing_is_told_that_this_stops_nothing() -> None:
    made = registry_of(asking=make(want(raising(StopProcessing(5)))))
    with pytest.raises(StopProcessing) as caught:
        made.match(Named("ev"))
    assert any("stops nothing" in note for note in notes(caught.value))


def test_what_is_no_exception_passes_a_filter_without_a_note() -> None:
    made = registry_of(asking=make(want(raising(KeyboardInterrupt()))))
    with pytest.raises(KeyboardInterrupt) as caught:
        made.match(Named("ev"))
    assert notes(caught.value) == []


# --- order ---


def test_unrelated_handlers_run_in_registration_order() -> None:
    names = ["m", "z", "a", "q", "b"]
    assert match(registry_of(**dict.fromkeys(names, nothing))) == names


def test_registration_order_holds_between_those_that_name_the_event_and_those_that_do_not() -> None:
    made = registry_of(
        named=make(want("ev")),
        all=nothing,
        both=make(want("ev", "other"), want(lambda ev: True)),
        asking=make(want(lambda ev: True)),
        other=make(want("other")),
        last=make(want("other", "ev")),
    )
    assert match(made, "ev") == ["named", "all", "both", "asking", "last"]
    assert match(made, "other") == ["all", "both", "asking", "other", "last"]
    assert match(made, "none") == ["all", "both", "asking"]


@pytest.mark.parametrize(
    "handlers",
    [
        {"late": make(requires("early")), "between": nothing, "early": nothing},
        {"late": nothing, "between": nothing, "early": make(required_by("late"))},
        {"late": make(requires("early")), "between": nothing, "early": make(required_by("late"))},
    ],
    ids=["requires", "required_by", "both"],
)
def test_requirements_come_first_and_nothing_else_moves(handlers: dict[str, Any]) -> None:
    assert match(registry_of(**handlers)) == ["between", "early", "late"]


def test_several_requirements_are_all_met() -> None:
    made = registry_of(
        d=make(requires("b", "c")),
        c=make(requires("a"), required_by("e")),
        b=make(requires("a")),
        e=nothing,
        a=nothing,
    )
    assert match(made) == ["a", "c", "b", "d", "e"]


def test_a_required_by_that_names_nobody_is_no_error() -> None:
    made = registry_of(handler=make(required_by("absent")), other=nothing)
    assert match(made) == ["handler", "other"]


def test_a_required_by_counts_once_the_handler_it_names_is_registered() -> None:
    made = registry_of(handler=make(required_by("absent")))
    assert match(made) == ["handler"]
    made.add(make(want("other")), "absent")
    # now there is somebody who waits, but only for the events that it wants itself
    assert match(made) == ["handler"]
    assert match(made, "other") == ["handler", "absent"]


def test_required_handler_that_declines_the_event_is_an_error_naming_both() -> None:
    made = registry_of(dependent=make(requires("required")), required=make(want("other")))
    with pytest.raises(IncompatibleRequirementsException) as caught:
        match(made)
    text = str(caught.value)
    assert "handler 'dependent' requires 'required' (@requires), which does not want this" in text
    assert f"event 'ev' ({Named.__module__}.Named: Named('ev'))" in text
    assert match(made, "other") == ["required", "dependent"]


def test_a_required_handler_whose_filter_declines_is_the_same_error_each_time() -> None:
    made = registry_of(
        dependent=make(want("ev")),
        required=make(want("ev", truth(False)), required_by("dependent")),
    )
    for _ in range(2):
        with pytest.raises(IncompatibleRequirementsException) as caught:
            match(made)
        text = (
            "handler 'dependent' requires 'required' (@required_by of 'required'), which does not"
        )
        assert text in str(caught.value)


def test_a_required_handler_that_is_not_registered_is_an_error_naming_both() -> None:
    made = registry_of(dependent=make(requires("missing")))
    with pytest.raises(IncompatibleRequirementsException) as caught:
        match(made)
    assert "handler 'dependent' requires 'missing', which is not registered" in str(caught.value)
    made.add(nothing, "missing")
    assert match(made) == ["missing", "dependent"]


def test_a_handler_that_does_not_want_the_event_may_lack_what_it_requires() -> None:
    made = registry_of(other=make(want("other"), requires("missing")), handler=nothing)
    assert match(made) == ["handler"]


def test_all_unmet_requirements_are_named_in_one_error() -> None:
    made = registry_of(
        one=make(requires("missing", "declining")),
        declining=make(want("other")),
        two=make(requires("absent")),
    )
    with pytest.raises(IncompatibleRequirementsException) as caught:
        match(made)
    for text in (
        "'one' requires 'missing'",
        "'one' requires 'declining'",
        "'two' requires 'absent'",
    ):
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("handlers", "cycle"),
    [
        ({"a": make(requires("a"))}, "a -> a"),
        ({"a": make(requires("b")), "b": make(requires("a"))}, "a -> b -> a"),
        ({"a": make(required_by("b")), "b": make(required_by("a"))}, "a -> b -> a"),
        (
            {
                "x": nothing,
                "c": make(requires("a")),
                "a": make(requires("b")),
                "b": make(requires("c")),
            },
            "c -> a -> b -> c",
        ),
    ],
)
def test_a_cycle_is_printed_as_a_cycle(handlers: dict[str, Any], cycle: str) -> None:
    made = registry_of(**handlers)
    with pytest.raises(IncompatibleRequirementsException) as caught:
        match(made)
    text = str(caught.value)
    assert f"requirement cycle: {cycle} (each requires the next)" in text
    assert "event 'ev'" in text


def test_a_cycle_among_handlers_that_do_not_meet_concerns_no_event() -> None:
    made = registry_of(
        a=make(want("x"), requires("b")), b=make(want("x"), requires("a")), c=make(want("y"))
    )
    assert match(made, "y") == ["c"]
    with pytest.raises(IncompatibleRequirementsException, match="a -> b -> a"):
        match(made, "x")


# --- plans and the index ---


def test_events_of_one_name_share_a_plan_where_no_filter_decides() -> None:
    made = registry_of(one=nothing, two=make(want("ev")))
    assert made.match(Named("ev")) is made.match(Named("ev"))
    assert made.match(Named("x")) is made.match(Named("y"))


def test_events_share_a_plan_by_what_the_filters_said() -> None:
    made = registry_of(one=nothing, two=make(want(lambda ev: ev.ctxt)))
    with_two, without = made.match(Named("ev", True)), made.match(Named("ev", False))
    assert with_two is not without
    assert made.match(Named("ev", 1)) is with_two
    assert made.match(Named("ev", 0)) is without


def test_a_plan_can_be_rebuilt_from_its_indices() -> None:
    made = registry_of(late=make(requires("early")), other=make(want("x")), early=nothing)
    plan = made.match(Named("ev"))
    assert plan.indices == (2, 0)
    assert made.plan(plan.indices).handlers == plan.handlers
    assert made.plan([1]).handlers == (made.handlers[1],)
    assert made.plan(()).handlers == ()
    with pytest.raises(IndexError):
        made.plan([3])


def test_many_events_of_one_name_have_a_common_plan_once_it_is_known() -> None:
    class Other(Named):
        pass

    made = registry_of(some=make(want("ev")), all=nothing)
    events: list[Any] = [Named("ev"), Other("ev"), Named("ev", 5)]
    assert made.common_plan(events) is None  # nothing has been matched yet
    for name in ("ev", "unmentioned"):
        plan = made.match(Named(name))
        assert made.common_plan([Named(name), Other(name)]) is plan
        assert made.common_plan([Named(name)]) is plan
    # and not the plan of before once another handler is there
    made.add(nothing, "late")
    assert made.common_plan(events) is None
    assert made.match(events[0]) is made.common_plan(events)


def test_a_name_has_a_plan_once_it_is_known_unless_a_filter_is_asked() -> None:
    made = registry_of(some=make(want("ev")), asking=make(want("asked", truth(True))))
    assert made.plan_of_name("ev") is None  # nothing has been matched yet
    for name in ("ev", "unmentioned"):
        plan = made.match(Named(name))
        assert made.plan_of_name(name) is plan
    made.match(Named("asked"))
    assert made.plan_of_name("asked") is None


class VirtualEvent:
    name = "ev"


evproc.Event.register(VirtualEvent)


class UnnamableEvent(evproc.Event):
    @property
    def name(self) -> str:
        raise RuntimeError("no name today")


@pytest.mark.parametrize(
    "events",
    [
        [],
        [Named("ev"), Named("other")],
        [Named("ev"), "no event"],
        [Named("ev"), VirtualEvent()],
        [Named("ev"), Named(["unhashable"])],
        [Named("ev"), UnnamableEvent()],
        [Named("asked"), Named("asked")],
        [Named("unordered"), Named("unordered")],
    ],
    ids=["none", "names", "value", "virtual", "unhashable", "raises", "filter", "unordered"],
)
def test_whatever_makes_a_difference_between_events_leaves_them_without_a_common_plan(
    events: list[Any],
) -> None:
    made = registry_of(
        all=make(want("ev", "other", "asked")),
        asking=make(want("asked", truth(True))),
        unordered=make(want("unordered"), requires("all")),
    )
    assert [made.common_plan([Named("ev")]), match(made)] == [None, ["all"]]
    match(made, "asked")
    assert made.common_plan([Named("ev")]) is not None
    with pytest.raises(IncompatibleRequirementsException):
        match(made, "unordered")
    assert made.common_plan(events) is None


def test_a_handler_that_is_added_counts_from_the_next_event_on() -> None:
    made = registry_of(one=nothing)
    assert match(made) == ["one"]
    made.add(make(required_by("one")), "two")
    assert match(made) == ["two", "one"]
    made.add(make(want("ev")), "three")
    assert match(made) == ["two", "one", "three"]
    assert match(made, "other") == ["two", "one"]


def test_names_that_no_handler_mentions_do_not_grow_the_index() -> None:
    made = registry_of(
        one=make(want("a", "b")), two=make(want("b", "c", truth(True))), three=nothing
    )
    match(made)
    index = made._index
    mentioned = set(index.selections)
    assert {"a", "b", "c"} <= mentioned
    plans = _plans(made)
    for _ in range(2):
        for number in range(1000):
            assert match(made, f"unknown {number}") == ["three"]
    assert made._index is index
    assert len(index.selections) == 3 + index_module._MOST_UNMENTIONED
    assert _plans(made) == plans

    class Text(str):
        __slots__ = ()

    # what is no plain string may be as large as it likes, and is not kept
    made = registry_of(three=nothing)
    for _ in range(2):
        assert match(made, Text("text")) == ["three"]
    assert made._index.selections == {}


def _plans(made: Registry) -> int:
    selections = {*made._index.selections.values(), made._index.others}
    return sum(len(selection._plans) for selection in selections if selection is not None)


def test_the_number_of_remembered_plans_is_bounded_and_changes_no_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def bit(place: int) -> Any:
        # in reverse order, so that the plans do not just repeat the registration
        return make(
            want(lambda ev: ev.ctxt >> place & 1), *(required_by(f"h{n}") for n in range(place))
        )

    handlers = {f"h{place}": bit(place) for place in range(4)}
    unbounded, bounded = registry_of(**handlers), registry_of(**handlers)

    def expected(number: int) -> list[str]:
        return [f"h{place}" for place in reversed(range(4)) if number >> place & 1]

    # a handler runs only with those that it is required by and that require it
    numbers = [0b0000, 0b1000, 0b1100, 0b1110, 0b1111]
    for number in numbers * 2:
        names = [each.name for each in unbounded.match(Named("ev", number)).handlers]
        assert names == expected(number)
    assert _plans(unbounded) == len(numbers)

    monkeypatch.setattr(index_module, "_MOST_PLANS", 2)
    for first, second in itertools.product(numbers, repeat=2):
        for number in (first, second, first):
            names = [each.name for each in bounded.match(Named("ev", number)).handlers]
            assert names == expected(number)
            assert _plans(bounded) <= 2


def test_the_bound_on_plans_is_there() -> None:
    handlers = {f"h{place:02}": make(want(_bit(place))) for place in range(11)}
    made = registry_of(**handlers)
    assert index_module._MOST_PLANS < 2**11
    for number in range(2**11):
        made.match(Named("ev", number))
        assert _plans(made) <= index_module._MOST_PLANS


def _bit(place: int) -> Callable[[Any], int]:
    return lambda ev: ev.ctxt >> place & 1


def test_threads_that_match_while_handlers_are_added_see_before_or_after() -> None:
    made = Registry()
    count = 60
    stop = threading.Event()
    wrong: list[list[str]] = []

    def read(name: str) -> None:
        known = 0
        while not stop.is_set():
            names = match(made, name)
            # a prefix of the registration, and never less than before
            if names != [f"h{place:02}" for place in range(len(names))] or len(names) < known:
                wrong.append(names)
                return
            known = len(names)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    readers = [threading.Thread(target=read, args=(name,)) for name in ("ev", "other", "ev")]
    try:
        for reader in readers:
            reader.start()
        for place in range(count):
            made.add(make(want("ev", "other")) if place % 2 else nothing, f"h{place:02}")
    finally:
        stop.set()
        for reader in readers:
            reader.join()
        sys.setswitchinterval(interval)
    assert wrong == []
    assert len(match(made)) == count


def test_handlers_can_be_added_from_any_iterable() -> None:
    made = Registry()
    items: Iterable[Any] = iter([(nothing, None, None)])
    assert made.add_all(items) == ("nothing",)
