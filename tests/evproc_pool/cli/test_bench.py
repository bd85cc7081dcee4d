"""`evproc bench`: the verdict by made figures, and the command on real handlers."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evproc import Processor
from evproc_pool.cli.bench_measure import (
    Sample,
    longest_share,
    most_seconds,
    numbers_of_workers,
    others_share,
    repeated,
    share_of_usable,
    take_sample,
    time_handlers,
)
from evproc_pool.cli.bench_verdict import (
    HandlerTime,
    Measured,
    PoolTime,
    Verdict,
    decide,
    duration,
)
from evproc_pool.cli.json_event import default_decode
from tests.evproc_pool.cli.conftest import (
    GROUP,
    SECONDS,
    Done,
    Terminal,
    in_terminal,
    piped,
    wait_for_file,
)

Run = Callable[..., Done]
DEMO = "evproc_pool.demo.handlers"


def measured(**changes: Any) -> Measured:
    """A sample of 1,000 events of 1 ms each, on four CPUs that nobody else uses."""
    figures: dict[str, Any] = {
        "events": 1000,
        "failed": 0,
        "serial": 1.0,
        "serial_cpu": 1.0,
        "longest": 0.01,
        "handlers": (HandlerTime("a", 1000, 0.8, 0.01), HandlerTime("b", 1000, 0.2, 0.001)),
        "pools": {1: PoolTime(1.05, 0.01), 2: PoolTime(0.55, 0.01), 4: PoolTime(0.28, 0.01)},
        "cpus": 4,
    }
    return Measured(**{**figures, **changes})


def text_of(verdict: Verdict) -> str:
    return "\n".join(verdict.lines)


def test_a_pool_that_pays_off() -> None:
    verdict = decide(measured())
    assert (verdict.pays_off, verdict.workers, verdict.limit) == (True, 4, "cpus")
    assert verdict.speed_up == pytest.approx(1 / 0.28)
    assert verdict.most == pytest.approx(4.0)
    assert verdict.bottleneck == "a"
    assert verdict.share == pytest.approx(0.8)
    use, why, bottleneck = verdict.lines
    assert use == "Use the pool: with 4 workers it is 3.6 times as fast as one process."
    assert why == (
        "The most that a pool can give here is 4.0 times: there are 4 CPUs to use. Sending an event"
        " takes 10.0 us."
    )
    assert bottleneck == (
        "The bottleneck is handler 'a': it takes 80% of the time. If it were twice as fast, all"
        " would be 1.7 times as fast."
    )


def test_handlers_that_take_less_than_sending_an_event() -> None:
    pools = {1: PoolTime(0.006, 0.004), 2: PoolTime(0.007, 0.004)}
    verdict = decide(measured(serial=0.001, serial_cpu=0.001, longest=0.0001, pools=pools))
    assert (verdict.pays_off, verdict.workers, verdict.limit) == (False, 2, "sending")
    assert verdict.most == pytest.approx(0.25)
    first, second, *rest = verdict.lines
    assert first == (
        "Do not use the pool: at best, with 2 workers, it is 0.14 times as fast as one process."
    )
    assert "an event takes 1.0 us in its handlers, and 4.0 us in the coordinator" in second
    assert "less than they could" not in "".join(rest)


def test_one_event_that_takes_most_of_the_time() -> None:
    verdict = decide(measured(longest=0.9, pools={1: PoolTime(1.1, 0.01), 4: PoolTime(0.95, 0.01)}))
    assert (verdict.pays_off, verdict.limit) == (False, "longest")
    assert "one event takes 900.0 ms of the 1.0 s, and is never cut" in text_of(verdict)


def test_one_cpu() -> None:
    verdict = decide(measured(cpus=1, pools={1: PoolTime(1.1, 0.01)}))
    assert (verdict.pays_off, verdict.limit) == (False, "cpus")
    assert "The most that a pool can give here is 1.0 times: there is 1 CPU" in text_of(verdict)


def test_handlers_that_wait_can_have_more_workers_than_cpus() -> None:
    verdict = decide(measured(serial_cpu=0.01))
    assert verdict.limit == "sending"
    assert verdict.most == pytest.approx(100)
    assert "The handlers wait for most of their time" in text_of(verdict)


def test_workers_that_hold_each_other_up() -> None:
    pools = {1: PoolTime(1.1, 0.01), 4: PoolTime(1.0, 0.01)}
    assert "The workers give less than they could" in text_of(decide(measured(pools=pools)))
    # with two workers no more than twice as fast was possible
    pools = {1: PoolTime(1.1, 0.01), 2: PoolTime(0.6, 0.01)}
    assert "less than" not in text_of(decide(measured(pools=pools)))


def test_other_programs_are_named_before_any_other_reason() -> None:
    pools = {1: PoolTime(1.1, 0.01), 4: PoolTime(1.0, 0.01)}
    text = text_of(decide(measured(pools=pools, serial_cpu=0.3, others=0.6)))
    assert text.startswith(
        "Whether to use the pool cannot be told: other programs kept 60% of the CPUs busy. Measure"
        " again when it is quiet.\nMeasured: with 4 workers it was 1.00 times as fast as one"
        " process.\n"
    )
    assert "wait" not in text.replace("and is never", "")


@pytest.mark.parametrize("cpu", [0.05, 0.25, 1.0])
def test_a_pool_gives_no_more_than_the_cpus_if_these_are_busy(cpu: float) -> None:
    pools = {1: PoolTime(1.1, 0.01), 2: PoolTime(0.3, 0.01)}
    verdict = decide(measured(cpus=2, pools=pools, serial_cpu=cpu, others=0.6))
    assert (verdict.pays_off, verdict.most) == (None, 2.0)
    assert "The most that a pool can give here is 2.0 times: there are 2 CPUs" in text_of(verdict)
    # also if handlers wait for a part of their time
    assert decide(measured(cpus=2, pools=pools, serial_cpu=0.6)).most == 2.0


def test_handlers_that_wait_leave_the_cpus_to_others() -> None:
    verdict = decide(measured(serial_cpu=0.25, longest=0.001))
    assert (verdict.most, verdict.limit) == (16.0, "cpus")
    assert "16.0 times: handlers use a CPU for 25% of it, and there are 4 CPUs" in text_of(verdict)


def test_runs_that_differ_by_more_than_the_gain_give_no_verdict() -> None:
    noisy = {2: PoolTime(0.8, 0.01, slowest=1.3)}
    verdict = decide(measured(pools=noisy, slowest=1.1))
    assert verdict.pays_off is None
    assert verdict.lines[0] == (
        "Whether to use the pool cannot be told: runs of the same kind differ by more than the"
        " gain. The pool is 0.77 to 1.38 times as fast, by which of them are compared. Measure"
        " again when it is quiet."
    )
    assert verdict.lines[1].startswith("Measured: with 2 workers it was 1.25 times as fast")
    # a serial run that was disturbed
    assert decide(measured(pools={2: PoolTime(0.9, 0.01)}, slowest=1.6)).pays_off is None


def test_runs_that_differ_by_less_than_the_gain_and_in_ways_that_change_nothing() -> None:
    assert decide(measured(pools={2: PoolTime(0.6, 0.01, slowest=0.9)}, slowest=1.3)).pays_off
    never = decide(measured(pools={2: PoolTime(1.0, 0.01, slowest=1.1)}, slowest=1.1))
    assert never.pays_off is False


def test_one_worker_is_never_advised() -> None:
    pools = {1: PoolTime(0.7, 0.01), 2: PoolTime(0.75, 0.01)}
    assert (decide(measured(pools=pools)).workers, decide(measured(pools=pools)).pays_off) == (
        2,
        True,
    )
    alone = decide(measured(pools={1: PoolTime(0.7, 0.01)}))
    assert alone.pays_off is None
    assert "one worker gains nothing over one process" in alone.lines[0]
    assert decide(measured(pools={1: PoolTime(1.1, 0.01)})).pays_off is False


def test_a_start_that_takes_more_than_the_sample_gains() -> None:
    pools = {2: PoolTime(0.5, 0.01, start=1.5)}
    assert "The start of the workers takes 1.5 s" in text_of(decide(measured(pools=pools)))


def test_fewer_workers_that_are_as_good_are_the_best() -> None:
    pools = {1: PoolTime(1.0, 0.01), 2: PoolTime(0.51, 0.01), 4: PoolTime(0.5, 0.01)}
    assert decide(measured(pools=pools)).workers == 2


def test_a_single_handler_is_no_bottleneck_and_none_is_none() -> None:
    handlers = (HandlerTime("a", 5, 1.0, 0.1), HandlerTime("b", 0, 0.0, 0.0))
    assert "bottleneck" not in text_of(decide(measured(handlers=handlers)))
    verdict = decide(measured(handlers=()))
    assert (verdict.bottleneck, verdict.share) == (None, 0.0)


def test_nothing_to_decide_by() -> None:
    with pytest.raises(ValueError, match="nothing to decide by"):
        decide(measured(events=0))
    with pytest.raises(ValueError, match="nothing to decide by"):
        decide(measured(pools={}))


def test_durations_and_numbers_of_workers() -> None:
    assert [duration(each) for each in (2.04, 0.0015, 0.0000012)] == ["2.0 s", "1.5 ms", "1.2 us"]
    assert numbers_of_workers(1) == [1]
    assert numbers_of_workers(6) == [1, 2, 3, 4, 6]
    assert numbers_of_workers(16) == [1, 2, 3, 4, 8, 16]


def test_the_share_of_other_programs() -> None:
    assert others_share(10.0, 4.0, 12.0) == 0.5
    assert others_share(3.0, 4.0, 12.0) == 0.0
    assert others_share(99.0, 4.0, 12.0) == 1.0
    assert others_share(1.0, 1.0, 0.0) == 0.0
    assert share_of_usable(0.5, 4, 4) == share_of_usable(0.5, 1, 4) == 0.5
    # a container that may use four of 64 CPUs
    assert share_of_usable(0.5, 64, 4) == 0.0
    assert share_of_usable(1.0, 64, 4) == 1.0
    assert share_of_usable(62 / 64, 64, 4) == 0.5


# --- the measuring ---


def processor_of(**handlers: Callable[..., Any]) -> Processor:
    processor = Processor()
    for name, handler in handlers.items():
        processor.register(handler, name)
    return processor


def test_a_sample_ends_with_the_input_the_number_or_the_time() -> None:
    processor = processor_of(a=lambda proc, ev: None)
    lines = [(number, '{"name": "x"}') for number in range(5)]
    bad: list[str] = []
    note = lambda number, error: bad.append(f"{number}: {error}")  # noqa: E731

    def size(most: int, seconds: float) -> int:
        clock = itertools.count()
        sample = take_sample(
            lines,
            default_decode,
            processor,
            most=most,
            seconds=seconds,
            bad=note,
            clock=lambda: next(clock),
        )
        return len(sample.events())

    assert size(9, 9) == 5
    assert size(2, 9) == 2
    assert size(9, 3) == 3
    mixed = [(7, "{}"), (9, '{"name": "x"}')]
    sample = take_sample(mixed, default_decode, processor, most=1, seconds=1, bad=note)
    assert sample.numbers == [9]
    assert [each.partition(" has")[0] for each in bad] == ["7: the object"]


def test_a_sample_that_takes_too_long_is_shortened_and_runs_are_fewer() -> None:
    sample = Sample(["{}"] * 100, default_decode)
    assert len(sample.shortened(2.4, 2.0).lines) == 100
    assert len(sample.shortened(8.0, 2.0).lines) == 25
    assert len(sample.shortened(8.0, 0.0).lines) == 1
    assert len(repeated(lambda: PoolTime(2.4, 0.0), 2.0)) == 3
    assert len(repeated(lambda: PoolTime(3.0, 0.0), 2.0)) == 2
    assert len(repeated(lambda: PoolTime(9.0, 0.0), 2.0)) == 1
    # a sample, three runs in one process, three that time handlers, and of three pools
    assert most_seconds(2.0, 3) == 2.0 * (1 + 5 * 3) + 3


def test_the_calls_of_handlers_are_counted_and_failures_too() -> None:
    def fails(proc: Processor, ev: Any) -> None:
        if ev.data["n"] == 1:
            raise ValueError

    processor = processor_of(first=lambda proc, ev: None, fails=fails)
    lines = [f'{{"name": "x", "n": {n}}}' for n in range(3)]
    run = time_handlers(processor, Sample(lines, default_decode, [4, 6, 8]))
    runs = [run(), run()]
    for timed in runs:
        assert [(each.name, each.calls) for each in timed.handlers] == [("first", 3), ("fails", 3)]
        assert all(0 < each.longest <= each.seconds for each in timed.handlers)
        assert timed.failed == 1
        assert timed.failure == "line 6: event 'x' failed in handler 'fails': ValueError: "
    assert 0 < longest_share(runs) <= 1


# --- the command ---


def test_the_demo(tmp_path: Path, evproc: Run) -> None:
    paths = sorted(map(str, Path(__file__).parent.glob("test_*.py")))[:3]
    lines = [json.dumps({"name": "source-file", "path": path}) for path in paths]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    # also from the project's file
    (tmp_path / "pyproject.toml").write_text(
        '[tool.evproc]\ndecode = "evproc_pool.demo.events:from_json"\nevent-timeout = 60\n'
    )
    done = evproc(tmp_path, "bench", DEMO, "in.jsonl", "--workers", "1", "--seconds", "60")
    assert done.code == 0
    assert "Sample: the first 3 events" in done.out
    assert "one process" in done.out
    assert "1 worker" in done.out
    assert "se the pool" in done.out
    assert "this takes about" in done.out + done.err
    assert "The bottleneck is handler '" in done.out
    assert "3 events with workers=1" in done.out + done.err


def test_handlers_that_print_and_fail(make_group: Any) -> None:
    folder = make_group("def talk(proc, ev): print('hello'); 1 / ev.total", "talk")
    given = '{}\n{"name": "order", "total": 0}\n[]\n'
    done = piped(folder, "bench", GROUP, "-", "--workers", "1", given=given)
    assert (done.code, "hello" in done.out) == (0, False)
    assert "Sample: the first 1 event, " in done.out
    assert (
        "1 of them failed\nThe first that failed: line 2: event 'order' failed in handler 'talk':"
        " ZeroDivisionError: division by zero\nLeft out: 2 bad lines. line 1: the object has no"
    ) in done.out


def test_events_from_a_pipe_need_no_file(shop: Path) -> None:
    given = '{"name": "note"}\n'
    done = piped(shop, "bench", GROUP, "--workers", "1", given=given)
    assert "Sample: the first 1 event, " in done.out
    assert piped(shop, "bench", GROUP).err.endswith("error: standard input: no event in it\n")


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
def test_nobody_types_the_events(shop: Path) -> None:
    done = in_terminal(shop, "bench", GROUP)
    assert done.code == 2
    assert "FILE is missing; - is standard input." in done.out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "error: in.jsonl: no event in it\n"),
        ("\n{}\n", 'error: in.jsonl: line 2: the object has no "name", which is the name of'),
    ],
)
def test_a_file_without_events(text: str, said: str, shop: Path, evproc: Run) -> None:
    (shop / "in.jsonl").write_text(text)
    done = evproc(shop, "bench", GROUP, "in.jsonl")
    assert done.code == 2
    assert said in done.out + done.err


def test_a_group_with_a_fault(make_group: Any, evproc: Run) -> None:
    folder = make_group("@evproc.requires('none')\ndef a(proc, ev): pass\n", "a")
    done = evproc(folder, "bench", GROUP, "-")
    assert done.code == 1
    assert "error: handler 'a' requires 'none'" in done.out + done.err


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
@pytest.mark.parametrize("where", ["one process", "a worker"])
def test_ctrl_c_ends_it(where: str, make_group: Any) -> None:
    code = (
        "import os, pathlib, time, multiprocessing\n"
        "def wait(proc, ev):\n"
        "    is_worker = multiprocessing.parent_process() is not None\n"
        f"    if is_worker == {where == 'a worker'}:\n"
        "        pathlib.Path('begun').touch()\n"
        f"        time.sleep({SECONDS})\n"
    )
    folder = make_group(code, "wait")
    (folder / "in.jsonl").write_text('{"name": "order"}\n')
    with Terminal(folder, "bench", GROUP, "in.jsonl", "--workers", "1") as terminal:
        wait_for_file(folder / "begun")
        terminal.type(b"\x03")
        done = terminal.finish()
    assert done.code == 130
    assert done.out.endswith("interrupted\n")
    assert "Traceback" not in done.out


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "soon"])
@pytest.mark.parametrize("command", ["bench --seconds", "run --event-timeout"])
def test_seconds_are_a_finite_number(
    command: str, seconds: str, tmp_path: Path, evproc: Callable[..., Done]
) -> None:
    (tmp_path / "in.jsonl").write_text("{}\n")
    name, option = command.split()
    done = evproc(tmp_path, name, DEMO, "in.jsonl", option, seconds)
    said = done.out + done.err
    assert done.code == 2
    assert option in said or option.strip("-").replace("-", "_") in said
    assert seconds in said
    assert "internal" not in said
