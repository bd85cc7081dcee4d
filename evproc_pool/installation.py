"""What to say if the package `evproc` is not the one that belongs to `evproc_pool`.

The distributions `evproc` (0.2.0) and `evproc-pool` both install a package `evproc`. An installer
overwrites the files of one with those of the other, and removes them with either.
"""

from __future__ import annotations

import re
from typing import Final

# A requirement of the distribution `evproc`, and of none with a longer name.
_REQUIREMENT: Final = re.compile(r"evproc\s*($|[<>=!~;(\[@,])", re.IGNORECASE)


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


def _users() -> list[str]:
    """The installed distributions that require `evproc`."""
    import importlib.metadata  # slow, and only this error needs it

    found = {
        distribution.metadata["Name"]
        for distribution in importlib.metadata.distributions()
        if any(map(_REQUIREMENT.match, distribution.requires or ()))
    }
    return sorted(found)
