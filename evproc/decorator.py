"""`@want`, `@requires`, `@required_by`: the declarations of a handler.

They are kept on the function as tuples, which are replaced and never changed. So a subclass or a
copy that inherits them cannot alter those of the original.
"""

from __future__ import annotations

import functools
from types import (
    BuiltinFunctionType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    WrapperDescriptorType,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from evproc.annotations import Filter

    H = TypeVar("H", bound=Callable[..., Any])

_WANT = "_ev_filters"
_REQUIRES = "_ev_requires"
_REQUIRED_BY = "_ev_required_by"

# inspect.CO_COROUTINE and CO_ASYNC_GENERATOR; `inspect` takes as long to import as all of evproc
_ASYNC_FLAGS = 0x80 | 0x200
# CO_VARARGS and CO_VARKEYWORDS
_TAKES_MORE = 0x04
_TAKES_KEYWORDS = 0x08


class Clause:
    """One `@want`: any of the names (if there are any), and every filter. Do not change it."""

    def __init__(self, names: frozenset[str], filters: tuple[Filter, ...]) -> None:
        self.names = names
        self.filters = filters

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Clause):
            return NotImplemented
        return (self.names, self.filters) == (other.names, other.filters)

    __hash__ = None  # type: ignore[assignment]  # it is never a key


class Declare:
    """A decorator that puts one declaration in front of those a function has.

    It is a class so that `Processor.register` recognises it: it stands in the place of a handler
    if the parentheses of a decorator were forgotten.
    """

    __slots__ = ("attribute", "decorator", "items")

    def __init__(self, decorator: str, attribute: str, items: tuple[Any, ...]) -> None:
        self.decorator = decorator
        self.attribute = attribute
        self.items = items

    @property
    def forgotten(self) -> str:
        """The error text for a `Declare` in the place of a handler."""
        return (
            f"@{self.decorator} was used without its arguments, so it took the handler for"
            f" one: write @{self.decorator}(...)"
        )

    def __call__(self, func: H) -> H:
        """Declare it on `func`, or on a `partial` around it where it takes no attributes."""
        if not callable(func):
            raise TypeError(f"@{self.decorator}(...) decorates a callable, not {func!r}")
        if isinstance(func, Declare):
            raise TypeError(func.forgotten)
        # a class gives access to the function, not to the staticmethod around it
        target = func.__func__ if isinstance(func, staticmethod) else func
        declared = (*self.items, *_declared(target, self.attribute))
        try:
            setattr(target, self.attribute, declared)
        except AttributeError:
            # bound methods, C functions and slotted objects take no attributes
            part: Any = functools.partial(func)
            setattr(part, self.attribute, declared)
            return part  # type: ignore[no-any-return]  # to a type checker it is still `func`
        return func


def want(*filters: str | Filter) -> Declare:
    """Declare which events a handler wants.

    The handler wants an event whose name is one of the strings (if there are
    any) and for which every callable returns a true value. Used several times,
    any one of them is enough. A handler without `@want` wants every event.

    Args:
        filters: Event names, and callables that take the event.

    Raises:
        TypeError: No arguments, or one that is neither a string nor a plain callable.
    """
    if not filters:
        raise TypeError("@want() takes at least 1 argument (0 given)")
    names = []
    functions = []
    for item in filters:
        if isinstance(item, str):
            names.append(item)
        elif callable(item):
            if is_async(item):
                raise TypeError(
                    f"@want() got the async function {describe_callable(item)} as a filter:"
                    " its result is a coroutine, which is always true"
                )
            functions.append(item)
        else:
            raise TypeError(f"@want() must be called with strings or callables, not {item!r}")
    return Declare("want", _WANT, (Clause(frozenset(names), tuple(functions)),))


def requires(*procs: str) -> Declare:
    """Declare that a handler runs after the named handlers, and only with them.

    Args:
        procs: Names of handlers.

    Raises:
        TypeError: No names, or one that is not a string.
    """
    return Declare("requires", _REQUIRES, _names("requires", procs))


def required_by(*procs: str) -> Declare:
    """Declare that a handler runs before the named handlers, which then need it.

    A name that is not registered is no error: then no handler waits.

    Args:
        procs: Names of handlers.

    Raises:
        TypeError: No names, or one that is not a string.
    """
    return Declare("required_by", _REQUIRED_BY, _names("required_by", procs))


def _names(decorator: str, procs: tuple[str, ...]) -> tuple[str, ...]:
    if not procs:
        raise TypeError(f"@{decorator}() takes at least 1 argument (0 given)")
    for name in procs:
        if not isinstance(name, str):
            own = default_name(name)
            hint = f": write @{decorator}({own!r})" if own and callable(name) else ""
            raise TypeError(f"@{decorator}() takes names of handlers, not {name!r}{hint}")
    return procs


