"""What the decorators leave on a handler, whatever kind of callable it is."""

from __future__ import annotations

import functools
import pickle
from collections.abc import AsyncIterator, Callable
from typing import Any
from unittest import mock

import pytest

import evproc
from evproc import required_by, requires, want
from evproc.decorator import (
    Clause,
    declarations_of,
    default_name,
    describe_callable,
    is_async,
)


def _type_name(value: object) -> str:
    return type(value).__name__


def first(ev: Any) -> bool:
    return True


def second(ev: Any) -> bool:
    return False


def plain(proc: Any, ev: Any) -> None:
    pass


async def coroutine(*args: Any) -> None:
    pass


async def async_generator(*args: Any) -> AsyncIterator[None]:
    yield


class CallableObject:
    def __call__(self, *args: Any) -> None:
        pass


class SlottedObject:
    __slots__ = ()

    def __call__(self, *args: Any) -> None:
        pass


class DecoratedCall:
    @want("called")
    @requires("before")
    @required_by("after")
    def __call__(self, proc: Any, ev: Any) -> None:
        pass


class NamedDecoratedCall(DecoratedCall):
    def __init__(self) -> None:
        self.__name__ = "named"


class AsyncCall:
    async def __call__(self, *args: Any) -> None:
        pass


class NamedAsyncCall(AsyncCall):
    def __init__(self) -> None:
        self.__name__ = "named"


class Methods:
    def method(self, *args: Any) -> None:
        pass

    async def coroutine(self, *args: Any) -> None:
        pass

    @want("decorated")
    def decorated(self, *args: Any) -> None:
        pass

    @staticmethod
    @want("static")
    def static(proc: Any, ev: Any) -> None:
        pass

    @classmethod
    @want("of the class")
    def of_the_class(cls, proc: Any, ev: Any) -> None:
        pass


@want("of the class")
class DecoratedClass:
    def __call__(self, *args: Any) -> None:
        pass


def clause(*items: Any) -> Clause:
    return Clause(
        frozenset(item for item in items if isinstance(item, str)),
        tuple(item for item in items if not isinstance(item, str)),
    )


# --- arguments ---


@pytest.mark.parametrize("decorator", [want, requires, required_by])
def test_a_decorator_without_arguments_says_which_one_it_is(decorator: Callable[[], Any]) -> None:
    text = rf"@{decorator.__name__}\(\) takes at least 1 argument \(0 given\)"
    with pytest.raises(TypeError, match=text):
        decorator()


@pytest.mark.parametrize("item", [None, 1, b"ev", ["ev"], ("a", "b"), 1.5], ids=repr)
def test_want_takes_strings_and_callables_only(item: Any) -> None:
    with pytest.raises(TypeError, match=r"@want\(\) must be called with strings or callables, not"):
        want("ev", item)


@pytest.mark.parametrize("decorator", [requires, required_by])
@pytest.mark.parametrize("item", [None, 1, b"name", ["name"], plain], ids=_type_name)
def test_requirements_are_names(decorator: Callable[..., Any], item: Any) -> None:
    with pytest.raises(TypeError, match=rf"@{decorator.__name__}\(\) takes names of handlers, not"):
        decorator("name", item)


@pytest.mark.parametrize(
    "function",
    [
        coroutine,
        async_generator,
        functools.partial(coroutine, 1),
        AsyncCall(),
        Methods().coroutine,
        NamedAsyncCall(),
    ],
    ids=_type_name,
)
def test_an_async_filter_is_refused_because_it_would_always_be_true(
    function: Callable[..., Any],
) -> None:
    with pytest.raises(TypeError, match=r"async function .* as a filter"):
        want(function)


@pytest.mark.parametrize(
    "decorator",
    [want("ev"), requires("name"), required_by("name")],
    ids=lambda each: each.decorator,
)
@pytest.mark.parametrize("target", [None, 5, "name", classmethod(plain)], ids=_type_name)
def test_only_a_callable_can_be_decorated(decorator: Callable[..., Any], target: Any) -> None:
    text = rf"@{decorator.decorator}\(\.\.\.\) decorates a callable, not"  # type: ignore[attr-defined]  # Declare has it
    with pytest.raises(TypeError, match=text):
        decorator(target)


# --- what is declared ---


def test_a_clause_equals_one_of_the_same_names_and_filters_and_nothing_else() -> None:
    assert clause("a", callable) == clause("a", callable)
    assert clause("a", callable) != clause("a")
    assert clause("a") != clause("b")
    assert clause("a") != (frozenset("a"), ())


def test_a_callable_without_declarations_declares_nothing() -> None:
    for func in (plain, CallableObject(), SlottedObject(), Methods().method, print, mock.Mock()):
        assert declarations_of(func) == ((), (), ())


def test_a_clause_holds_names_and_filters_in_whatever_order_they_came() -> None:
    @want(first, "a", second, "b", "a")
    def handler(proc: Any, ev: Any) -> None:
        pass

    assert declarations_of(handler)[0] == (clause("a", "b", first, second),)


