"""One side as a program: ``python -m benchmarks.applications.logs.program SIDE LOG RESULT``.

It says `READY` on its output when a tenth of the lines is through, and in the end how many lines
are in the result.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.applications.logs import fragile, sessions, sides
from benchmarks.applications.logs.reading import Summary

#: Printed in the middle of the work.
READY: Final = "in the middle of it"

_READY_AT: Final = 1000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=list(sides.SIDES))
    parser.add_argument("source", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--timeout", type=float)
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    job = sides.Job(
        options.source,
        options.result,
        options.chunk,
        options.timeout,
        read=fragile.read,
        register=fragile.register_all,
        write=_write,
    )
    sides.SIDES[options.side](job)
    return 0


def _write(result: Path, summaries: Iterable[Summary]) -> int:
    count = sessions.write(result, _announced(summaries))
    print(f"lines in the result: {count}", flush=True)
    return count


def _announced(summaries: Iterable[Summary]) -> Iterator[Summary]:
    for number, summary in enumerate(summaries):
        if number == _READY_AT:
            print(READY, flush=True)
        yield summary


# guarded: worker processes that are spawned import this module again
if __name__ == "__main__":
    raise SystemExit(main())