def _declared(func: object, attribute: str) -> tuple[Any, ...]:
    """Look a declaration up on the callable, and on the callables in it."""
    for place in _layers(func):
        declared = getattr(place, attribute, None)
        if isinstance(declared, tuple):
            return declared
    return ()


# Types whose `__call__` has no declarations of its own; a class makes instances.
_PLAIN_CALLABLES = (FunctionType, MethodType, BuiltinFunctionType, type)


def _layers(func: object) -> list[object]:
    """Return the callable, those that a `partial` wraps, and the `__call__` of its class."""
    layers = [func]
    while isinstance(func, functools.partial):
        func = func.func
        layers.append(func)
    if not isinstance(func, _PLAIN_CALLABLES):
        layers.append(getattr(type(func), "__call__", None))  # noqa: B004 - what it calls, not whether
    return layers


def declarations_of(
    func: object,
) -> tuple[tuple[Clause, ...], tuple[str, ...], tuple[str, ...]]:
    """Read the declarations of a handler; duplicates of a name count once.

    Returns:
        `@want`, `@requires` and `@required_by`, each in the order in which it reads from
        the top.
    """
    return (
        _declared(func, _WANT),
        tuple(dict.fromkeys(_declared(func, _REQUIRES))),
        tuple(dict.fromkeys(_declared(func, _REQUIRED_BY))),
    )


def is_async(func: object) -> bool:
    """Whether calling it makes a coroutine or an async generator."""
    for layer in _layers(func):
        code = getattr(layer, "__code__", None)
        if code is not None and code.co_flags & _ASYNC_FLAGS:
            return True
    return False


def default_name(func: object) -> str | None:
    """Return the name under which a callable is registered by default, or None."""
    while isinstance(func, functools.partial):
        func = func.func
    name = getattr(func, "__name__", None)
    return name if isinstance(name, str) else None


def describe_callable(func: object) -> str:
    """Return module and qualified name; also the line, for lambdas and local functions."""
    for layer in _layers(func):
        qualname = getattr(layer, "__qualname__", None)
        if qualname is None:
            continue
        text = f"{getattr(layer, '__module__', None) or 'builtins'}.{qualname}"
        code = getattr(layer, "__code__", None)
        if code is not None and "<" in qualname:
            text += f" at {code.co_filename}:{code.co_firstlineno}"
        return text
    # not its repr: that may have an address, and differ from process to process
    return f"{type(func).__module__}.{type(func).__qualname__} object"


def takes_two(func: Any) -> bool:
    """Whether it can be called with two positional arguments; True if that is not known."""
    given = 2
    keywords: set[str] = set()
    while type(func) is not FunctionType:
        if type(func) is MethodType:
            given += 1
            func = func.__func__
        elif type(func) is functools.partial:
            gap = getattr(functools, "Placeholder", func)  # it came with Python 3.14
            given += sum(argument is not gap for argument in func.args)
            keywords |= func.keywords.keys()
            func = func.func
        elif isinstance(func, _IN_C):
            return _binds(func, given, keywords)
        elif type(call := type(func).__call__) is FunctionType:
            given += 1
            func = call
        else:
            return True
    return _fits(func, given, keywords)


# Types that `inspect` may know. It is wrong about objects whose `__call__` is anything else.
_IN_C = (type, BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType)


def _fits(func: FunctionType, given: int, keywords: set[str]) -> bool:
    """Whether a plain function takes so many positional arguments, and these keywords."""
    code = func.__code__
    most, names = code.co_argcount, code.co_varnames
    if given > most and not code.co_flags & _TAKES_MORE:
        return False
    first_default = most - len(func.__defaults__ or ())
    if not keywords.issuperset(names[given:first_default]):
        return False
    by_keyword = names[most : most + code.co_kwonlyargcount]
    if not {*(func.__kwdefaults__ or ()), *keywords}.issuperset(by_keyword):
        return False
    positional_only = names[: code.co_posonlyargcount]
    if not code.co_flags & _TAKES_KEYWORDS and not keywords <= {
        *names[len(positional_only) : most],
        *by_keyword,
    }:
        return False
    return keywords.isdisjoint(names[len(positional_only) : min(given, most)])


def _binds(func: Any, given: int, keywords: set[str]) -> bool:
    """Ask `inspect`, about classes and callables written in C."""
    import inspect

    try:
        signature = inspect.signature(func, follow_wrapped=False)
    except Exception:
        return True  # its signature cannot be read
    try:
        signature.bind(*[None] * given, **dict.fromkeys(keywords))
    except TypeError:
        return False
    return True
