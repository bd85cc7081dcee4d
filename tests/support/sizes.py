"""How much the tests do: a part by default, all of it with ``EVPROC_BARS=1``."""

from __future__ import annotations

import os
from typing import Final

#: Whether to run the acceptance bars in full size.
BARS: Final = os.environ.get("EVPROC_BARS") == "1"
