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
carries their `messages`. `nodes` and `activity` decide, without I/O. `search` finds nodes and has
agents begin there, `links` is an `AgentLink` over what an engine has for a connection, and `relay`
its other end. `dask` and `dask_plugin` are Dask's part, `ray`, `ray_session` and `ray_actor` that
of Ray, with a socket of `streams`. Another engine needs a `NodeSource` and a `Connection`.

**One connection is one agent.** An agent lives exactly as long as its connection: it ends when
that is closed, and another connection to the same address is another agent, with another number.
So an agent needs no incarnation in its messages, and nothing that a lost agent has sent can arrive
later. Its workers are gone at the moment its connection is.

May import: what `backends` may. Only `dask*` and `ray*` import an engine.
"""
