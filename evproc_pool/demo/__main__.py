"""``python -m evproc_pool.demo``."""

import sys
from collections.abc import Sequence
from typing import Final

INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo.

    Args:
        arguments: What follows the program's name; by default that of this process.

    Returns:
        The exit status; `cli` has the others.
    """
    try:
        # here, so that a Ctrl-C while it is imported is no traceback either
        from evproc_pool.demo.cli import run

        return run(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
