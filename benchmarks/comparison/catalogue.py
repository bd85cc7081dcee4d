"""Which systems there are, and which of them are installed here."""

from __future__ import annotations

from typing import Final

from benchmarks.comparison import optional
from benchmarks.comparison.systems import Executor, MultiprocessingPool, Ours, System
from benchmarks.machine import package_versions
from benchmarks.model import Note

#: Every system, in the order in which they are sampled: those that bars compare first.
SYSTEMS: Final[tuple[type[System], ...]] = (
    Ours,
    MultiprocessingPool,
    Executor,
    optional.Loky,
    optional.Joblib,
    optional.Mpire,
    optional.Pebble,
    optional.Deadpool,
    optional.Dask,
    optional.Ray,
)

#: The extra that has all the optional ones.
EXTRA: Final = "bench"


def installed() -> tuple[type[System], ...]:
    """The systems that can be measured here."""
    versions = package_versions(_distributions())
    return tuple(
        each for each in SYSTEMS if each.distribution is None or each.distribution in versions
    )


def by_label(label: str) -> type[System]:
    """The system that is called so."""
    (found,) = (each for each in SYSTEMS if each.label == label)
    return found


def notes() -> list[Note]:
    """Say which versions the peers have, and which are missing."""
    versions = package_versions(_distributions())
    missing = [name for name in _distributions() if name not in versions]
    told = []
    if versions:
        each = ", ".join(f"{name} {version}" for name, version in versions.items())
        told.append(Note(f"peers: {each}"))
    if missing:
        told.append(
            Note(
                f"left out, since not installed: {', '.join(missing)}; the extra {EXTRA!r} has"
                f" them: pip install 'evproc-pool[{EXTRA}]'"
            )
        )
    return told


def _distributions() -> list[str]:
    return [each.distribution for each in SYSTEMS if each.distribution is not None]
