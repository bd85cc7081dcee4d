"""The values that handlers have, by kind: what a value costs depends on what it is.

`VALUES` are those of most handlers, which bars are set on. `SHAPES` are others that
users have; nobody tuned anything for them. A value is made from a number, so that a side
can be checked against what another one gives.

NumPy and dataclasses are imported where they are used: scripts whose start is measured
import this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

#: Makes the value of a number.
MakeValue = Callable[[int], Any]

#: What peers call for each event, or for each of other things.
Function = Callable[[Any], Any]

KILOBYTE: Final = 1_000

_FLOAT_BYTES: Final = 8

# One byte of each is read of what is large.
_PAGE_BYTES: Final = 4096


class Pair(NamedTuple):
    """A value of a named tuple."""

    number: int
    name: str


class Reduced:
    """A value of a class that says itself how it is pickled."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.cache: dict[str, int] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reduced) and other.number == self.number

    def __hash__(self) -> int:
        return hash(self.number)

    def __reduce__(self) -> tuple[Any, ...]:
        return Reduced, (self.number,)


def make_int(number: int) -> int:
    """Make an int."""
    return number


def make_tuple(number: int) -> tuple[int, str, float]:
    """Make a tuple of three."""
    return (number, "new", number * 0.5)


def make_dict(number: int) -> dict[str, Any]:
    """Make a dict of five."""
    return {
        "article": number,
        "state": "new",
        "price": number * 0.25,
        "pieces": 1,
        "is_known": True,
    }


def make_bytes(size: int, number: int) -> bytes:
    """Make an object of so many bytes, of its own."""
    return bytes([number % 256]) * size


def _make_some(number: int) -> int | None:
    return number if number % 2 else None


def _make_large_dict(number: int) -> dict[str, int]:
    return {f"key {place}": number + place for place in range(100)}


def _make_record(number: int) -> Any:
    from benchmarks.pool.records import Record  # not before: see above

    return Record(number, f"order {number}", number * 0.25, number % 3 == 0)


def _make_pair(number: int) -> Pair:
    return Pair(number, f"order {number}")


def _make_nested(number: int) -> list[Any]:
    return [number, [[number, [1.5, "new"]], [number + 1, ["old", [True, None]]]], ["end"]]


def _make_scalar(number: int) -> Any:
    import numpy as np  # not before: see above

    return np.float64(number)


def make_array(size: int, number: int) -> Any:
    """Make an array of so many bytes, of its own."""
    import numpy as np  # not before: see above

    return np.full(size // _FLOAT_BYTES, float(number))


def touch(data: Any) -> None:
    """Read a byte of every page: shared memory costs only what is read of it."""
    memoryview(data).cast("B")[::_PAGE_BYTES].tobytes()


def has_numpy() -> bool:
    """Whether NumPy is installed."""
    from importlib.util import find_spec  # not before: see above

    return find_spec("numpy") is not None


#: What each throughput case has a twin with.
VALUES: Final[Mapping[str, MakeValue]] = {
    "int": make_int,
    "tuple of three": make_tuple,
    "dict of five": make_dict,
    "1 kB of bytes": partial(make_bytes, KILOBYTE),
}


class Shape(NamedTuple):
    """A kind of value without a bar.

    Attributes:
        make: Makes one.
        per_second: About how many two workers make and send, to size a sample by.
        size_bytes: Of a large one.
        needs_numpy: Whether NumPy has to be installed.
    """

    make: MakeValue
    per_second: float
    size_bytes: int = 0
    needs_numpy: bool = False


#: The kinds that are measured without a bar.
SHAPES: Final[Mapping[str, Shape]] = {
    "every second one None": Shape(_make_some, 200_000),
    "dict of 100": Shape(_make_large_dict, 30_000),
    "dataclass": Shape(_make_record, 120_000),
    "named tuple": Shape(_make_pair, 120_000),
    "nested lists": Shape(_make_nested, 100_000),
    "NumPy scalar": Shape(_make_scalar, 80_000, needs_numpy=True),
    "class with __reduce__": Shape(Reduced, 100_000),
    "100 kB": Shape(partial(make_bytes, 100 * KILOBYTE), 4_000, 100 * KILOBYTE),
    "1 MB": Shape(partial(make_bytes, 1000 * KILOBYTE), 400, 1000 * KILOBYTE),
}

#: Every kind by name.
MAKERS: Final[Mapping[str, MakeValue]] = {
    **VALUES,
    **{kind: shape.make for kind, shape in SHAPES.items()},
}
