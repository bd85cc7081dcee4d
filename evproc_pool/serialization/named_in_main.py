"""Sends what the main script defines and Python pickles by its name alone.

These are sentinels, `NewType`, type aliases, `ParamSpec` and `TypeVarTuple`. (cloudpickle knows
`TypeVar`.) Annotations of classes and functions hold them, so they go along with these.

A worker has no main script. The first pickle that has such an object makes it, in the worker's
``__main__``. Others find it there by its name, and so does the coordinator what comes back.
"""

from __future__ import annotations

import builtins
import sys
import types
import typing
from typing import Any, Final

from evproc_pool.serialization.basics import ThisProcess, lives_in_main

# They come with Python 3.15 and 3.12.
_Sentinel: Final[Any] = getattr(builtins, "sentinel", None)
_Alias: Final[Any] = getattr(typing, "TypeAliasType", None)

_PARAMETERS: Final = (typing.ParamSpec, typing.TypeVarTuple)
_KINDS: Final = {_Sentinel, _Alias, typing.NewType, *_PARAMETERS}

# Options of `ParamSpec`; their attributes have two underscores on each side.
_OPTIONS: Final = ("bound", "covariant", "contravariant", "infer_variance")


def is_in_main(named: Any) -> bool:
    """Whether the ``__main__`` here holds an object under its name."""
    main = sys.modules.get(named.__module__) if lives_in_main(named) else None
    name = getattr(named, "__qualname__", None) or named.__name__
    return main is not None and vars(main).get(name) is named


def main_of(module: str) -> types.ModuleType:
    """The ``__main__`` here, under one of its two names."""
    return sys.modules.setdefault(module, sys.modules["__main__"])


def reduce_named(content: Any) -> Any:
    """Reduce one of these objects; None: it is none, or none of the main script."""
    kind = type(content)
    if type(kind) is not type or kind not in _KINDS:
        return None  # another metaclass may not bear the comparison
    is_held = is_in_main(content)
    if not is_held and (kind not in _PARAMETERS or _can_be_imported(content)):
        return None
    options: dict[str, Any] = {}
    state = None
    if kind is _Sentinel:
        options["repr"] = repr(content)
    elif kind is typing.NewType:
        options["tp"] = content.__supertype__
    elif kind in _PARAMETERS:
        options |= {each: getattr(content, f"__{each}__", None) for each in _OPTIONS}
        if getattr(content, "has_default", bool)():
            options["default"] = content.__default__
        options = {each: value for each, value in options.items() if value}
    elif content.__type_params__:
        options |= {"value": content.__value__, "type_params": content.__type_params__}
    else:
        state = _value_of(content)  # by itself, since it may refer to the alias
    # no module holds the parameter of `def f[**P]`
    found = _find if is_held else _make, (content.__module__, content.__name__, kind, options)
    return found if state is None else (*found, state, None, None, _set_value)


def _can_be_imported(named: Any) -> bool:
    module = sys.modules.get(named.__module__)
    return not lives_in_main(named) and getattr(module, named.__name__, None) is named


def _find(module: str, name: str, kind: Any, options: dict[str, Any]) -> Any:
    main = vars(main_of(module))
    if ThisProcess.is_worker and type(main.get(name)) is not kind:
        main[name] = _make(module, name, kind, options)
    return main[name]


def _make(module: str, name: str, kind: Any, options: dict[str, Any]) -> Any:
    # it belongs to the module that makes it
    space: dict[str, Any] = {"__name__": module, "kind": kind, "name": name, "options": options}
    if kind is _Alias and not options:
        space["values"] = _values
        exec(f"type {name} = values[{name!r}]", space)  # noqa: S102 - no syntax of Python 3.11
        return space[name]
    return eval("kind(name, **options)", space)  # noqa: S307 - this is all of it


# --- values of type aliases ---


class _Values(dict[str, Any]):
    """By the names of the aliases."""

    def __missing__(self, name: str) -> Any:
        raise NameError(f"the type alias {name!r} of the main script has no value there")


_values: Final = _Values()


def _value_of(alias: Any) -> tuple[Any] | None:
    try:
        return (alias.__value__,)
    except Exception:  # it names what is there for type checkers only
        return None


def _set_value(alias: Any, state: tuple[Any]) -> None:
    if ThisProcess.is_worker:
        _values[alias.__name__] = state[0]
