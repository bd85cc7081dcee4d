"""A scheduler, and a model of what it must do, to check it by after every step.

`World` drives a `Scheduler` by hand and keeps a model of its own: what was
accepted, what is where, and what has to be reported. After every step the two
are compared; `Violation` says what does not hold. The seeded `Simulation` (see
`simulator`) and the Hypothesis state machine both play in a `World`.

::

    Simulation (seed, heap of what happens next)  --+
                                                    +--> World --step--> Scheduler
    state machine (Hypothesis chooses)            --+      ^                |
                                                           +--- effects ----+

What holds after every step:

- an accepted root is reported exactly once: in an ordered run with what a plain
  FIFO over its cascade comes to (`plain_ending`), or with the error of the worker
  that died while it ran an event of it; by the count (`Settled`) where it was one event
  that did not fail, was not tried before, and has no key;
- in an unordered run with what the first event came to that stopped or failed, or
  when each of its events was run, once, and is over;
- a worker has at most `PREFETCH` batches, and the scheduler knows which is first;
- no worker is idle beside something that may be sent, and one at work has the
  next batches, but for the last events of a closed run, and unless it is slow or
  holds `WINDOW_BYTES`, or enough for `AHEAD_SECONDS` (at the end: `LATE_SECONDS`), or
  a worker is being started, or the next event is a long one for which somebody waits;
- no ordered cascade is in two batches, and its events are sent and run in FIFO
  order; each is where its path says;
- of roots with equal keys, in whatever run that shares them, those in flight are
  neighbours in one batch, in order; none is sent, or run again, before one before it is
  over with all of its cascade;
- what is behind the first failure of an `until_error` run, or was dropped, is
  not sent any more and is reported at once;
- the death of a worker ends no cascade but that of the running event, and what is
  given back or taken back costs nobody anything;
- a batch has no event that, by what its plan's events had so far, is too many;
- an event that fails or dies, and has attempts left by the policy, is run again:
  after its pause, or alone in a worker, as long as its cascade is wanted; in an
  ordered run the rest of its cascade, and the roots with its key, wait for it.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Final

from evproc_pool.core.batches import Batch, Part
from evproc_pool.core.batching import SHARES_PER_WORKER
from evproc_pool.core.estimates import (
    BULK_SECONDS,
    LONG_SECONDS,
    MOST_EVENTS,
    REPORT_SECONDS,
    TARGET_SECONDS,
    Estimates,
)
from evproc_pool.core.event_columns import Aligned, Bunch, Planned, Singles, Times, Unplannable
from evproc_pool.core.inputs_and_effects import (
    Accepted,
    Closed,
    Dropped,
    Effect,
    Ended,
    Ending,
    Finished,
    Input,
    Opened,
    Over,
    PauseOver,
    Progress,
    Result,
    Retired,
    Retry,
    Send,
    Settled,
    TakenBack,
    Weighed,
    WorkerGone,
    WorkerReady,
)
from evproc_pool.core.retry_policy import RetryPolicy
from evproc_pool.core.scheduler import Scheduler
from evproc_pool.core.worker_loads import AHEAD_SECONDS, LATE_SECONDS, PREFETCH, WINDOW_BYTES
from tests.support.model import (
    DROP,
    ENDLESS,
    UNWANTED,
    Chain,
    Failed,
    Held,
    Node,
    Root,
    RunModel,
    Told,
    Transient,
    Violation,
    WorkerModel,
    check,
    column,
)

# told of an event that was not run: must not matter
_NOISE: Final = Result(error=Failed("was not sent"))


def as_singles(follow_ups: Mapping[int, Sequence[Planned]]) -> Mapping[int, Sequence[Planned]]:
    """The same as columns, as far as that is possible."""
    if not follow_ups or any(len(each) > 1 for each in follow_ups.values()):
        return {giver: _as_bunch(planned) for giver, planned in follow_ups.items()}
    givers = sorted(follow_ups)
    pairs = [follow_ups[giver][0] for giver in givers]
    return Singles(givers, [event for event, _ in pairs], [plan for _, plan in pairs])


def _as_bunch(planned: Sequence[Planned]) -> Sequence[Planned]:
    plan = planned[0][1]
    if any(each is not plan for _, each in planned):
        return planned
    return Bunch([event for event, _ in planned], plan)


def _value(values: Aligned | None, number: int, count: int) -> Result:
    """What one of some roots was stopped with, if it was."""
    if values is None:
        return Result()
    items, places = values
    is_column = len(items) == count and places and list(places) == sorted({*places})
    check(is_column and set(places) <= {*range(count)}, "{} of {} roots", values, count)
    is_stopped = number in places
    check(is_stopped or items[number] is None, "a value of a root that was not stopped")
    return Result(items[number], stopped=is_stopped)


def _is_silent(held: Held, position: int) -> bool:
    """Whether an event leaves nothing behind."""
    node, root = held.nodes[position], held.roots[position]
    is_returned = held.run.opened.return_events and node is root.node
    is_whole = node.handlers == len(node.plan.indices)
    is_empty = not (node.children or node.emits or is_returned)
    return root.ending_of(node) is None and is_whole and is_empty


class World:
    """A scheduler, and the model of what it must do.

    Attributes:
        seen: How often things happened, by name.
        policy: Which events are run again.
        on_send: Called with a worker that was sent a batch.
        on_retry: Called with the token of an event that waits for its pause.
    """

    def __init__(
        self, scheduler: Scheduler | None = None, policy: RetryPolicy | None = None
    ) -> None:
        self.policy = policy or RetryPolicy()
        self.scheduler = scheduler or Scheduler(self.policy)
        self.workers: dict[int, WorkerModel] = {}
        self.runs: dict[int, RunModel] = {}
        self._keys: dict[tuple[Hashable, ...], deque[Root]] = {}  # of the runs that share theirs
        self.starting = 0
        self.steps = 0
        self.history = 0
        self.most_events = 0
        self.seen: Counter[str] = Counter()
        self.on_send: Callable[[int], object] = lambda worker: None
        self.on_retry: Callable[[int], object] = lambda token: None
        # those that wait for their pause by token, and those of this step without one yet
        self._pauses: dict[int, tuple[Root, Node]] = {}
        self._to_pause: list[tuple[Root, Node, Result]] = []
        self._suspects: list[tuple[Root, Node]] = []  # to be run alone
        self._had_suspects = False
        self._estimates = Estimates()  # what the scheduler is to have learned
        self._effects: list[Effect] = []  # of this step
        self._due: list[Root] = []
        self._unweighed: list[tuple[int, Held]] = []
        self._sent_unordered: list[Root] = []  # in this step
        # unordered, ended in this step by an event that cannot be planned
        self._just_ended: dict[tuple[int, int], Root] = {}

    # --- inputs ---

    def open(
        self,
        run: int,
        *,
        until_error: bool = False,
        unordered: bool = False,
        return_events: bool = False,
        is_bulk: bool = False,
        shares_keys: bool = False,
    ) -> None:
        opened = Opened(
            run, until_error, unordered, return_events, is_bulk, shares_keys=shares_keys
        )
        self.runs[run] = RunModel(opened, self._keys if shares_keys else {})
        self._step(opened)

    def accept(
        self,
        run: int,
        first: int,
        nodes: Sequence[Node],
        keys: Sequence[Hashable] | None = None,
        *,
        more: bool = False,
    ) -> None:
        model = self.runs[run]
        for place, node in enumerate(nodes):
            index = first + place
            key = None if keys is None else (keys[place],)
            model.roots[index] = root = Root(model, index, node, key)
            model.nodes[index] = node
            if key is None:
                model.runnable[index] = root
                continue
            line = model.keys.setdefault(key, deque())
            line.append(root)
            (model.runnable if len(line) == 1 else model.waiting)[index] = root
        model.unbegun += len(nodes)
        plans: list[Any] = [node.plan for node in nodes]
        model.newest = plans[-1]
        self._step(Accepted(run, first, nodes, plans, keys), more=more)

    def close(self, run: int, *, drop: bool = False) -> None:
        model = self.runs.get(run)
        if model is not None:
            model.closed = True
            if drop:
                model.dropped = True
                self._just_ended = {}
                self._set_bound(model, -1)
        self._step(Closed(run, drop))

    def start(self) -> None:
        """Say that one more worker is being started."""
        self.starting += 1
        self.scheduler.starting = self.starting

    def start_over(self) -> None:
        """Say that one of these is ready, or dead."""
        self.starting -= 1
        self.scheduler.starting = self.starting

    def worker_ready(self, worker: int) -> None:
        self.workers[worker] = WorkerModel()
        self._step(WorkerReady(worker))

    def stretch(self, worker: int, end: int | None = None) -> list[tuple[int, Node]]:
        """What the worker runs of its first batch before it comes to `end`, by position."""
        queue = self.workers[worker].held
        if not queue:
            return []
        held = queue[0]
        end = held.size if end is None else end
        if not held.chains:
            return list(zip(range(held.done, end), held.nodes[held.done : end], strict=True))
        found: list[tuple[int, Node]] = []
        skip_to = held.skip_to
        for position in range(held.done, end):
            if position >= skip_to:
                found.append((position, held.nodes[position]))
                chain = held.cut_at(position)
                if chain is not None:
                    skip_to = chain.stop
        return found

    def silent_end(self, worker: int, end: int) -> int:
        """Up to where events before `end` have nothing to tell."""
        held = self.workers[worker].held[0]
        for position in range(held.done, end):
            if position >= held.skip_to and not _is_silent(held, position):
                return position
        return end

    def sparable(self, worker: int, behind: int) -> list[int]:
        """Positions of events that may be over with nothing to tell, though others are not.

        Not of one that has another of its cascade before it: which of them is run
        first matters there, and the model has them in order.
        """
        queue = self.workers[worker].held
        if not queue or queue[0].done < queue[0].skip_to:
            return []
        held = queue[0]
        return [
            position
            for position, _ in self.stretch(worker)
            if position > max(held.done, behind)
            and _is_silent(held, position)
            and held.roots[position] not in held.roots[held.done : position]
        ]

    def progress(
        self, worker: int, end: int, *, gave_back: bool = False, is_silent: bool = False
    ) -> None:
        """Let a worker report that it is at `end` of its first batch.

        Args:
            worker: One that has a batch.
            end: No less than what it reported before.
            gave_back: Whether it leaves the rest.
            is_silent: Whether this is what is told of a dead one: without times.
        """
        model = self.workers[worker]
        held = model.held[0]
        told = Told(model.clock)
        for position in range(held.done, end):
            if position < held.skip_to:
                # not run; that something kept it from being sent is told all the same
                told.ends.append(told.now)
                if position % 7 == 0:
                    told.results[position] = _NOISE
                self._not_run(held.roots[position])
            else:
                self._worked(held, position, told, is_silent=is_silent)
        times: Sequence[float] = Times(model.clock, told.ends)
        if is_silent or worker % 2:
            times = list(times)
        model.clock = told.now
        model.is_slow = model.was_heavy = False
        held.done = end
        if gave_back:
            self.seen["given back"] += held.size - end
            self._hand_back(held, end)
        if gave_back or end == held.size:
            model.held.popleft()
        timings = [] if is_silent else told.all_timings
        self._estimates.learn(timings, times)
        follow_ups: Mapping[int, Sequence[Planned]] = told.follow_ups
        if self.steps % 8:  # mostly as the codec has it
            follow_ups = as_singles(follow_ups)
            self.seen["side by side"] += isinstance(follow_ups, Singles)
            self.seen["bunches"] += any(isinstance(each, Bunch) for each in follow_ups.values())
        self._step(
            Progress(
                worker,
                end,
                times,
                follow_ups,
                told.results,
                column(told.processed),
                timings,
                gave_back,
                column(told.values),
                column(told.emitted),
                told.handlers,
                cut=told.cut,
                has_large=bool(told.follow_ups) and self.steps % 3 == 0,
            )
        )

    def take_back(self, worker: int, kept: int) -> None:
        """Take back what waits in a slow worker; see `TakenBack`."""
        model = self.workers[worker]
        while len(model.held) > 1:
            held = model.held.pop()
            self.seen["taken back"] += held.size
            self._hand_back(held, 0)
        held = model.held[0]
        self.seen["taken back"] += held.size - kept
        self._hand_back(held, kept)
        del held.nodes[kept:], held.roots[kept:]
        model.is_slow = True
        self._estimates.note_stuck(held.nodes[kept - 1].plan)
        self._step(TakenBack(worker, kept))

    def retire(self, worker: int) -> None:
        """A dead worker is about to tell what it did; see `Retired`."""
        self.workers[worker].is_retired = True
        self._step(Retired(worker))

    def gone(
        self,
        worker: int,
        running: int | None,
        error: BaseException | None = None,
        spared: int | None = None,
    ) -> None:
        """Let a worker die; see `WorkerGone`."""
        model = self.workers.pop(worker)
        handler = None if running is None else "h"
        seconds, ran = 0.0, 0
        charged: Root | None = None
        spared_root = None if spared is None else model.held[0].roots[spared]
        suspect: int | None = None
        if running is not None:
            charged = model.held[0].roots[running]
            node = model.held[0].nodes[running]
            seconds, ran = node.seconds, 1 + worker % len(node.plan.indices)
            if charged.due is not None or charged.is_reported:
                pass
            elif (
                charged.crashed[node] + 1 < self.policy.crash_limit
                and charged.index <= charged.run.bound
            ):
                charged.seconds += seconds
                charged.crashed[node] += 1
                suspect = running
                self.seen["suspects"] += 1
            else:
                # its cascade ends here, wherever it was
                charged.seconds += seconds
                self._loses(charged, Result(error=error, handler=handler), node, ran)
        for held in reversed(model.held):
            if held is not model.held[0]:
                self._hand_back(held, held.done)
            else:
                self._hand_back(held, held.done, suspect, spared)
        self.seen["spared"] += spared is not None
        is_bound = (
            spared_root is not None
            and spared_root.run.opened.until_error
            and isinstance(spared_root.due, Ending)
            and spared_root.due.error is not None
        )
        if suspect is not None and charged is not None and spared_root is not None and is_bound:
            # what was spared ends its run: nobody asks any more for one behind it
            node = model.held[0].nodes[suspect]
            if charged.run is spared_root.run and charged.index > spared_root.index:
                self._suspects.remove((charged, node))
                charged.crashed[node] -= 1
                self._loses(charged, Result(error=error, handler=handler), node, ran)
                charged.may_drop = True
        item = WorkerGone(worker, running, error, handler, spared, seconds, ran)
        for effect in self._step(item):
            if isinstance(effect, Ended) and (effect.run, effect.root) not in self._just_ended:
                check(
                    any(
                        (effect.run, effect.root) == (root.run.number, root.index)
                        for root in (charged, spared_root)
                        if root is not None
                    ),
                    "the death of worker {} ended root {}, which it did not run",
                    worker,
                    effect.root,
                )

    def _loses(self, root: Root, result: Result, node: Node, ran: int) -> None:
        """Its event killed a worker, and is not run again."""
        root.run.lost.add(root.index)
        root.events += 1
        root.handlers += ran
        self._ends(root, result, node)
        self.seen["lost"] += 1

    def due(self, token: int) -> None:
        """Say that an event has waited long enough; see `PauseOver`."""
        root, node = self._pauses.pop(token)
        if not root.is_reported and node in root.waits:
            if root.crashed[node]:
                self._suspects.append((root, node))
            else:
                root.waits.remove(node)
                root.queue.appendleft(node)
                root.run.runnable[root.index] = root
        self._step(PauseOver(token))

    def demand(self, run: int) -> int:
        """Ask how many roots a run would take; there must be room for them."""
        model = self.runs[run]
        demand = self.scheduler.demand(run)
        if model.closed or model.bound != ENDLESS:
            check(demand == 0, "there is a demand of {} after the end or a failure", demand)
            return 0
        each = self._estimates.events_per_batch(model.newest)
        batches = (PREFETCH + 1) * max(1, len(self.workers))
        wanted = each * batches
        if model.opened.is_bulk:
            # enough to see the end of the run coming
            large = self._estimates.events_per_batch(model.newest, BULK_SECONDS)
            wanted = max(wanted, large * SHARES_PER_WORKER * len(self.workers))
        is_idle = any(not (each.held or each.is_retired) for each in self.workers.values())
        # for a worker that is idle, or for the one that there may be, others have to be found
        # than those that wait for keys
        is_needed = is_idle or not self.workers
        waiting = 0 if is_needed and not model.runnable else model.unbegun
        most = max(0, wanted - waiting)
        check(0 <= demand <= most, "demand is {}, and {} wait already", demand, model.unbegun)
        if not demand:
            is_at_work = (
                model.runnable
                or any(line[0].can_go_on for line in model.keys.values())
                or any(root.is_at_work for root in model.roots.values())
            )
            check(is_at_work, "no demand, and run {} does nothing", run)
            check(not is_idle or model.keys, "no demand, and a worker is idle")
        return demand

    # --- the model's transitions ---

    def _worked(self, held: Held, position: int, told: Told, *, is_silent: bool) -> None:
        """A worker has run an event."""
        node, root = held.nodes[position], held.roots[position]
        seconds = told.ran(node, 0.0 if is_silent else node.seconds)
        ending = root.ending_of(node)
        is_stopped = ending is not None and ending.error is None
        is_lost = node.is_spoiled and position % 2  # or something else that it left is at fault
        if node.children and not (is_stopped or is_lost):
            told.follow_ups[position] = node.planned
        if node.emits and not is_lost:
            told.emitted[position] = node.emits
        if node.handlers < len(node.plan.indices):
            told.handlers[position] = node.handlers
        chain = held.cut_at(position)
        if chain is not None:
            held.skip_to = chain.stop
            told.cut.append(position)
            if chain.is_key_queue:
                self._cut_key_queue(held, chain, position)
        if ending is not node.ending or isinstance(ending and ending.error, Transient):
            told.results[position] = ending or Result()
            self._failed(held, position, told.results[position], seconds)
            return
        if ending is not None and is_stopped:
            told.values[position] = ending.value
        elif ending is not None:
            told.results[position] = ending
        if held.run.opened.return_events and node is root.node and (ending is None or is_stopped):
            told.processed[position] = ("processed", root.index)
        self._ran(root, node, seconds, has_processed=position in told.processed)

    def _cut_key_queue(self, held: Held, chain: Chain, position: int) -> None:
        """The worker does not run what is behind a root with its key."""
        stop = min(chain.stop, held.size)
        self.seen["key_queues cut"] += position + 1 < stop
        for place in range(stop - 1, position, -1):
            root = held.roots[place]
            held.roots[place] = _nobody(held.run)
            root.flight -= 1
            self._unsent(root, held.nodes[place])

    def _unsent(self, root: Root, node: Node) -> None:
        """A root with a key comes back, as it was, or as one that is to be run alone."""
        if not (root.failed[node] or root.crashed[node]):
            root.is_begun = False
            root.run.unbegun += 1
        root.queue.appendleft(node)
        if root.is_first:
            self._line_up(root)
        else:
            root.run.waiting[root.index] = root

    def _failed(self, held: Held, position: int, result: Result, seconds: float) -> None:
        """An event failed with an error after which it is run again, if it may be."""
        node, root = held.nodes[position], held.roots[position]
        root.flight -= 1
        if root.due is not None or root.is_reported:
            self._release_if_over(root)
            return
        root.seconds += seconds
        if root.failed[node] >= self.policy.max_retries or root.index > root.run.bound:
            if result is not node.ending:
                root.run.lost.add(root.index)
            else:
                root.ran.append(node)
            root.events += 1
            root.handlers += node.handlers
            self._ends(root, result, node)
            return
        root.failed[node] += 1
        root.before_failed[node] = root.handlers
        self.seen["failed"] += 1
        if root.run.unordered:
            root.waits.add(node)
            self._to_pause.append((root, node, result))
            return
        chain = held.chain_at(position)
        if chain is not None and not chain.is_key_queue:
            # what is behind it in the chain is not run
            for place in range(chain.stop - 1, position, -1):
                if place < held.size:
                    root.queue.appendleft(held.nodes[place])
                    root.flight -= 1
                    held.roots[place] = _nobody(root.run)
                    self.seen["chains broken"] += 1
        root.queue.appendleft(node)
        root.pausing[node] = result
        self._line_up(root)

    def _line_up(self, root: Root) -> None:
        """What is first goes on, or waits to be run again."""
        node = root.queue[0]
        if node in root.pausing:
            root.waits.add(root.queue.popleft())
            self._to_pause.append((root, node, root.pausing.pop(node)))
        elif root.crashed[node]:
            root.waits.add(root.queue.popleft())
            self._suspects.append((root, node))
        else:
            root.run.runnable[root.index] = root

    def _ran(self, root: Root, node: Node, seconds: float, *, has_processed: bool) -> None:
        root.flight -= 1
        if root.due is not None or root.is_reported:
            self._release_if_over(root)
            return
        root.events += 1
        root.seconds += seconds
        root.ran.append(node)
        root.handlers += node.handlers
        if node.emits and (node.ending is None or node.ending.error is None):
            root.emitted.append((node, node.emits))
        if has_processed:
            root.processed = ("processed", root.index)
        if node.ending is not None:
            self._ends(root, node.ending, node)
        elif not root.run.unordered:
            if node.children:
                root.queue.extend(node.children)
            if not root.flight:
                self._advance(root)
        else:
            self._spread(root, node)
            self._settle(root)

    def _spread(self, root: Root, node: Node) -> None:
        """Unordered: take in an event's follow-ups."""
        for child in node.children:
            if child.plan.indices:
                root.queue.append(child)
                continue
            root.empties += 1
            if isinstance(child.plan, Unplannable) and root.bad is None:
                root.bad, root.bad_node = child.plan.error, child
                root.before_bad = root.events, root.seconds

    def _not_run(self, root: Root) -> None:
        """An event behind the end of its chain is over."""
        root.flight -= 1
        check(root.due is not None or root.is_reported, "root {} goes on unrun", root.index)

    def _ends(
        self, root: Root, result: Result, culprit: Node | None = None, *, may_drop: bool = False
    ) -> None:
        """It ends; `culprit` is the event that failed, or gave a value."""
        root.run.runnable.pop(root.index, None)
        has_failed = result.error is not None
        root.due = Ending(
            *result,
            root.events,
            root.seconds,
            None if has_failed else root.processed,
            root.attempts,
            root.handlers,
            root.all_emitted(),
            int(has_failed),
            culprit if has_failed else None,
        )
        root.slack = root.empties
        root.may_drop = may_drop
        root.queue.clear()
        root.waits.clear()
        self._due.append(root)

    def _ends_quietly(self, root: Root) -> None:
        """It is over; what is behind the bound may count as dropped, though it was just over."""
        self._ends(root, Result(), may_drop=True)
        root.slack = 0

    def _must_drop(self, root: Root) -> None:
        root.run.runnable.pop(root.index, None)
        root.queue.clear()
        root.due = DROP
        root.may_drop = True
        self._due.append(root)

    def _advance(self, root: Root) -> None:
        """Ordered: pass over what needs no worker; it is over, or ready to go on."""
        queue = root.queue
        if queue and root.index > root.run.bound:
            self._must_drop(root)
            return
        while queue:
            plan = queue[0].plan
            if plan.indices:
                self._line_up(root)
                return
            node = queue.popleft()
            root.events += 1
            if isinstance(plan, Unplannable):
                self._ends(root, Result(error=plan.error), node, may_drop=True)
                return
        self._ends_quietly(root)

    def _settle(self, root: Root) -> None:
        """Unordered: it is over, or ready, or waits for what is in flight."""
        if (root.queue or root.bad or root.waits) and root.index > root.run.bound:
            self._abandon(root)
        if root.is_abandoned:
            root.queue.clear()
            if not root.flight:
                self._must_drop(root)
        elif root.queue:
            root.run.runnable[root.index] = root
        elif root.bad is not None:
            root.events += 1
            self._ends(root, Result(error=root.bad), root.bad_node, may_drop=True)
        elif not root.is_at_work:
            root.events += root.empties
            self._ends_quietly(root)

    def _abandon(self, root: Root) -> None:
        root.run.runnable.pop(root.index, None)
        root.queue.clear()
        root.waits.clear()
        root.is_abandoned = True

    def _hand_back(
        self, held: Held, begin: int, suspect: int | None = None, spared: int | None = None
    ) -> None:
        """The worker will not run what is in a batch from a position on.

        Args:
            held: The batch.
            begin: The first position.
            suspect: The one that it died of, if that is to be run again.
            spared: One that is over.
        """
        for position in range(held.size - 1, begin - 1, -1):
            node, root = held.nodes[position], held.roots[position]
            if position == spared:
                self._ran(root, node, 0.0, has_processed=False)
                continue
            root.flight -= 1
            if root.due is not None or root.is_reported:
                self._release_if_over(root)
                continue
            if node is root.node and root.key is not None and not root.is_abandoned:
                self._unsent(root, node)
                continue
            if node is root.node and not (root.failed[node] or root.crashed[node]):
                root.is_begun = False
                root.run.unbegun += 1
            if not root.is_abandoned:
                if root.run.unordered and root.crashed[node]:
                    root.waits.add(node)
                    self._suspects.append((root, node))
                else:
                    root.queue.appendleft(node)
            if root.run.unordered:
                self._settle(root)
            elif not root.flight:
                self._line_up(root)

    def _release_if_over(self, root: Root) -> None:
        """Let the next root with the key begin.

        In an unordered run other events may still be run when a root was reported.
        """
        if root.key is None or not root.is_reported or (root.flight and root.run.unordered):
            return
        run = root.run
        line = run.keys[root.key]
        is_first = line[0] is root
        line.remove(root)
        if not line:
            del run.keys[root.key]
        elif is_first and line[0].index in line[0].run.waiting:  # else it is in the same batch
            self._line_up(line[0].run.waiting.pop(line[0].index))
        root.key = None

    def _set_bound(self, run: RunModel, bound: float) -> None:
        run.bound = min(run.bound, bound)
        if self._just_ended:
            return  # a batch is being made, and some may be in it; see the end of the step
        for root in list(run.runnable.values()):
            if root.index > bound and root.flight:
                self._abandon(root)
        for root in run.roots.values():
            if root.index > bound and root.waits:
                root.waits.clear()
                if root.flight:
                    self._abandon(root)

    # --- a step, and what must hold after it ---

    def _step(self, item: Input, *, more: bool = False) -> list[Effect]:
        self.steps += 1
        self._just_ended.clear()
        self._sent_unordered.clear()
        # what was to be run alone may be given up in the middle of the step
        self._had_suspects = bool(self._suspects)
        self._effects = effects = self.scheduler.step(item, more=more)
        if more:
            check(not any(isinstance(each, Send) for each in effects), "sent before the next input")
        for effect in effects:
            self._take(effect)
        self._weigh()
        if self._just_ended:
            self._just_ended_over()
        for root in self._due:
            if not root.is_reported:
                is_behind = root.may_drop and root.flight and root.index > root.run.bound
                check(is_behind, "root {} has ended and is not reported", root.index)
                root.due = None
                self._abandon(root)
        self._due.clear()
        for root, node, _ in self._to_pause:
            check(node not in root.waits, "root {}: no pause for what failed", root.index)
        self._to_pause.clear()
        self._suspects = [(root, node) for root, node in self._suspects if node in root.waits]
        for root in self._sent_unordered:
            check(
                root.queue or not root.bad or root.is_reported or root.is_abandoned,
                "root {} is not ended by what cannot be planned",
                root.index,
            )
        if not more:
            self._check_workers()
            self._check_room()
        return effects

    def _just_ended_over(self) -> None:
        """What was put into a batch when an event behind it failed to be planned is sent."""
        ended, self._just_ended = self._just_ended, {}
        for root in ended.values():
            root.queue.clear()
            self._set_bound(root.run, root.run.bound)
        self._just_ended = ended

    def _weigh(self) -> None:
        """Say how many bytes the batches have that were sent in this step."""
        for worker, _ in self._unweighed:
            # room that opens by the weighing is used from the next step on
            model = self.workers[worker]
            model.was_heavy = model.size_bytes >= WINDOW_BYTES
        for worker, held in self._unweighed:
            nodes = held.nodes
            held.size_bytes = round(sum([node.size_bytes for node in nodes]))
            self.scheduler.step(Weighed(worker, held.batch, held.size_bytes))
            self._estimates.learn_bytes(nodes[0].plan, held.size_bytes / len(nodes))
        self._unweighed.clear()

    def _take(self, effect: Effect) -> None:
        match effect:
            case Retry():
                self._pausing(effect)
                note = (7, effect.run, effect.root, effect.failures)
            case Send():
                self._sent(effect.worker, effect.batch)
                note = (1, effect.worker, effect.batch.size, len(effect.batch.parts))
            case Settled():
                self._settled(effect)
                note = (2, effect.run, effect.first, len(effect.times))
            case Over():
                self._over(effect)
                note = (3, effect.run, effect.roots[0], len(effect.roots))
            case Ended():
                self._ended(effect.run, effect.root, effect.ending)
                note = (4, effect.run, effect.root, effect.ending.events)
            case Dropped():
                check(effect.roots > 0, "a report on no roots")
                for index in range(effect.first, effect.first + effect.roots):
                    self._dropped(effect.run, index)
                note = (5, effect.run, effect.first, effect.roots)
            case Finished():
                self._finished(effect.run)
                note = (6, effect.run, 0, 0)
            case _:
                raise Violation(f"nobody asked for {effect}")
        self.history = hash((self.history, note))

    def _pausing(self, effect: Retry) -> None:
        """An event waits until it is run again."""
        check(effect.token not in self._pauses, "two pauses with token {}", effect.token)
        for place, (root, node, _) in enumerate(self._to_pause):
            if (root.run.number, root.index) == (effect.run, effect.root):
                check(effect.failures == root.failed[node], "{} failures", effect.failures)
                self._pauses[effect.token] = root, node
                del self._to_pause[place]
                self.on_retry(effect.token)
                return
        raise Violation(f"a pause for root {effect.root}, of which nothing has failed")

    def _report(self, number: int, index: int) -> Root:
        run = self.runs.get(number)
        if run is None:
            raise Violation(f"a report on run {number}, which is not open")
        root = run.roots.pop(index, None)
        if root is None:
            raise Violation(f"root {index} of run {number} is reported twice, or never came in")
        root.is_reported = True
        root.waits.clear()
        return root

    def _settled(self, effect: Settled) -> None:
        times, handlers = effect.times, effect.handlers
        check(len(times), "a report on no roots")
        for number, seconds in enumerate(times):
            root = self._report(effect.run, effect.first + number)
            check(root.key is None, "root {} has a key, and is settled", root.index)
            ending = Ending(
                *_value(effect.values, number, len(times)),
                seconds=seconds,
                processed=None if effect.processed is None else effect.processed[number],
                handlers=handlers if isinstance(handlers, int) else handlers[number],
                emitted=None if effect.emitted is None else effect.emitted[number],
            )
            self._matches(root, ending)
            self.seen["values"] += ending.stopped
            self._is_over(root, ending)
        for each in (handlers, effect.processed, effect.emitted):
            is_one_each = each is None or isinstance(each, int) or len(each) == len(times)
            check(is_one_each, "{} for {} roots", each, len(times))

    def _over(self, effect: Over) -> None:
        check(effect.roots, "a report on no cascades")
        columns = zip(effect.roots, effect.events, effect.seconds, effect.handlers, strict=True)
        for number, (index, events, seconds, handlers) in enumerate(columns):
            root = self._report(effect.run, index)
            result = _value(effect.values, number, len(effect.roots))
            self._matches(root, Ending(*result, events, seconds, handlers=handlers))
            self.seen["values of cascades"] += result.stopped
            self._is_over(root, root.due)

    def _matches(self, root: Root, ending: Ending) -> None:
        due = root.due
        if due is None:
            raise Violation(f"root {root.index} is reported and has not ended")
        more = ending.events - due.events
        is_same = 0 <= more <= root.slack and ending._replace(events=due.events) == due
        check(is_same, "root {} ended with {}, not with {}", root.index, ending, due)

    def _ended(self, number: int, index: int, ending: Ending) -> None:
        run = self.runs.get(number)
        root = self._report(number, index)
        if root.bad is not None and ending.error is root.bad:
            self._ended_by_plan(root, ending)
        root.due = self._given_up(root, ending) or root.due
        self._matches(root, ending)
        is_unusual = ending.error is not None or ending.attempts > 1
        is_reporting = ending.stopped or ending.processed is not None or ending.emitted is not None
        is_counted = ending.events == 1 and root.key is None
        check(
            is_unusual or (is_reporting and not is_counted),
            "root {} ended by itself with {}",
            index,
            ending,
        )
        self._is_over(root, ending)
        if ending.error is not None and run is not None:
            run.failures[index] = ending.error
            if run.opened.until_error:
                self._set_bound(run, index)

    def _given_up(self, root: Root, ending: Ending) -> Ending | None:
        """It failed when it was just found to be unwanted: then it is not run again."""
        found = [(node, result.error) for each, node, result in self._to_pause if each is root]
        failed = [node for node, error in found if error is ending.error]
        if root.index <= root.run.bound or ending.error is None or not failed:
            return None
        root.run.lost.add(root.index)
        root.run.runnable.pop(root.index, None)
        root.queue.clear()
        # what was reported behind it counts, unless it was given up as soon as it was reported
        if ending.handlers == root.before_failed[failed[0]] + failed[0].handlers:
            root.handlers = root.before_failed[failed[0]]
        root.handlers += failed[0].handlers
        return ending._replace(
            value=None,
            stopped=False,
            handler="h",
            handlers=root.handlers,
            failed=1,
            failed_event=failed[0],
        )

    def _is_still_sent(self, root: Root) -> bool:
        """Whether it was ended by a plan when some of it had been put into a batch."""
        return (root.run.number, root.index) in self._just_ended and any(
            cascade.index == root.index
            for effect in self._effects
            if isinstance(effect, Send) and effect.batch.run_id == root.run.number
            for part in effect.batch.parts
            for cascade in part.cascades
        )

    def _ended_by_plan(self, root: Root, ending: Ending) -> None:
        """Unordered: by what cannot be planned; its turn depends on what is sent before."""
        index = root.index
        check(not root.is_abandoned, "root {} was dropped in part, and has ended", index)
        if root.due is None:
            self._just_ended[root.run.number, index] = root
            root.events += 1
        events, seconds = root.before_bad
        check(events < ending.events <= root.events + root.empties, "root {}: {}", index, ending)
        check(seconds <= ending.seconds <= root.seconds, "root {}: {}", index, ending)
        root.run.runnable.pop(index, None)
        root.due = ending._replace(
            value=None, stopped=False, handler=None, failed=1, failed_event=root.bad_node
        )

    def _is_over(self, root: Root, ending: Ending | None) -> None:
        """Root was reported, and not as dropped."""
        if ending is None:
            raise Violation(f"root {root.index} is reported and has not ended")
        run = root.run
        run.ended.add(root.index)
        if root.key is not None and not self._is_still_sent(root):
            self._release_if_over(root)
        if run.unordered:
            if not (ending.stopped or ending.error is not None):
                nodes, events = root.node.whole
                check(root.events == events, "root {}: {} events", root.index, root.events)
                check(len(root.ran) == len(nodes), "root {}: not each event once", root.index)
                check(nodes.issuperset(root.ran), "root {}: not each event once", root.index)
                handlers = sum([node.handlers for node in nodes])
                check(ending.handlers == handlers, "root {}: wrong handlers", root.index)
            return
        plain = root.node.plain
        if root.index in run.lost:
            check(root.ran == plain.order[: len(root.ran)], "root {}: no FIFO", root.index)
            return
        check(root.ran == plain.order, "root {}: not in FIFO order", root.index)
        same = ending._replace(seconds=0.0, processed=None, attempts=1) == plain.ending
        check(same, "root {}: {}, a FIFO: {}", root.index, ending, plain.ending)

    def _dropped(self, number: int, index: int) -> None:
        root = self._report(number, index)
        run = root.run
        check(index > run.bound, "root {} is dropped, and the bound is {}", index, run.bound)
        check(not root.flight, "root {} is dropped while it is in flight", index)
        check(root.due is None or root.may_drop, "root {} is dropped though it has ended", index)
        run.runnable.pop(index, None)
        run.waiting.pop(index, None)
        run.unbegun -= not root.is_begun
        self.seen["dropped"] += 1
        if root.key is not None:
            self._release_if_over(root)

    def _finished(self, number: int) -> None:
        check(number in self.runs, "run {} finishes twice", number)
        run = self.runs.pop(number)
        check(run.closed, "run {} finishes and is not closed", number)
        check(not run.roots, "run {} finishes with {} roots not reported", number, len(run.roots))
        check(not run.unbegun, "the model's count of roots is wrong")
        self.seen["finished"] += 1
        if run.opened.until_error and not run.dropped:
            self._check_first_error(run)

    def _check_first_error(self, run: RunModel) -> None:
        """The first error by index is the one that a loop over `Processor` ends with."""
        first = min(run.failures, default=None)
        if not run.unordered:
            serial = next(
                (
                    index
                    for index, node in run.nodes.items()  # they come in order
                    if index in run.lost or node.plain.ending.error is not None
                ),
                None,
            )
            check(first == serial, "the first error is of root {}, serially {}", first, serial)
        if first is not None:
            before = [index for index in run.nodes if index < first]
            check(run.ended.issuperset(before), "not all before root {} were finished", first)

    # --- batches ---

    def _sent(self, worker: int, batch: Batch) -> None:
        check(worker in self.workers, "a batch is sent to worker {}, which is not ready", worker)
        check(not self.workers[worker].is_retired, "a batch is sent to worker {}, retired", worker)
        check(batch.run_id in self.runs, "a batch of run {}, which is not open", batch.run_id)
        run = self.runs[batch.run_id]
        model = self.workers[worker]
        if batch.is_alone:
            check(not model.held, "a suspect is sent to worker {}, which has work", worker)
            check(batch.size == 1, "a suspect is sent with {} others", batch.size - 1)
        if model.held:
            self._check_prefetch(worker, model, run)
            self._check_long(worker, batch)
        check(0 < batch.size <= MOST_EVENTS, "a batch of {} events", batch.size)
        check(batch.done == 0, "a new batch is done in part")
        self.most_events = max(self.most_events, batch.size)
        held = Held(batch, run)
        position = 0
        for part in batch.parts:
            check(part.start == position, "a part starts at {}, not at {}", part.start, position)
            self._takes_part(held, part)
            position = part.stop
        check(position == batch.size, "a batch of {} says that it has {}", position, batch.size)
        seconds = sum([self._seconds_of(run, node.plan) for node in held.nodes])
        is_near = math.isclose(batch.seconds, seconds, rel_tol=1e-6)
        check(is_near, "a batch of {} s says that it takes {}", seconds, batch.seconds)
        self._check_seconds(held)
        self._check_paths(held)
        self._end_of_chains(run, held)
        self._check_bytes(held)
        if run.opened.return_events:
            roots = [at for at, node in enumerate(held.nodes) if node is held.roots[at].node]
            check(batch.root_positions == roots, "{} are roots", batch.root_positions)
        held.size_bytes = round(batch.size * self._estimates.bytes_of(batch.parts[0].plans[0]))
        check(batch.size_bytes == held.size_bytes, "a batch has {} bytes", batch.size_bytes)
        model.held.append(held)
        self._unweighed.append((worker, held))
        self.on_send(worker)

    def _takes_part(self, held: Held, part: Part) -> None:
        run = held.run
        count = part.stop - part.start
        check(len(part.events) == len(part.plans) == count > 0, "a part of wrong size")
        ends = run.opened.chain_ends(has_retries=self.policy.max_retries > 0)
        held.chains += [Chain(*each, part.is_keyed) for each in part.chains(*ends)]
        indices = self._roots_of(run, part)
        check(len(indices) == count, "a part with roots for some")
        before: Root | None = None
        for index, node, plan in zip(indices, part.events, part.plans, strict=True):
            if held.batch.is_alone:
                before = self._takes_off_alone(run, index, node, plan)
            elif part.is_keyed:
                before = self._takes_off_keyed(run, index, node, plan, before)
            else:
                before = self._takes_off(run, index, node, plan, part.is_chain)
            held.roots.append(before)
        held.nodes += part.events

    def _roots_of(self, run: RunModel, part: Part) -> Sequence[int]:
        """The index of the root of each event."""
        if part.first is not None:
            check(not part.is_chain, "roots are no chain")
            return range(part.first, part.first + part.stop - part.start)
        if part.is_keyed:
            self._check_key_queues(run, part)
            return part.roots
        indices: Sequence[int] = [cascade.index for cascade in part.cascades]
        if part.strands is not None:
            check(not indices, "a part of cascades and strands")
            indices = part.strands.cascades.roots
            is_keyed = any(run.roots[index].key is not None for index in indices)
            check(not is_keyed, "strands with keys")
            self.seen["strands"] += len(indices)
        if part.is_chain:
            check(len(set(indices)) == 1, "a chain of several cascades")
            check(not run.unordered, "a chain in an unordered run")
        return indices

    def _check_key_queues(self, run: RunModel, part: Part) -> None:
        """Each key_queue has its positions, and those are all."""
        check(not (part.is_chain or part.cascades), "a part of cascades and roots with keys")
        stop = part.start
        for key_queue, start, end in part.key_queues:
            check(start == stop < end, "key_queue {} begins at {}", key_queue.key, start)
            keys = {
                run.roots[index].key for index in part.roots[start - part.start : end - part.start]
            }
            check(
                keys == {(key_queue.key,)},
                "roots with keys {} in key_queue {}",
                keys,
                key_queue.key,
            )
            self.seen["key_queues"] += end - start > 1
            stop = end
        check(stop == part.stop, "roots of no key_queue")

    def _check_paths(self, held: Held) -> None:
        for position in range(0, held.size, 1 + held.size // 50):
            node, root = held.nodes[position], held.roots[position]
            path = held.batch.place_at(position).path
            check(path == (root.index, *node.path), "root {}: a path of {}", root.index, path)

    def _takes_off_keyed(
        self, run: RunModel, index: int, node: Node, plan: Any, before: Root | None
    ) -> Root:
        """A root with a key: the first of its key, or behind the one that is before it there."""
        root = run.roots.get(index)
        if root is None or root.key is None:
            raise Violation(f"root {index} is sent for its key, and has none, or is over")
        line = root.line
        place = line.index(root)
        if place:
            check(
                run.waiting.pop(index, None) and line[place - 1] is before,
                "root {} is sent, and one before it with its key is elsewhere",
                index,
            )
            self.seen["several of a key"] += 1
        else:
            check(run.runnable.pop(index, None), "root {} is sent twice", index)
        if index > run.bound and not self._just_ended:
            raise Violation(f"root {index} is sent, and the bound is {run.bound}")
        check(plan is node.plan is not UNWANTED, "root {} is sent with the wrong plan", index)
        check(node is root.node and root.queue[0] is node, "root {} is sent twice", index)
        root.queue.popleft()
        root.flight += 1
        root.is_begun = True
        run.unbegun -= 1
        return root

    def _takes_off_alone(self, run: RunModel, index: int, node: Node, plan: Any) -> Root:
        root = run.roots.get(index)
        if root is None or (root, node) not in self._suspects or node not in root.waits:
            raise Violation(f"root {index} is sent alone, and is not suspected")
        check(root.is_first, "root {} is sent before one with its key", index)
        check(plan.indices == node.plan.indices, "root {} is sent with the wrong plan", index)
        root.waits.remove(node)
        self._suspects.remove((root, node))
        root.flight += 1
        self.seen["alone"] += 1
        return root

    def _takes_off(self, run: RunModel, index: int, node: Node, plan: Any, is_chain: bool) -> Root:
        root = run.runnable.get(index) or self._just_ended.get((run.number, index))
        if root is None:
            raise Violation(f"root {index} is sent, and is in flight, waits, or is over")
        if index > run.bound and not self._just_ended:
            raise Violation(f"root {index} is sent, and the bound is {run.bound}")
        has_failed = root.failed[node] > 0
        same = plan.indices == node.plan.indices if has_failed else plan is node.plan
        if not (same and plan.indices):
            raise Violation(f"root {index} is sent with the wrong plan")
        check(not root.crashed[node], "root {} is suspected, and is not sent alone", index)
        check(root.is_first, "root {} is sent before one with its key", index)
        queue = root.queue
        if not queue or queue[0] is not node:
            check(run.unordered and node in queue, "root {} is sent out of order, or twice", index)
            queue.remove(node)
        else:
            queue.popleft()
        root.flight += 1
        if node is root.node and not root.is_begun:
            root.is_begun = True
            run.unbegun -= 1
        if run.unordered:
            self._sent_unordered.append(root)
            if not queue:
                run.runnable.pop(index, None)
            if root.flight > 1:
                self.seen["unordered at once"] += 1
        elif not is_chain:
            del run.runnable[index]
        return root

    def _end_of_chains(self, run: RunModel, held: Held) -> None:
        for chain in held.chains:
            if not chain.is_key_queue:
                del run.runnable[held.roots[chain.start].index]
                self.seen["chains"] += chain.stop - chain.start > 1

    def _check_prefetch(self, worker: int, model: WorkerModel, run: RunModel) -> None:
        check(len(model.held) < PREFETCH, "worker {} has {} batches", worker, len(model.held))
        check(not model.is_slow, "worker {} is slow, and is sent a second batch", worker)
        check(not model.is_alone, "worker {} is to run its event alone", worker)
        check(
            model.size_bytes < WINDOW_BYTES,
            "worker {} holds {} bytes, and is sent one more batch",
            worker,
            model.size_bytes,
        )
        check(
            len(model.held) == 1 or model.seconds_ahead < AHEAD_SECONDS + 1e-9,
            "worker {} has {} s to do behind its batch, and is sent one more",
            worker,
            model.seconds_ahead,
        )
        staying = [each for each, other in self.workers.items() if not other.is_retired]
        idle = next((each for each in staying if not self.workers[each].held), None)
        check(idle is None, "worker {} has work and is sent more, worker {} is idle", worker, idle)
        check(not self.starting, "worker {} has work and is sent more, one is started", worker)
        others = [each for each in self.runs.values() if each is not run and each.has_more]
        if run.closed and not others and not self._just_ended:
            check(
                self._most_ready(run) > len(self.workers),
                "worker {} has work already, and is sent the last events of run {}",
                worker,
                run.number,
            )

    def _check_long(self, worker: int, batch: Batch) -> None:
        """Behind a batch there is no event that is a long one and for which somebody waits."""
        run = self.runs[batch.run_id]
        is_long = self._seconds_of(run, batch.parts[0].plans[0]) >= LONG_SECONDS
        others = [each for each in self.runs.values() if each is not run and each.has_more]
        check(
            run.opened.is_bulk or others or not is_long,
            "worker {} has work, and a long event",
            worker,
        )

    def _check_seconds(self, held: Held) -> None:
        others = [each for each in self.runs.values() if each is not held.run and each.has_more]
        # what ended while the batch was made may have let another run go on
        is_bulk = held.run.opened.is_bulk and (not others or bool(self._just_ended))
        limit = BULK_SECONDS if is_bulk else TARGET_SECONDS
        self.seen["bulk"] += held.batch.seconds > 2 * TARGET_SECONDS and held.size > 1
        longest = max(self._seconds_of(held.run, node.plan) for node in held.nodes)
        # to the nearest whole event, in each of its parts
        check(
            held.size == 1 or held.batch.seconds <= limit + longest,
            "a batch of {} s, where {} s are meant",
            held.batch.seconds,
            limit,
        )

    def _seconds_of(self, run: RunModel, plan: Any) -> float:
        """What an event is expected to take: a long time, for who waits for it, if it may be."""
        seconds = self._estimates.seconds_of(plan)
        most = self._estimates.most_seconds_of(plan)
        self.seen["may be long"] += seconds < most
        return seconds if run.opened.is_bulk else most

    def _check_bytes(self, held: Held) -> None:
        limits = {plan: self._estimates.most_events(plan) for plan in {n.plan for n in held.nodes}}
        if min(limits.values()) >= MOST_EVENTS:
            return
        self.seen["limited by bytes"] += 1
        for position, node in enumerate(held.nodes):
            check(
                position < max(1, limits[node.plan]),
                "event {} of a batch is of a plan with {} at most",
                position,
                limits[node.plan],
            )

    def _check_workers(self) -> None:
        scheduler = self.scheduler
        check(scheduler.workers == len(self.workers), "the scheduler counts workers wrongly")
        is_any_idle = False
        overloaded = []
        for worker, model in self.workers.items():
            batch = scheduler.held_by(worker)
            if not model.held:
                is_any_idle |= not model.is_retired
                check(batch is None, "worker {} holds a batch", worker)
                continue
            held = model.held[0]
            if batch is not held.batch or batch.done != held.done or batch.size != held.size:
                raise Violation(f"worker {worker} is somewhere else than is known")
            if len(model.held) > 1 or held.size - held.done > 1:
                overloaded.append(worker)
        nothing_waits = not any(run.runnable for run in self.runs.values())
        expected = overloaded if is_any_idle and nothing_waits else []
        check(scheduler.overloaded == expected, "wrong overloaded")
        reportable = [
            worker
            for worker, model in self.workers.items()
            if model.held
            and model.held[0].size - model.held[0].done > 1
            and (is_any_idle or not model.held[0].run.opened.is_bulk)
        ]
        check(scheduler.reportable == reportable, "wrong reportable")
        self._check_slack(nothing_waits=nothing_waits)

    def _check_slack(self, *, nothing_waits: bool) -> None:
        staying = {each: model for each, model in self.workers.items() if not model.is_retired}
        loads = {worker: len(model.held) for worker, model in staying.items()}
        least = min(loads.values(), default=0)
        self._check_lopsided(loads, nothing_waits=nothing_waits)
        slack = self.scheduler.slack
        ahead = min([model.seconds_ahead for model in staying.values()], default=0.0)
        check(0.0 <= slack <= ahead + 1e-9, "slack is {}, and {} are ahead", slack, ahead)
        is_only = len(self.runs) == 1
        waits = all(
            run.runnable or not run.is_open or (run.closed and is_only)
            for run in self.runs.values()
        )
        waits = waits and not self._suspects
        check(bool(slack) == (waits and least > 1), "slack is {}", slack)
        if any(run.is_open and not run.opened.is_bulk for run in self.runs.values()):
            check(slack <= REPORT_SECONDS, "slack is {}, and somebody waits for roots", slack)

    def _check_lopsided(self, loads: dict[int, int], *, nothing_waits: bool) -> None:
        """Who is asked to give back: only where another would get it."""
        if self._suspects or self._had_suspects:
            return  # none gets more until one is idle, or just now did
        if any(model.was_heavy for model in self.workers.values()):
            return  # nor is it told which of these have room
        least = min(self._open_loads()[1], default=PREFETCH)
        lopsided = [worker for worker, load in loads.items() if load > least + 1]
        expected = lopsided if nothing_waits and least <= 1 and len(loads) > 1 else []
        check(self.scheduler.lopsided == expected, "wrong lopsided")

    def _check_room(self) -> None:
        least, open_loads = self._open_loads()
        is_idle = not self._suspects and all(not model.held for model in self.workers.values())
        is_idle = is_idle and not any(model.is_retired for model in self.workers.values())
        if self._suspects:
            check(least > 0, "a worker is idle, and {} wait to be run alone", len(self._suspects))
        if self._suspects or self._had_suspects or self.starting:
            open_loads = []  # none gets more until one is idle, or ready
        open_least = min(open_loads, default=PREFETCH)
        for run in self.runs.values():
            if run.bound != ENDLESS:
                check(
                    max(run.runnable, default=-1) <= run.bound
                    and max(run.waiting, default=-1) <= run.bound,
                    "run {}: what is not wanted waits",
                    run.number,
                )
            if not run.runnable:
                continue
            is_idle = False
            check(least > 0, "a worker is idle, and {} of {} wait", len(run.runnable), run.number)
            if run.closed and self._least_ready(run) <= len(self.workers):
                continue  # the last events wait for an idle worker
            if self._is_long_next(run):
                continue
            if self._is_alone(run) and run.closed:
                self._check_late_room(run, open_loads)
                continue
            check(
                open_least >= PREFETCH,
                "a worker has {} batches, and {} of run {} wait",
                open_least,
                len(run.runnable),
                run.number,
            )
        check(self.scheduler.is_idle == is_idle, "is_idle is {}", not is_idle)

    def _is_long_next(self, run: RunModel) -> bool:
        """Whether the event that is sent next is long; which one that is, is the scheduler's."""
        state = self.scheduler._state.runs[run.number]
        if run.opened.is_bulk or not state.has_ready:
            return False
        is_long = self._seconds_of(run, state.next_plan) >= LONG_SECONDS
        self.seen["long"] += is_long
        return is_long

    def _is_alone(self, run: RunModel) -> bool:
        """Whether no other run has something ready."""
        return not any(other.runnable for other in self.runs.values() if other is not run)

    def _check_late_room(self, run: RunModel, open_loads: list[int]) -> None:
        """At the end of a run each worker has one batch behind that it is at, and a bit more."""
        staying = [model for model in self.workers.values() if not model.is_retired]
        for model, load in zip(staying, open_loads, strict=bool(open_loads)):
            if load >= PREFETCH:
                continue
            self.seen["late"] += 1
            check(load > 1, "a worker has {} batches, and run {} ends", load, run.number)
            check(
                model.seconds_ahead > LATE_SECONDS - 1e-9,
                "a worker has {} s to do behind its batch, and run {} ends",
                model.seconds_ahead,
                run.number,
            )

    def _open_loads(self) -> tuple[int, list[int]]:
        """How many batches the least busy worker has, and each; as full where it gets no more."""
        least, loads = PREFETCH, []
        for model in self.workers.values():
            load = len(model.held)
            if model.is_retired:
                continue
            least = min(least, load)
            if not load:
                pass
            elif model.is_alone:
                load = PREFETCH
            elif model.is_slow or model.was_heavy or model.size_bytes >= WINDOW_BYTES:
                load = PREFETCH
                self.seen["no more"] += 1
            elif load > 1 and model.seconds_ahead > AHEAD_SECONDS - 1e-9:
                load = PREFETCH
                self.seen["enough ahead"] += 1
            loads.append(load)
        return least, loads

    def _least_ready(self, run: RunModel) -> int:
        """How many events of it are left to be sent, at least: or enough of them."""
        count = len(run.runnable) + len(run.waiting)
        if not run.unordered or count > len(self.workers):
            return count
        return sum(len(root.queue) for root in run.runnable.values()) + len(run.waiting)

    def _most_ready(self, run: RunModel) -> int:
        """The same, with what needs no worker and stands between, or is another run's."""
        count = self._least_ready(run)
        if run.opened.shares_keys:
            lines = [root.line for root in run.runnable.values() if root.key is not None]
            count += sum(each.run is not run for line in lines for each in line)
        if not run.unordered or count > len(self.workers):
            return count
        return count + sum(root.empties for root in run.runnable.values())

    def check_over(self) -> None:
        """Nothing is left: every run finished, every worker idle."""
        check(not self.runs, "runs {} did not finish", list(self.runs))
        check(self.scheduler.is_idle, "the scheduler is not idle")


def _nobody(run: RunModel) -> Root:
    """Stands for the root of an event that is not run in its batch any more."""
    nobody = Root(run, -1, Node(UNWANTED), None)
    nobody.is_reported = True
    return nobody
