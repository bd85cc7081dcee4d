"""``python -m benchmarks``: see `benchmarks.cli`."""

from benchmarks.cli import main

# guarded: worker processes that are spawned import this module again
if __name__ == "__main__":
    raise SystemExit(main())
