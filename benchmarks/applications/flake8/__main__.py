"""``python -m benchmarks.applications.flake8``: see `benchmarks.applications.flake8.program`."""

from benchmarks.applications.flake8.program import main

# guarded: worker processes that are spawned import this module again
if __name__ == "__main__":
    raise SystemExit(main())
