from __future__ import annotations

import os
from pathlib import Path

import pytest

from evproc import Processor
from evproc_pool.demo import handlers, sources, survey
from evproc_pool.demo.events import BadFile, FileReport, Finding, Settings, SourceFile
from tests.evproc_pool.demo.conftest import BAD, GOOD

SETTINGS = Settings(top=3, complexity=5)


def serial(files: list[str]) -> list[Finding]:
    return survey.run_serial(files, survey.events_for(files, SETTINGS)).findings


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_pool_finds_what_a_processor_finds(bad_tree: Path, workers: int) -> None:
    files = sources.largest_first(sources.find_files([str(bad_tree)]).files)
    run = survey.run_pool(files, survey.events_for(files, SETTINGS), workers)
    assert run.findings == serial(files)
    assert run.title == f"PoolProcessor, workers: {workers}"
    assert survey.differences(run.findings, serial(files)) == []
    by_name = {Path(finding.path).name: finding for finding in run.findings}
    assert {name for name, each in by_name.items() if isinstance(each, BadFile)} == set(BAD)
    assert {name for name, each in by_name.items() if isinstance(each, FileReport)} == GOOD
    for name, reason in BAD.items():
        bad_file = by_name[name]
        assert isinstance(bad_file, BadFile)
        assert bad_file.reason.startswith(reason)
    one, two = by_name["one.py"], by_name["two.py"]
    assert isinstance(one, FileReport)
    assert isinstance(two, FileReport)
    assert (one.cycles, two.cycles) == (("pkg.two",), ("pkg.one",))


def test_a_file_that_vanishes_after_the_listing_is_a_bad_file(good_tree: Path) -> None:
    files = sources.find_files([str(good_tree)]).files
    (good_tree / "tangled.py").unlink()
    findings = serial(files)
    assert findings[-1] == BadFile(files[-1], "cannot be read: No such file or directory")
    assert sum(isinstance(each, FileReport) for each in findings) == len(files) - 1


def test_an_error_in_a_handler_is_a_bad_file(
    good_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str, max_bytes: int) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(handlers, "read_source", fail)
    path = str(good_tree / "tangled.py")
    assert serial([path]) == [BadFile(path, "a handler failed: RuntimeError: a bug")]


def test_a_cascade_without_a_value_is_a_bad_file(
    good_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as it would be with an entry point missing
    monkeypatch.setattr(Processor, "load_from", lambda processor, group: ())
    path = str(good_tree / "tangled.py")
    assert serial([path]) == [BadFile(path, "the handlers came to no end: None")]


def test_root_events_carry_a_path_and_no_more(good_tree: Path) -> None:
    (event,) = survey.events_for(["a.py"], SETTINGS)
    assert isinstance(event, SourceFile)
    assert (event.path, event.ctxt) == ("a.py", SETTINGS)
    assert set(vars(event)) == {"path", "ctxt"}


def test_differences_name_file_and_field(good_tree: Path) -> None:
    findings = serial([str(good_tree / "pkg" / "one.py")])
    (report,) = findings
    assert isinstance(report, FileReport)
    bad = BadFile(report.path, "why")
    other = report._replace(lines=99, tokens=98)
    assert survey.differences([other], findings) == [
        f"{report.path}: lines: pool 99, serial {report.lines}",
        f"{report.path}: tokens: pool 98, serial {report.tokens}",
    ]
    assert survey.differences([bad], findings) == [f"{report.path}: pool why, serial reports"]
    assert survey.differences([bad], [bad._replace(reason="because")]) == [
        f"{report.path}: reason: pool 'why', serial 'because'"
    ]


@pytest.mark.bar
@pytest.mark.skipif(os.environ.get("EVPROC_BARS") != "1", reason="takes minutes")
def test_bar_the_whole_standard_library() -> None:
    listing = sources.find_files([sources.standard_library()], frozenset({"site-packages"}))
    files = sources.largest_first(listing.files)
    settings = Settings()
    pool = survey.run_pool(files, survey.events_for(files, settings), 2)
    alone = survey.run_serial(files, survey.events_for(files, settings))
    assert survey.differences(pool.findings, alone.findings) == []
    assert alone.seconds / pool.seconds >= 1.7
