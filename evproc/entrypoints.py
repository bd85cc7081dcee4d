"""Handlers from entry points, through ``importlib-metadata``.

Everything is imported and checked before anything is registered. The order is by entry-point
name, then by distribution, so it is the same in every process; the file system may list the
distributions in any order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from evproc.exc import (
    EntryPointConflictException,
    EntryPointException,
    EntryPointGroupException,
    EntryPointLoadException,
    EntryPointTypeException,
)
from evproc.mistakes import near_names
from evproc.origin import Origin
from evproc.registry import validated_name

if TYPE_CHECKING:
    from importlib_metadata import EntryPoint

    from evproc.annotations import HandlerFunc, OnError


class LoadedHandler(NamedTuple):
    """A handler from an entry point."""

    func: HandlerFunc
    name: str
    origin: Origin


def load_group(group: str, on_error: OnError = "raise") -> list[LoadedHandler]:
    """Import every entry point of a group; see `Processor.load_from`."""
    if not isinstance(group, str):
        raise TypeError(f"an entry-point group is a string, not {group!r}")
    if not callable(on_error) and on_error not in ("raise", "skip"):
        raise TypeError(f"on_error is 'raise', 'skip' or a callable, not {on_error!r}")
    # imported here: it takes longer than all of evproc
    import importlib_metadata

    found = sorted(
        importlib_metadata.entry_points(group=group),
        key=lambda entry: (entry.name, _origin(entry).distribution, entry.value),
    )
    if not found:
        _report(_no_group(group, importlib_metadata.entry_points().groups), on_error)
    loaded: dict[str, LoadedHandler] = {}
    for entry in found:
        try:
            handler = _load(entry)
            first = loaded.get(entry.name)
            if first is not None:
                raise EntryPointConflictException(
                    f"entry point {entry.name!r} of group {group!r} is claimed twice, by"
                    f" {_place(first.origin)} and by {_place(handler.origin)}: uninstall one of"
                    " them, or load with on_error='skip' to keep the first",
                    group,
                    entry.name,
                )
        except EntryPointException as error:
            _report(error, on_error)
        else:
            loaded[entry.name] = handler
    return list(loaded.values())


def _load(entry: EntryPoint) -> LoadedHandler:
    origin = _origin(entry)
    what = f"entry point {entry.name!r} ({entry.value}) of group {entry.group!r}, from"
    what = f"{what} {_place(origin)},"
    try:
        func = entry.load()
    except (Exception, SystemExit) as error:
        # SystemExit too: a module that exits at its import is broken, and must not end the
        # application
        raise EntryPointLoadException(
            f"{what} cannot be imported: {type(error).__name__}: {error}; repair or uninstall"
            " the distribution, or load with on_error='skip'",
            entry.group,
            entry.name,
        ) from error
    try:
        validated_name(func, entry.name)
    except TypeError as error:
        raise EntryPointTypeException(
            f"{what} cannot be a handler: {error}", entry.group, entry.name
        ) from error
    return LoadedHandler(func, entry.name, origin)


def _origin(entry: EntryPoint) -> Origin:
    try:
        dist = entry.dist
        name, version = (dist.name, dist.version) if dist is not None else ("", "")
    except Exception:
        # an interrupted uninstallation leaves entry points without metadata
        name = version = ""
    return Origin(entry.group, name or "", version or "")


def _place(origin: Origin) -> str:
    if not origin.distribution:
        return "an unnamed distribution"
    return f"distribution {origin.distribution!r} {origin.version}"


def _no_group(group: str, groups: set[str]) -> EntryPointGroupException:
    near = near_names(group, groups)
    hint = f"; there is {', '.join(map(repr, near))}" if near else ""
    return EntryPointGroupException(
        f"no installed distribution has an entry point in group {group!r}{hint}: install the"
        " distribution into this environment, or correct the name",
        group,
    )


def _report(error: EntryPointException, on_error: OnError) -> None:
    """Raise the error, log it or pass it on, by `on_error`."""
    if on_error == "raise":
        raise error
    if on_error == "skip":
        import logging

        logging.getLogger("evproc").warning("skipped: %s", error)
    else:
        on_error(error)
