"""``python -m benchmarks.applications.unblob``: see `benchmarks.applications.command`."""

from benchmarks.applications.command import main

# guarded: worker processes that are spawned import this module again
if __name__ == "__main__":
    raise SystemExit(main(only="unblob"))
