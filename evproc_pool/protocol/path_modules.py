"""Modules in `sys.modules` that no import finds, though pickles refer to them by their names.

An application loads plug-ins from their paths, and ``pytest --import-mode=importlib`` its test
modules: workers load them from the same paths. `runpy.run_path` makes a module that has no origin,
and the file of another may have been deleted: workers make one of its handlers' definitions.

Nothing here executes a module that `importlib.util.LazyLoader` has not executed yet.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Iterable, Mapping
from importlib import machinery
from importlib.machinery import ModuleSpec, SourceFileLoader, SourcelessFileLoader
from importlib.util import spec_from_file_location
from types import ModuleType
from typing import Any, Final, NamedTuple

from evproc_pool.errors import SerializationError
from evproc_pool.serialization.basics import lives_in_main

# Loaders that a worker makes of a file alone, whatever its suffix is.
_LOADERS: Final = {
    each: each.__name__
    for each in (SourceFileLoader, SourcelessFileLoader, machinery.ExtensionFileLoader)
}

# Reads it past what a subclass makes of attributes: a lazy module is executed by that.
_dict_of: Final = vars(ModuleType)["__dict__"].__get__


class PathModule(NamedTuple):
    """The file of a module, if it has one, and the folders of a package.

    `loader` is the name of one of the import system's; None: the file's suffix says which.
    """

    file: str | None
    folders: list[str] | None
    loader: str | None = None


#: By name.
PathModules = dict[str, PathModule]


def names_in(module: object) -> Mapping[str, Any]:
    """The names of a module, as far as it is executed; none of anything else in its place."""
    return (_dict_of(module) or {}) if issubclass(type(module), ModuleType) else {}


def path_modules() -> PathModules:
    """The modules of this process that workers would not find by their names."""
    modules = sys.modules.copy()
    entries = set(sys.path)
    with contextlib.suppress(OSError, TypeError):  # no working directory; an entry is no text
        entries |= set(map(os.path.abspath, sys.path))
    found: PathModules = {}
    for name, module in modules.items():
        try:
            path_module = _path_module(name, module, modules, entries)
        except Exception:  # noqa: S112 - anything may stand there
            continue
        if path_module is not None:
            found[name] = path_module
    for name in [*found]:
        package = name
        while package := package.rpartition(".")[0]:
            if package not in found and _of_package(modules.get(package), "__file__", None) is None:
                found[package] = PathModule(None, [*_folders(modules.get(package))])
    return found


def _path_module(
    name: str, module: object, modules: Mapping[str, object], entries: set[str]
) -> PathModule | None:
    """How workers find a module; None: as any other, or not at all."""
    spec = names_in(module).get("__spec__")
    if not isinstance(spec, ModuleSpec) or spec.name != name:
        return None
    file = spec.origin if spec.has_location else None
    path = name.replace(".", os.sep)
    if file is not None and file.endswith((f"{path}.py", f"{path}{os.sep}__init__.py")):
        end = file.rindex(path) - len(os.sep)
        if file[:end] in entries:
            return None  # nearly all of them
    folders = [*(spec.submodule_search_locations or ())]
    package, _, leaf = name.rpartition(".")
    places = _folders(modules.get(package)) if package else entries
    if _is_found(file, folders, leaf, places):
        return None
    if file is None:
        return PathModule(None, folders) if folders else None
    loader = _LOADERS.get(type(spec.loader))  # type: ignore[arg-type]  # of any other None
    if not os.path.isfile(file) or _is_unknown(name, file, loader):  # noqa: PTH113 - pathlib is slow
        return None
    return PathModule(file, folders or None, loader)


def _is_unknown(name: str, file: str, loader: str | None) -> bool:
    """Whether a worker does not know how to load a file."""
    return loader is None and spec_from_file_location(name, file) is None


def _is_lost(name: str) -> bool:
    """Whether workers cannot load a module that was executed here.

    It has no origin; or its source file is gone, or a loader of the application's has read it.
    """
    module = sys.modules.get(name)
    if not issubclass(type(module), ModuleType):
        return False
    spec = names_in(module).get("__spec__")
    if spec is None or spec.name != name:  # `runpy` gives a module another name
        return True
    file, loader = getattr(spec, "origin", None), getattr(spec, "loader", None)
    if not isinstance(loader, SourceFileLoader | SourcelessFileLoader) or not isinstance(file, str):
        return False
    is_there = os.path.isfile(file)  # noqa: PTH113 - pathlib is slow
    return not is_there or _is_unknown(spec.name, file, _LOADERS.get(type(loader)))


def modules_by_value(functions: Iterable[object]) -> dict[str, bytes]:
    """The definitions in modules of functions that no worker can load.

    Raises:
        SerializationError: They cannot be pickled.
    """
    found: dict[str, bytes] = {}
    for function in functions:
        inner = function
        while isinstance(inner, functools.partial):
            inner = inner.func
        name = getattr(inner, "__module__", None)
        if not isinstance(name, str) or name in found or lives_in_main(inner):
            continue
        if _is_lost(name):
            try:
                found[name] = _dumps_module(name)
            except Exception as error:
                raise SerializationError(
                    f"no import finds the module {name!r} that has handlers, and its definitions"
                    f" cannot be pickled: {type(error).__name__}: {error}; put the handlers into a"
                    " module that workers can import"
                ) from error
    return found


def _dumps_module(name: str) -> bytes:
    from evproc_pool.serialization import by_value  # slow to import

    return by_value.dumps_module(sys.modules[name])


def missing_module(error: BaseException | None) -> str | None:
    """The module that was not found, if that is the cause of an error."""
    while error is not None and not isinstance(error, ModuleNotFoundError):
        error = error.__cause__ or error.__context__
    return None if error is None else error.name


def find_missing(name: str) -> tuple[PathModules, dict[str, bytes]] | None:
    """What a worker needs to find a module that has come after its start; None: nothing helps."""
    found = path_modules()
    if name in found:
        return found, {}
    if _is_lost(name):
        with contextlib.suppress(Exception):  # the worker's error says enough
            return found, {name: _dumps_module(name)}
    return None


def take_over(modules: PathModules, by_value: dict[str, bytes]) -> None:
    """Let this process, a worker, find such modules of the coordinator."""
    finders = [each for each in sys.meta_path if isinstance(each, PathFinder)]
    if finders:
        finders[0].modules.update(modules)
    elif modules:
        sys.meta_path.insert(0, PathFinder(modules))
    for name in by_value.keys() - sys.modules.keys():
        from evproc_pool.serialization.by_value import loads

        module = sys.modules[name] = ModuleType(name)
        vars(module).update(loads(by_value[name], ()))


def _folders(package: object) -> Iterable[str]:
    folders: Iterable[str] = _of_package(package, "__path__", ())
    return folders


def _of_package(package: object, name: str, default: Any) -> Any:
    """An attribute of a package, which may be something that stands for a module."""
    names = names_in(package)
    if name in names:
        return names[name]
    try:
        return getattr(package, name, default)
    except Exception:
        return default


def _is_found(file: str | None, folders: list[str], leaf: str, places: Iterable[str]) -> bool:
    """Whether an import looks for it there: a folder's file or folder with the name ``leaf``."""
    if file is not None:
        folder, name = os.path.split(file)
        stem = name.partition(".")[0]
        folders = [folder if stem == "__init__" else os.path.join(folder, stem)]  # noqa: PTH118 - likewise
    return any(
        os.path.basename(each) == leaf and os.path.dirname(each) in places  # noqa: PTH119, PTH120 - likewise
        for each in folders
    )


class PathFinder:
    """Finds them in a worker, as an entry of `sys.meta_path`."""

    def __init__(self, modules: PathModules) -> None:
        self.modules = modules

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002 - as every finder
        """Return the spec of a module, or None: others may find it."""
        module = self.modules.get(name)
        if module is None:
            return None
        if module.file is not None:
            loader: Any = None  # the suffix says it
            if module.loader is not None:
                loader = getattr(machinery, module.loader)(name, module.file)
            return spec_from_file_location(
                name, module.file, loader=loader, submodule_search_locations=module.folders
            )
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = module.folders
        return spec