def test_a_decorator_returns_the_function_itself() -> None:
    def handler(proc: Any, ev: Any) -> None:
        pass

    for decorator in (want("a"), requires("b"), required_by("c")):
        assert decorator(handler) is handler


def test_stacked_declarations_read_from_the_top() -> None:
    @want("a", first)
    @requires("r1", "r2")
    @want("b")
    @required_by("b1")
    @requires("r3", "r1")
    @want(second)
    @required_by("b2", "b1")
    def handler(proc: Any, ev: Any) -> None:
        pass

    clauses, requirements, dependents = declarations_of(handler)
    assert clauses == (clause("a", first), clause("b"), clause(second))
    assert requirements == ("r1", "r2", "r3")
    assert dependents == ("b1", "b2")


def test_one_decorator_can_be_used_on_several_handlers() -> None:
    decorator = want("a")

    @decorator
    def one(proc: Any, ev: Any) -> None:
        pass

    @decorator
    @want("b")
    def other(proc: Any, ev: Any) -> None:
        pass

    assert declarations_of(one)[0] == (clause("a"),)
    assert declarations_of(other)[0] == (clause("a"), clause("b"))


def test_a_wrapper_inherits_declarations_and_adds_to_its_own_only() -> None:
    @want("a")
    def handler(proc: Any, ev: Any) -> None:
        pass

    @want("b")
    @functools.wraps(handler)
    def wrapper(proc: Any, ev: Any) -> None:
        pass

    assert declarations_of(wrapper)[0] == (clause("b"), clause("a"))
    assert declarations_of(handler)[0] == (clause("a"),)


# --- all kinds of callables ---

TAKES_ATTRIBUTES: dict[str, Callable[[], Any]] = {
    "lambda": lambda: lambda proc, ev: None,
    "partial": lambda: functools.partial(plain),
    "callable object": CallableObject,
    "mock": mock.Mock,
}
TAKES_NONE: dict[str, Callable[[], Any]] = {
    "bound method": lambda: Methods().method,
    "slotted object": SlottedObject,
    "C function": lambda: print,
    "method of a C object": lambda: [].append,
}


@pytest.mark.parametrize("make", TAKES_ATTRIBUTES.values(), ids=TAKES_ATTRIBUTES)
def test_what_takes_attributes_is_decorated_in_place(make: Callable[[], Any]) -> None:
    func = make()
    decorated = want("a")(requires("b")(required_by("c")(func)))
    assert decorated is func
    assert declarations_of(func) == ((clause("a"),), ("b",), ("c",))


@pytest.mark.parametrize("make", TAKES_NONE.values(), ids=TAKES_NONE)
def test_what_takes_no_attributes_is_decorated_in_a_partial(make: Callable[[], Any]) -> None:
    func = make()
    decorated = want("a")(requires("b")(required_by("c")(want("d")(func))))
    assert declarations_of(decorated) == ((clause("a"), clause("d")), ("b",), ("c",))
    assert declarations_of(func) == ((), (), ())
    assert isinstance(decorated, functools.partial)
    assert decorated.func == func
    assert default_name(decorated) == default_name(func)


def test_a_decorated_bound_method_leaves_the_class_alone() -> None:
    decorated = want("a")(Methods().method)
    assert declarations_of(decorated)[0] == (clause("a"),)
    assert declarations_of(Methods().method)[0] == ()


def test_a_method_that_was_decorated_in_its_class_is_so_when_bound() -> None:
    assert declarations_of(Methods().decorated)[0] == (clause("decorated"),)
    assert declarations_of(Methods().static)[0] == (clause("static"),)
    assert declarations_of(Methods().of_the_class)[0] == (clause("of the class"),)
    both = want("on top")(Methods().decorated)
    assert declarations_of(both)[0] == (clause("on top"), clause("decorated"))
    assert declarations_of(Methods().decorated)[0] == (clause("decorated"),)


def test_a_declaration_on_a_staticmethod_object_is_not_lost() -> None:
    try:

        class Holder:
            @want("a")
            @staticmethod
            def handler(proc: Any, ev: Any) -> None:
                pass
    except TypeError:
        return  # as for a classmethod, which is no callable
    assert declarations_of(Holder.handler)[0] == (clause("a"),)


def test_declarations_above_and_below_staticmethod_add_up() -> None:
    class Holder:
        @want("a")
        @requires("r")
        @want("b")
        @staticmethod
        @want("c")
        @requires("s")
        def handler(proc: Any, ev: Any) -> None:
            pass

    clauses, requirements, _ = declarations_of(Holder.handler)
    assert clauses == (clause("a"), clause("b"), clause("c"))
    assert requirements == ("r", "s")


def test_a_partial_declares_what_it_wraps_declares() -> None:
    @want("a")
    @requires("b")
    def handler(extra: int, proc: Any, ev: Any) -> None:
        pass

    part = functools.partial(handler, 1)
    assert declarations_of(part) == ((clause("a"),), ("b",), ())
    nested = functools.partial(want("c")(part), 2)
    assert declarations_of(nested) == ((clause("c"), clause("a")), ("b",), ())
    assert declarations_of(handler)[0] == (clause("a"),)


