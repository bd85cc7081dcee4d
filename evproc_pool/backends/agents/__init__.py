"""Agents: local backends on other nodes, behind the interface of one backend.

::

    coordinator                        node
    -----------                        ----
    Coordinator                        agent process (`process`)
      RemoteBackend  --- commands -->    Agent --> LocalBackend --> worker processes
        `nodes`      <-- events ----       `activity`
            |
        AgentLink: one connection to one agent

`remote_backend` is the coordinator's side, `agent` the node's; neither knows the engine that
carries their `messages`. `nodes` and `activity` decide, without I/O. `dask` and `dask_plugin` are
the connection by Dask. Another engine needs what `dask` has: something that tells an `Inbox` of
agents that join and are lost, and an `AgentLink` for each.

**One connection is one agent.** An agent lives exactly as long as its connection: it ends when
that is closed, and another connection to the same address is another agent, with another number.
So an agent needs no incarnation in its messages, and nothing that a lost agent has sent can arrive
later. Its workers are gone at the moment its connection is.

May import: what `backends` may. Nothing here imports an engine, except `dask` and `dask_plugin`.
"""
