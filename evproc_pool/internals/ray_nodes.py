"""What a pool on Ray uses of Ray. Imported with Ray's backend only.

Checked with ray 2.60.0. A free-threaded build breaks nothing here; ray has none.

- ``ray._private.state.state.get_draining_nodes``: the ids of the nodes that are about to leave.
  `ray.nodes` does not say which. Fallback: a node that drains is used until it ends.
"""

from __future__ import annotations

from collections.abc import Collection

import ray


def draining_nodes() -> Collection[str]:
    """The ids of the nodes that drain; empty if Ray does not say."""
    try:
        found: Collection[str] = ray._private.state.state.get_draining_nodes()  # noqa: SLF001
    except Exception:  # also through Ray Client, which has no such table
        return ()
    return found
