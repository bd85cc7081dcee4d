"""`evproc graph`."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evproc import Processor, required_by, requires, want
from evproc_pool.cli.diagrams import dot, mermaid, svg
from evproc_pool.cli.graphs import Flow, Node, flows, tree
from evproc_pool.cli.problems import CommandError
from tests.evproc_pool.cli.conftest import GROUP, Done, piped
from tests.evproc_pool.cli.test_handlers import CYCLE, words

Run = Callable[..., Done]
DEMO = "evproc_pool.demo.handlers"

DEMO_TREE = """\
source-file
  └── 1 read
      └── 2 parse
          ├── 3 docstrings
          ├── 4 imports
          ├── 5 measure
          └── 6 tokenize
              └── 7 report (also after docstrings, imports, measure)
"""


def test_the_tree_of_the_demo_piped(tmp_path: Path) -> None:
    done = piped(tmp_path, "graph", DEMO)
    assert (done.code, done.err) == (0, "")
    assert DEMO_TREE in done.out
    titles = [line for line in done.out.splitlines() if line[:1].isalpha()]
    assert titles == ["cycle-candidates", "source-file", "complex-functions"]


def test_the_handlers_of_one_event(tmp_path: Path, evproc: Run) -> None:
    done = evproc(tmp_path, "graph", DEMO, "--event", "source-file")
    assert (done.code, done.err) == (0, "")
    assert "7 report (also after docstrings, imports, measure)" in done.out
    assert "confirm" not in done.out
    assert done.out.index("6 tokenize") < done.out.index("7 report")


def test_an_event_that_no_handler_wants(tmp_path: Path, evproc: Run) -> None:
    done = evproc(tmp_path, "graph", DEMO, "--event", "source-fil")
    text = "error: no handler wants event 'source-fil'; there is 'source-file'\n"
    assert (done.code, done.out + done.err) == (2, text)


def test_a_handler_that_cannot_be_loaded_might_want_the_event(make_group: Any) -> None:
    folder = make_group("", also={"gone": "no_such_module:gone"})
    done = piped(folder, "graph", GROUP, "--event", "x")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: entry point 'gone'")


@pytest.mark.parametrize("kind", ["dot", "mmd"])
def test_a_file_and_standard_output_have_the_same_text(kind: str, shop: Path) -> None:
    done = piped(shop, "graph", GROUP, "-o", f"x.{kind}")
    assert done == (0, "", "")
    text = (shop / f"x.{kind}").read_text("utf-8")
    assert piped(shop, "graph", GROUP, "--format", kind).out == text
    assert text.startswith({"dot": 'digraph "shop.handlers" {', "mmd": "flowchart TD\n"}[kind])


def test_an_svg_file_of_the_demo(tmp_path: Path) -> None:
    # it may be there without a library of the system that it needs
    pytest.importorskip("pygraphviz", exc_type=ImportError)
    done = piped(tmp_path, "graph", DEMO, "-o", "x.svg")
    assert (done.code, done.out) == (0, "")
    root = ET.parse(tmp_path / "x.svg").getroot()  # our own file
    texts = {"".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"source-file", "1 read", "2 parse", "7 report"} <= texts


def test_an_svg_file_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    with pytest.raises(CommandError, match=r"needs pygraphviz, .* pip install 'evproc-pool\[graph"):
        svg([], "app")


def test_graphviz_that_cannot_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        class AGraph:
            def __init__(self, string: str) -> None: ...

            def draw(self, **_: Any) -> bytes:
                raise ValueError("Program dot not found in path.")

    monkeypatch.setitem(sys.modules, "pygraphviz", Old)
    with pytest.raises(CommandError, match=r"Program dot not found.*evproc-pool\[graph\]"):
        svg([], "app")


def test_a_file_of_another_kind_and_one_that_cannot_be_written(shop: Path, evproc: Run) -> None:
    done = evproc(shop, "graph", GROUP, "-o", "x.png")
    text = "error: -o x.png: name a file that ends in .svg, .dot or .mmd\n"
    assert (done.code, done.out + done.err) == (2, text)
    done = evproc(shop, "graph", GROUP, "-o", "no/x.dot")
    assert (done.code, done.out + done.err) == (2, "error: no/x.dot: No such file or directory\n")


def test_a_group_with_a_cycle_is_drawn_and_the_cycle_named(make_group: Any, evproc: Run) -> None:
    folder = make_group(CYCLE, "a", "b", also={"gone": "no_such_module:gone"})
    done = evproc(folder, "graph", GROUP)
    assert done.code == 1
    assert "fault: a cycle: a -> b -> a" in done.out
    text = words(done.out + done.err)
    assert "fault: requirement cycle: a -> b -> a (each requires the next)" in text
    assert "fault: entry point 'gone'" in text
    assert "color=red" in piped(folder, "graph", GROUP, "--format", "dot").out


# --- the pure part ---


def handler(proc: Any, ev: Any) -> None: ...


def processor_of(**declarations: list[Any]) -> Processor:
    processor = Processor()
    for name, decorators in declarations.items():

        def made(proc: Any, ev: Any) -> None: ...

        for decorator in decorators:
            decorator(made)
        processor.register(made, name)
    return processor


def found(processor: Processor, event: str | None = None) -> list[Flow]:
    return flows(tuple(processor.nodes.values()), event)


def test_events_that_run_the_same_handlers_share_a_flow() -> None:
    processor = processor_of(
        every=[required_by("one")],
        one=[want("a", "b")],
        two=[want("c"), requires("every")],
    )
    every = Node("every", False, ())
    assert found(processor) == [
        Flow(("a", "b"), (every, Node("one", False, ("every",)))),
        Flow(("c",), (every, Node("two", False, ("every",)))),
        Flow((), (every,)),
    ]
    assert found(processor, "b") == [Flow(("b",), (every, Node("one", False, ("every",))))]
    assert found(processor, "d") == [Flow(("d",), (every,))]
    assert found(processor)[-1].title == "any other event"


def test_a_filter_may_decline_and_a_required_handler_may_be_absent() -> None:
    processor = processor_of(
        one=[want("a", bool), requires("two", "none")],
        two=[want("b")],
    )
    first, second = found(processor)
    assert first.nodes == (Node("one", True, (), ("two", "none")),)
    assert second.nodes == (Node("two", False, ()),)
    (branch,) = tree(first).branches
    assert branch.text == (
        "1 one (if its filter agrees; requires two, which never runs here;"
        " requires none, which never runs here)"
    )


def test_the_order_and_the_cycle_of_a_flow() -> None:
    (flow,) = found(processor_of(a=[requires("c")], b=[], c=[]))
    assert [node.name for node in flow.nodes] == ["b", "c", "a"]
    (flow,) = found(processor_of(a=[requires("b")], b=[requires("a")]))
    assert flow.cycle == ("a", "b", "a")


def test_names_are_escaped() -> None:
    flow = Flow(('say "hi"\n',), (Node("a\\b", True, ()), Node("[x]", False, ("a\\b",))))
    text = mermaid([flow])
    assert 'subgraph e0["say #34;hi#34;#10;"]' in text
    assert 'e0h0{{"1 a#92;b"}}' in text
    assert 'e0h1["2 #91;x#93;"]' in text
    assert "e0h0 --> e0h1" in text
    text = dot([flow], "g")
    assert r'label="say \"hi\"\\n";' in text
    assert r'e0h0 [label="1 a\\b", style="rounded,dashed"];' in text
    assert "e0h0 -> e0h1;" in text
