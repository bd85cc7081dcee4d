"""Whether a node has what its workers need: Python, evproc-pool, the handlers' distributions.

Checked before the first event, when an agent begins: the registries of its workers are compared
later, when each is ready. Handlers of entry points know their distribution. That of other handlers
is looked up by the name of their top-level module; modules of no distribution are not compared.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from evproc.registry import Registry
from evproc_pool.protocol.registry_spec import fingerprint

#: Stands for what is not there.
_NOTHING: Final = "nothing"

_PYTHON: Final = "Python"
_OWN: Final = "evproc-pool"


class Version(NamedTuple):
    """The version of something that both sides need.

    Attributes:
        distribution: Its name.
        version: That of the coordinator.
        handlers: The names of handlers that come from it, in words.
    """

    distribution: str
    version: str
    handlers: str = ""


def expected_versions(registry: Registry) -> list[Version]:
    """What the handlers of a registry need."""
    handlers: dict[tuple[str, str], list[str]] = {}
    origins: dict[str, list[str]] | None = None
    for each, handler in zip(fingerprint(registry), registry.handlers, strict=True):
        distribution, version = each.distribution, each.version
        if not distribution:
            if origins is None:
                origins = _origins()
            module = getattr(handler.func, "__module__", None) or ""
            found = origins.get(module.partition(".")[0], [])
            if len(set(found)) != 1:
                continue  # of none, or of a namespace that several share
            distribution, version = found[0], installed(found[0])
        handlers.setdefault((distribution, version), []).append(repr(each.name))
    own = [Version(_PYTHON, _python()), Version(_OWN, _own_version())]
    return own + [Version(*key, _listed(names)) for key, names in handlers.items()]


def differences(expected: Iterable[Version]) -> list[str]:
    """How the versions in this process differ from the expected ones, in words."""
    found = []
    for each in expected:
        here = _python() if each.distribution == _PYTHON else installed(each.distribution)
        if here != each.version:
            of = f"{each.handlers}: " if each.handlers else ""
            found.append(
                f"{of}{each.distribution} {each.version} in the pool's process, {here} on the node"
            )
    return found


def installed(distribution: str) -> str:
    """The version of a distribution in this process."""
    import importlib_metadata

    try:
        return importlib_metadata.version(distribution)
    except importlib_metadata.PackageNotFoundError:
        return _NOTHING


def _python() -> str:
    # the code of handlers that are sent by value is that of a minor version
    return f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}"


def _own_version() -> str:
    return installed(_OWN)


def _origins() -> dict[str, list[str]]:
    import importlib_metadata

    return {
        module: list(names) for module, names in importlib_metadata.packages_distributions().items()
    }


def _listed(names: Sequence[str]) -> str:
    what = "handler" if len(names) == 1 else "handlers"
    return f"{what} {', '.join(names)}"
