"""The package's logger; by itself, since no worker needs it."""

from __future__ import annotations

import logging
from typing import Final

LOG: Final = logging.getLogger("evproc_pool")

# An application that does not configure logging gets the errors, and nothing printed.
LOG.addHandler(logging.NullHandler())
