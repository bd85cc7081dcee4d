"""One run in this interpreter: ``python -m benchmarks.applications.unblob.once SIDE FOLDER OUT``.

The sides: `pool` is the pool, `own` unblob's pool with all files at once, and `each` unblob's own
run of one file after the other, as its command does it.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from unblob.handlers import BUILTIN_DIR_HANDLERS, BUILTIN_HANDLERS
from unblob.models import ProcessResult
from unblob.plugins import UnblobPluginManager
from unblob.processing import DEFAULT_DEPTH, ExtractionConfig, process_file

from benchmarks.applications.unblob import own
from benchmarks.applications.unblob.handlers import use_logging
from benchmarks.applications.unblob.survey import Survey, extract_files


def main() -> None:
    """Extract the files of a folder."""
    parser = argparse.ArgumentParser(description="Extract the files of a folder, once.")
    parser.add_argument("side", choices=sorted(_SIDES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--depth", type=int, default=DEFAULT_DEPTH)
    parser.add_argument("--plugins-path", type=Path)
    parser.add_argument("--report", type=Path, help="unblob's report, as JSON")
    parser.add_argument("--timeout", type=float, help="seconds that an extraction may take")
    options = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    use_logging()
    _SIDES[options.side](configuration(options), sorted(options.folder.iterdir()), options)


def configuration(options: argparse.Namespace) -> ExtractionConfig:
    """Make unblob's configuration, with the handlers of its plug-ins, as its command does."""
    plugins = UnblobPluginManager()
    plugins.import_plugins(options.plugins_path)
    return ExtractionConfig(
        extract_root=options.output,
        randomness_depth=1,
        max_depth=options.depth,
        process_num=options.processes,
        handlers=BUILTIN_HANDLERS + tuple(plugins.load_handlers_from_plugins()),
        dir_handlers=BUILTIN_DIR_HANDLERS + tuple(plugins.load_dir_handlers_from_plugins()),
    )


def _pool(config: ExtractionConfig, files: list[Path], options: argparse.Namespace) -> None:
    survey = Survey()
    try:
        extract_files(config, files, survey, event_timeout=options.timeout)
    finally:
        # that of an interrupted run has what was found before
        _report(survey.result(), options)
    for path, error in survey.errors.items():
        print(f"{path}: {type(error).__name__}: {error}")


def _own(config: ExtractionConfig, files: list[Path], options: argparse.Namespace) -> None:
    _report(own.extract_files(config, files), options)


def _each(config: ExtractionConfig, files: list[Path], options: argparse.Namespace) -> None:
    found = ProcessResult()
    for file in files:
        for result in process_file(config, file).results:
            found.register(result)
    _report(found, options)


def _report(result: ProcessResult, options: argparse.Namespace) -> None:
    if options.report is not None:
        options.report.write_text(result.to_json(), encoding="utf-8")


_SIDES: Final[dict[str, Callable[[ExtractionConfig, list[Path], argparse.Namespace], None]]] = {
    "pool": _pool,
    "own": _own,
    "each": _each,
}

if __name__ == "__main__":
    main()
