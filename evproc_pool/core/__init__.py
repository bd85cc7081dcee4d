"""Decisions, as plain functions and state machines.

`scheduler` decides about events: which go to which worker, and when. `supervisor` decides about
workers: when they are started, replaced, stopped and killed. `event_limits` decides which events
run too long. `crash_attribution` decides which event is charged for the death of its worker.
`retry_policy` decides whether a failed event is run again; `retries` has those that wait for it.

Nothing here has a clock, a thread, a process or I/O: time is an argument, inputs go in and effects
come out. So a seed can simulate it.

May import: itself, `errors`, `evproc`. Begin with `supervisor` and `scheduler`;
`inputs_and_effects` and `supervisor_inputs` list what goes in and comes out.
"""
