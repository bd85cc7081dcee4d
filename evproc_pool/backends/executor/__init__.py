"""Workers that are calls of a `concurrent.futures.Executor`.

`calls` is the backend, `lanes` what one of its workers has on its way, `one_at_a_time` how a lost
batch is run again, `executors` has the executor. `worker.plain_calls` is the other side.
"""
