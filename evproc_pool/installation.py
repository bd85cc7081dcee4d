"""What to say if the package `evproc` is not the one that belongs to `evproc_pool`.

The distributions `evproc` (0.2.0) and `evproc-pool` both install a package `evproc`. An installer
overwrites the files of one with those of the other, and removes them with either.
"""

from __future__ import annotations

import re
from typing import Final

# A requirement of the distribution `evproc`, and of none with a longer name.
_REQUIREMENT: Final = re.compile(r"evproc\s*($|[<>=!~;(\[@,])", re.IGNORECASE)

# The source of our package has this name, and that of 0.2.0 has not.
_OURS: Final = b"UnmatchedEventException"


def broken_installation(file: str | None) -> ImportError:
    """Say how to mend it; `file` is that of the package `evproc` that was found."""
    users = _users()
    who = f" ({', '.join(users)})" if users else ""
    return ImportError(
        f"the package evproc ({file or 'which has lost its files'}) is not the one of evproc-pool:"
        " the distribution `evproc`, of the same import name, was installed over it or was"
        " uninstalled. Run `pip uninstall evproc`, then"
        " `pip install --force-reinstall --no-deps evproc-pool`. Plug-ins that depend on"
        f" `evproc`{who} must depend on `evproc-pool` instead"
    )


def explain(error: ImportError) -> None:
    """Raise the above instead if an import of `evproc` has failed because it is not ours."""
    import importlib.util

    spec = importlib.util.find_spec("evproc")
    file = None if spec is None else spec.origin
    if file is not None:
        try:
            with open(file, "rb") as source:  # noqa: PTH123 - pathlib is slow to import
                is_ours = _OURS in source.read()
        except OSError:
            return  # in an archive
        if is_ours:
            return
    raise broken_installation(file) from error


def _users() -> list[str]:
    """The installed distributions that require `evproc`."""
    import importlib.metadata  # slow, and only this error needs it

    found = {
        distribution.metadata["Name"]
        for distribution in importlib.metadata.distributions()
        if any(map(_REQUIREMENT.match, distribution.requires or ()))
    }
    return sorted(found)
