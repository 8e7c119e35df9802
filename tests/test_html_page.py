"""Pages of reports in a browser, as readers use them: by mouse, by keyboard, by what is heard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from browser import Open, Rows
from html_reports import HOSTILE, LAYERS, generated, named, stack, trained
from playwright.sync_api import expect

import graphflops as gf
from graphflops.core.call_sequence import Block, CallSequence, Relocation, Repeat
from graphflops.core.ir import OpRecord
from graphflops.render.escape import visible
from graphflops.render.units import quantity, shape


def test_nothing_leaves_a_page(opened: Open) -> None:
    found = opened(named(), device="h100-sxm")
    for tab in found.page.get_by_role("tab").all_inner_texts():
        found.tab(tab)
    assert len(found.requests) == 1


def test_the_policy_lets_nothing_in(opened: Open) -> None:
    found = opened(stack())
    blocked = found.page.evaluate("""() => new Promise((resolve) => {
        const seen = [];
        document.addEventListener("securitypolicyviolation", (event) => {
            seen.push(event.effectiveDirective);
            if (seen.length === 3) resolve(seen);
        });
        document.body.append(Object.assign(new Image(), { src: "https://example.org/pixel.png" }));
        document.body.append(Object.assign(document.createElement("script"), { textContent: "alert(1)" }));
        fetch("https://example.org/").catch(() => {});
    })""")
    assert set(blocked) == {"img-src", "script-src-elem", "connect-src"}
    found.errors.clear()  # the browser says so
    del found.requests[1:]


def test_hostile_names_are_text_everywhere(opened: Open) -> None:
    found = opened(named(), compare=replace(named(), model="<i>slanted</i>"), device="h100-sxm")
    scripts = found.page.locator("script").count()
    for tab in found.page.get_by_role("tab").all_inner_texts():
        found.tab(tab)
    names = found.table("Modules", "Modules").column("module")
    hostile = set(map(visible, HOSTILE))
    assert hostile <= set(names)
    assert hostile <= set(found.table("Calls", "Calls of the pass forward").column("module"))
    assert found.page.locator("h1").inner_text() == "<b>bold</b> and <i>slanted</i>"
    assert found.page.locator("script").count() == scripts
    assert found.page.locator("img, b:has-text('bold'), i:has-text('slanted')").count() == 0


def test_a_click_zooms_and_a_crumb_goes_back(opened: Open) -> None:
    page = opened(stack()).page
    icicle, details = page.get_by_role("application"), page.locator(".details")
    box = icicle.bounding_box()
    assert box is not None
    expect(details).to_contain_text("(model)")
    # Rows are 30 pixels: the model, stages, a stage, its parts, "0 to 4" of the layers.
    icicle.click(position={"x": 40, "y": 2 * 30 + 15})
    expect(details).to_contain_text("stages.0")
    assert page.get_by_role("group", name="Zoomed module").get_by_role(
        "button"
    ).all_inner_texts() == ["(model)", "stages", "0"]
    icicle.click(position={"x": box["width"] - 5, "y": 3 * 30 + 15})
    expect(details).to_contain_text("stages.0.head")  # that of stage 1 is out of sight
    page.get_by_role("group", name="Zoomed module").get_by_role("button", name="(model)").click()
    icicle.click(position={"x": box["width"] - 2, "y": 3 * 30 + 15})
    expect(details).to_contain_text("stages.1.head")
    marked = page.locator("tr[aria-current=true] th")
    assert marked.inner_text() == "head"


def test_the_keyboard_reaches_every_module(opened: Open) -> None:
    page = opened(stack()).page
    icicle, details = (
        page.get_by_role("application", name="Icicle of modules by FLOPs"),
        page.locator(".details strong"),
    )
    assert page.locator(".details").get_attribute("aria-live") == "polite"
    icicle.focus()
    for key, path in (
        ("ArrowDown", "stages"),
        ("ArrowDown", "stages.0"),
        ("ArrowRight", "stages.1"),
        ("ArrowRight", "stages.1"),  # the last one
        ("ArrowDown", "stages.1.layers"),
        ("ArrowDown", f"stages.1.layers.0 and {LAYERS - 1} equal"),
        ("ArrowDown", f"stages.1.layers.0.norm and {LAYERS - 1} equal"),
        ("ArrowUp", f"stages.1.layers.0 and {LAYERS - 1} equal"),
        ("Home", "(model)"),
    ):
        icicle.press(key)
        expect(details).to_have_text(path)
    icicle.press("ArrowDown")
    icicle.press("Enter")
    crumbs = page.get_by_role("group", name="Zoomed module").get_by_role("button")
    expect(crumbs).to_have_text(["(model)", "stages"])
    icicle.press("Escape")
    expect(crumbs).to_have_text(["(model)"])
    for key in ("ArrowDown", "Enter", "ArrowRight"):
        icicle.press(key)
    expect(details).to_have_text("stages.1")
    expect(crumbs).to_have_text(["(model)", "stages"])  # what is selected comes into sight


def test_equal_layers_are_one_or_many(opened: Open) -> None:
    page = opened(stack()).page
    icicle, details = page.get_by_role("application"), page.locator(".details")
    whole = quantity(stack().by_module()["stages.0.layers"].flops, "FLOPs")
    one = quantity(stack().by_module()["stages.0.layers.0"].flops, "FLOPs")
    keys = ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowDown")
    for key in keys:
        icicle.press(key)
    expect(details).to_contain_text(f"stages.0.layers.0 and {LAYERS - 1} equal")
    expect(details).to_contain_text(whole)
    page.get_by_role("checkbox", name="equal layers as one").uncheck()
    for key in keys:
        icicle.press(key)
    expect(details).not_to_contain_text("equal")
    expect(details).to_contain_text(one)


@pytest.mark.parametrize(
    "metric", ["FLOPs", "MACs", "Parameters", "Bytes moved", "Kernel time", "Memory at the peak"]
)
def test_the_metric_is_switched(metric: str, opened: Open) -> None:
    found = opened(stack(), device="a100")
    found.page.get_by_role("radio", name=metric, exact=True).check()
    expect(
        found.page.get_by_role("application", name=f"Icicle of modules by {metric}")
    ).to_be_visible()
    report, time = stack(), stack().time("a100")
    figures = {
        "FLOPs": {path: cost.flops for path, cost in report.by_module().items()},
        "MACs": {path: cost.macs for path, cost in report.by_module().items()},
        "Parameters": {node.path: node.params_total for node in report.root.walk()},
        "Bytes moved": {p: c.bytes_read + c.bytes_written for p, c in report.by_module().items()},
        "Kernel time": {path: t.expected for path, t in time.by_module().items()},
        "Memory at the peak": report.memory.by_module(),
    }[metric]
    share = 100 * figures["stages.0"] / figures[""]
    rows = {
        row["module"]: row["share"]
        for row in Rows(found.page.get_by_role("table", name="Modules")).all()
    }
    assert float(rows["0"].rstrip("%")) == pytest.approx(share, rel=0.05)


def test_a_header_sorts_the_tree(opened: Open) -> None:
    table = opened(stack(1)).table("Modules", "Modules")
    assert table.column("module") == ["(model)", "stages", "0"]
    for name in ("stages", "0", "layers"):
        if name != "stages":
            table.table.get_by_role("button", name=name, exact=True).first.click()
    plain = table.column("module")
    assert plain[3:] == ["layers", *map(str, range(LAYERS)), "head"]
    assert table.sort_by("Parameters") == "descending"
    assert table.sort_by("Parameters") == "ascending"
    assert table.column("module")[3:] == ["head", "layers", *map(str, range(LAYERS))]
    assert table.sort_by("Parameters") is None
    assert table.column("module") == plain


def test_a_search_keeps_the_modules_above(opened: Open) -> None:
    found = opened(stack())
    panel = found.tab("Modules")
    table = found.table("Modules", "Modules")
    closed = table.column("module")
    panel.get_by_role("searchbox", name="Search modules").fill("stages.1 NORM")
    assert table.column("module") == ["(model)", "stages", "1", "layers"] + [
        x for i in range(LAYERS) for x in (str(i), "norm")
    ]
    modules = len(list(stack().root.walk()))
    status = panel.get_by_role("status")
    assert status.inner_text() == f"{LAYERS} of {modules} modules"
    assert status.get_attribute("aria-live") == "polite"
    panel.get_by_role("searchbox").fill("nothing of this name")
    assert status.inner_text() == f"0 of {modules} modules"
    assert table.all() == []
    panel.get_by_role("searchbox").fill("")
    assert table.column("module") == closed


def test_operators_are_those_of_the_report(opened: Open) -> None:
    table = opened(trained(), device="a100").table("Operators", "Operators")
    rows = {row["operator"]: row for row in table.all()}
    costs, time = trained().by_operator(), trained().time("a100").by_operator()
    assert set(rows) == {record.call.op for record in trained().records}
    for name, cost in costs.items():
        assert rows[name]["FLOPs"].removesuffix(" FLOPs") == quantity(
            cost.flops, "FLOPs"
        ).removesuffix(" FLOPs")
        assert bool(time[name].expected) == (rows[name]["time"] != "0 s")
    flops = [costs[row["operator"]].flops for row in table.all()]
    assert flops == sorted(flops, reverse=True)


def nested() -> gf.Report:
    """A report with a repeat within a repeat, which captures have not."""
    report = stack(1)
    records = list(report.records)
    size = next(
        i for i, r in enumerate(records) if r.call.module_path.startswith("stages.0.layers.1")
    )
    inner: Block[OpRecord] = Block(0, tuple(records[:size]))

    def moved(start: str, end: str, suffix: str) -> Relocation:
        return Relocation(start, end, records[0].call.source_line, "elsewhere.py:1", {}, suffix)

    second = Repeat(size, inner, moved("stages.0.layers.0", "stages.0.layers.1", "_b"))
    outer: Block[OpRecord] = Block(0, (*inner.items, second))
    third = Repeat(2 * size, outer, moved("stages.0", "stages.1", "_c"))
    return replace(report, records=CallSequence([*outer.items, third]))


@pytest.mark.parametrize("report", [stack, nested, lambda: generated().prefill])
def test_calls_are_those_of_the_report(report: Callable[[], gf.Report], opened: Open) -> None:
    found = opened(report(), "#calls")
    panel = found.tab("Calls")
    more = panel.get_by_role("button", name="Show ")
    while more.is_visible():
        more.click()
    rows = found.table("Calls", "Calls of the pass forward").all()
    expected = [
        {
            "operator": f"{r.call.op}.{r.call.overload}".removesuffix(".default"),
            "call": str(r.call.index),
            "module": r.call.module_path or "(model)",
            "inputs": ", ".join(shape(meta.shape) for _, meta in r.call.tensors()),
            "outputs": ", ".join(shape(meta.shape) for meta in r.call.outputs),
            "source": r.call.source_line,
        }
        for r in report().records
    ]
    assert [{key: row[key] for key in expected[0]} for row in rows] == expected


def test_an_opened_call_is_explained(opened: Open) -> None:
    found = opened(stack(), "#calls")
    panel = found.tab("Calls")
    record = next(
        r for r in reversed(stack().records) if r.call.module_path == "stages.1.layers.3.up"
    )
    panel.get_by_role("searchbox").fill("stages.1.layers.3.up.")
    button = panel.get_by_role("button", name="aten::linear")
    assert button.get_attribute("aria-expanded") == "false"
    button.press("Enter")
    expect(button).to_have_attribute("aria-expanded", "true")
    expect(button).to_be_focused()
    labels = panel.locator(".detail dt").all_inner_texts()
    texts = panel.locator(".detail dd").all_inner_texts()
    shown = [
        word for pair in zip(labels, texts, strict=True) for text in pair for word in text.split()
    ]
    _, *lines = stack().explain(record).splitlines()
    assert shown == [word for line in lines for word in line.split()]
    assert "FLOPs = 2 * MACs" in panel.locator(".detail .formula").inner_text()
    button.click()
    assert panel.locator(".detail").count() == 0


def test_a_module_leads_to_its_calls(opened: Open) -> None:
    found = opened(stack())
    icicle = found.page.get_by_role("application")
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        icicle.press(key)
    found.page.get_by_role("button", name="Show its calls").click()
    calls = found.table("Calls", "Calls of the pass forward").column("module")
    assert calls == [
        r.call.module_path for r in stack().records if r.call.module_path.startswith("stages.1.")
    ]
