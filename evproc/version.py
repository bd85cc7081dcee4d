"""The version of the installed distribution, which has both packages."""

from __future__ import annotations

#: What a copy of the sources says that was never installed.
UNKNOWN = "0+unknown"


def installed_version() -> str:
    """The version in the metadata of ``evproc-pool``; `UNKNOWN` if there is none."""
    # here: it takes longer than all of evproc, and few programs ask
    import importlib.metadata

    try:
        return importlib.metadata.version("evproc-pool")
    except importlib.metadata.PackageNotFoundError:
        return UNKNOWN
