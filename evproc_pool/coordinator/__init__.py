"""The shell around `core` in the process that owns the pool.

Threads, feeding, outcomes, futures. The scheduler and the supervisor in `core` decide;
`coordinator` performs the effects and reports the inputs. `codec` turns batches into frames: it has
events pickled by `serialization.packing`, and a single event by `serialization.pickling`
(`encode_one`). `engine` and `driving` let threads share one coordinator. `worker_output` handles
what workers log.

May import: itself, `observe`, `core`, `protocol`, `serialization`, `internals`, `outcome`,
`errors`, `log`, `evproc`; no backend. Begin with `coordinator`, then `engine`.
"""