@pytest.mark.parametrize("cls", [DecoratedCall, NamedDecoratedCall])
def test_an_object_declares_what_its_call_method_declares(cls: Callable[[], Any]) -> None:
    assert declarations_of(cls()) == ((clause("called"),), ("before",), ("after",))


def test_an_object_can_declare_more_than_its_call_method() -> None:
    on_top = want("on top")(DecoratedCall())
    assert declarations_of(on_top)[0] == (clause("on top"), clause("called"))
    assert declarations_of(on_top)[1] == ("before",)
    assert declarations_of(DecoratedCall())[0] == (clause("called"),)


def test_an_object_declares_what_its_class_declares() -> None:
    assert declarations_of(DecoratedClass())[0] == (clause("of the class"),)
    on_top = want("on top")(DecoratedClass())
    assert declarations_of(on_top)[0] == (clause("on top"), clause("of the class"))
    assert declarations_of(DecoratedClass())[0] == (clause("of the class"),)


def test_a_subclass_does_not_alter_what_its_base_declares() -> None:
    @want("of the subclass")
    class Derived(DecoratedClass):
        pass

    assert declarations_of(Derived())[0] == (clause("of the subclass"), clause("of the class"))
    assert declarations_of(DecoratedClass())[0] == (clause("of the class"),)


def test_declarations_survive_pickle_where_the_callable_does() -> None:
    decorated = want("a", first)(requires("b")(CallableObject()))
    part = want("c")(Methods().decorated)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        loaded = pickle.loads(pickle.dumps(decorated, protocol))
        assert declarations_of(loaded) == ((clause("a", first),), ("b",), ())
        loaded = pickle.loads(pickle.dumps(part, protocol))
        assert declarations_of(loaded)[0] == (clause("c"), clause("decorated"))


def test_the_kind_of_function_is_kept_for_the_type_checker() -> None:
    @want("a")
    def handler(proc: evproc.Processor, ev: evproc.Event) -> list[evproc.Event]:
        return [ev]

    def typed(func: Callable[[evproc.Processor, evproc.Event], list[evproc.Event]]) -> object:
        return func

    assert typed(handler) is handler


# --- is_async, default_name, describe_callable ---


@pytest.mark.parametrize(
    "func",
    [
        coroutine,
        async_generator,
        functools.partial(coroutine, 1),
        functools.partial(functools.partial(async_generator, 1), 2),
        AsyncCall(),
        functools.partial(AsyncCall(), 1),
        Methods().coroutine,
        want("a")(Methods().coroutine),
        NamedAsyncCall(),
    ],
    ids=_type_name,
)
def test_what_makes_coroutines_is_async(func: Callable[..., Any]) -> None:
    assert is_async(func)


@pytest.mark.parametrize(
    "func",
    [plain, functools.partial(plain, 1), CallableObject(), Methods().method, print, DecoratedClass],
    ids=_type_name,
)
def test_what_makes_none_is_not_async(func: Callable[..., Any]) -> None:
    assert not is_async(func)


def test_a_generator_function_is_not_async() -> None:
    def handler(proc: Any, ev: Any) -> Any:
        yield

    assert not is_async(handler)


def test_the_default_name_is_that_of_the_innermost_function() -> None:
    assert default_name(plain) == "plain"
    assert default_name(functools.partial(functools.partial(plain, 1), 2)) == "plain"
    assert default_name(Methods().method) == "method"
    assert default_name(want("a")(Methods().method)) == "method"
    assert default_name(lambda: None) == "<lambda>"
    assert default_name(NamedDecoratedCall()) == "named"
    assert default_name(CallableObject()) is None
    assert default_name(functools.partial(CallableObject())) is None


def test_a_name_that_is_no_string_is_none() -> None:
    func = CallableObject()
    func.__name__ = 5  # type: ignore[attr-defined]  # as some proxies have it
    assert default_name(func) is None


def test_a_callable_is_described_by_module_and_qualified_name() -> None:
    here = __name__
    assert describe_callable(plain) == f"{here}.plain"
    assert describe_callable(functools.partial(plain, 1)) == f"{here}.plain"
    assert describe_callable(Methods().method) == f"{here}.Methods.method"
    assert describe_callable(CallableObject()) == f"{here}.CallableObject.__call__"
    assert describe_callable(DecoratedClass) == f"{here}.DecoratedClass"
    assert describe_callable(print) == "builtins.print"
    # what has no module is at home among the built-ins
    assert describe_callable([].append) == "builtins.list.append"


def test_a_lambda_is_described_with_its_line() -> None:
    func = lambda ev: True  # noqa: E731 - what is described
    line = func.__code__.co_firstlineno
    described = describe_callable(func)
    assert described.startswith(f"{__name__}.test_a_lambda_is_described_with_its_line.")
    assert described.endswith(f"<lambda> at {__file__}:{line}")


def test_a_callable_without_any_qualified_name_is_described_by_its_class() -> None:
    class Proxy:
        __name__ = "proxy"

        __call__ = functools.partial(print)

    # not by its repr, which may have an address in it
    assert describe_callable(Proxy()).endswith("<locals>.Proxy object")
