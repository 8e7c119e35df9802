"""Views of pages in a browser: two reports, the roofline, memory, what is not known, notebooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from browser import Open, Opened, Rows
from calls import Call
from html_reports import generated, named, stack, symbolic, trained
from playwright.sync_api import Browser, expect
from torch import nn

import graphflops as gf
from graphflops.render.escape import visible
from graphflops.render.roofline import roofline_points
from graphflops.render.units import quantity


def amount(text: str) -> float:
    """The number in a figure with a prefix."""
    number, _, unit = text.partition(" ")
    scale = {"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
    return float(number.replace(",", "")) * scale.get(unit[:1], 1)


def test_two_reports_are_compared(opened: Open) -> None:
    before, after = stack(1), stack()
    found = opened(before, compare=after)
    panel = found.tab("Compare")
    totals = {row["total"]: row for row in found.table("Compare", "Totals of both reports").all()}
    for name, figure in (("FLOPs", "flops"), ("MACs", "macs"), ("parameters", "params")):
        values = getattr(before, figure), getattr(after, figure)
        assert amount(totals[name]["before"]) == pytest.approx(values[0], rel=0.005)
        assert amount(totals[name]["after"]) == pytest.approx(values[1], rel=0.005)
        assert amount(totals[name]["difference"]) == pytest.approx(values[1] - values[0], rel=0.005)
        assert totals[name]["%"] == "+100%"
    diff = before.diff(after)
    modules = found.table("Compare", "modules that differ").all()
    assert {(row["modules"] or "(model)", row["change"]) for row in modules} == {
        (row.path or "(model)", row.kind) for row in diff.modules
    }
    operators = found.table("Compare", "operators that differ")
    assert operators.sort_by("difference") == "descending"
    assert operators.column("operators")[0] == "aten::linear"
    calls = found.table("Compare", "calls that differ").all()
    assert len(calls) == len(diff.calls) == len(after.records) - len(before.records)
    icicles = panel.get_by_role("application")
    expect(icicles).to_have_count(2)
    panel.get_by_role("radio", name="Parameters").check()
    expect(panel.get_by_role("application", name="Icicle of modules by Parameters")).to_have_count(
        2
    )


def test_either_of_two_reports_is_looked_at(opened: Open) -> None:
    found = opened(stack(1), compare=stack())
    for choice, report in ((0, stack(1)), (1, stack()), (0, stack(1))):
        found.page.get_by_label("Report shown").select_option(index=choice)
        found.tab("Calls")
        status = found.page.get_by_role("status").filter(has_text="calls")
        expect(status.last).to_have_text(f"{len(report.records)} calls")


def test_equal_reports_have_no_difference(opened: Open) -> None:
    panel = opened(stack(), compare=stack()).tab("Compare")
    assert panel.get_by_text("There is no difference.").count() == 3


def test_the_roofline_has_the_operators_of_each_pass(opened: Open) -> None:
    found = opened(trained(), device="a100")
    rows = found.table("Roofline", "Operators under the roofline").all()
    time = trained().time("a100")
    points = {(p.operator, p.pass_name): p for p in roofline_points(time)}
    assert {(row["operator"], row["pass"]) for row in rows} == set(points)
    for row in rows:
        point = points[row["operator"], row["pass"]]
        assert amount(row["FLOPs per byte"]) == pytest.approx(point.intensity, rel=0.01)
        assert amount(row["FLOP/s expected"]) == pytest.approx(point.expected, rel=0.01)
    shares = [float(row["share of the time"].strip("<%")) for row in rows]
    assert shares == sorted(shares, reverse=True)
    image = found.tab("Roofline").get_by_role("img")
    assert "A100" in (image.get_attribute("aria-label") or "")
    assert drawn_colors(found, "Roofline") > 3


def drawn_colors(found: Opened, tab: str) -> int:
    """Number of colours of a chart: more than one if anything is drawn."""
    canvas = found.tab(tab).locator("canvas").first
    count: int = canvas.evaluate("""(canvas) => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        const colors = new Set();
        for (let i = 0; i < data.length; i += 4) {
            if (data[i + 3] === 255) colors.add(data[i] * 65536 + data[i + 1] * 256 + data[i + 2]);
        }
        return colors.size;
    }""")
    return count


def test_memory_has_the_peak_and_what_is_alive(opened: Open) -> None:
    found = opened(trained())
    panel = found.tab("Memory")
    memory = trained().memory
    expect(panel.get_by_text(f"Peak {quantity(memory.peak, 'B')}")).to_be_visible()
    tensors = found.table("Memory", "Tensors that are alive at the peak, the largest first")
    assert tensors.column("tensor") == [tensor.name for tensor in memory.at_peak][:100]
    assert tensors.column("bytes") == [quantity(t.nbytes, "B") for t in memory.at_peak][:100]
    plain = drawn_colors(found, "Memory")
    box = panel.get_by_role("checkbox")
    was = box.is_checked()
    box.set_checked(not was)
    assert drawn_colors(found, "Memory") > 1 < plain


def test_what_is_not_known_is_said(opened: Open) -> None:
    found = opened(symbolic(), device="a100")
    flops = str(symbolic().flops)
    panel = found.tab("Modules")
    expect(panel.get_by_text(f"FLOPs is {flops}")).to_contain_text("report.subs(B=...)")
    assert panel.get_by_role("application").count() == 0
    assert found.table("Modules", "Modules").column("FLOPs")[0] == flops
    for tab in ("Roofline", "Memory"):
        expect(found.tab(tab).get_by_text("bind them by subs()")).to_be_visible()
    panel = found.tab("Modules")
    panel.get_by_role("radio", name="Parameters").check()
    expect(panel.get_by_role("application")).to_be_visible()


def test_unsupported_operators_are_said_first(opened: Open) -> None:
    @torch.library.custom_op("graphflops_page::swish", mutates_args=())
    def swish(x: torch.Tensor) -> torch.Tensor:
        return x * x.sigmoid()

    swish.register_fake(torch.empty_like)
    report = gf.count(Call(lambda x: swish(x) + 1), (torch.empty(3),), on_unknown="ignore")
    found = opened(report)
    note = found.page.get_by_role("note")
    assert note.inner_text().startswith("Lower bounds.")
    assert "graphflops_page::swish x 1" in note.inner_text()
    first = found.page.locator("main > *").first
    assert first.get_attribute("role") == "note"
    rows = {row["operator"]: row for row in found.table("Operators", "Operators").all()}
    assert rows["graphflops_page::swish"]["status"] == "unsupported"
    calls = found.table("Calls", "Calls of the pass forward").all()
    assert (calls[0]["FLOPs"], calls[0]["status"]) == ("", "unsupported")


@pytest.mark.parametrize(
    ("report", "names"),
    [
        (trained, ["forward", "backward"]),
        (generated, ["prefill", "decode, the last of 7 runs"]),
    ],
)
def test_every_pass_has_its_calls(report: Any, names: list[str], opened: Open) -> None:
    found = opened(report(), device="a100")
    panel = found.tab("Calls")
    choice = panel.get_by_role("combobox")
    assert choice.locator("option").all_inner_texts() == names
    passes = report().passes_by_name
    for name in names:
        choice.select_option(label=name)
        records = passes[name.partition(",")[0]].records(1.0)
        expect(panel.get_by_role("status")).to_have_text(f"{len(records)} calls")
        rows = Rows(panel.get_by_role("table")).all()
        flops = sum(amount(row["FLOPs"]) for row in rows)
        if len(rows) == len(records):
            assert flops == pytest.approx(sum(r.cost.flops for r in records), rel=0.01)


ODD: dict[str, tuple[Any, dict[str, Any]]] = {
    "There are no calls.": (lambda: gf.count(nn.Identity(), (torch.empty(3),)), {}),
    "before the first call": (lambda: gf.count(Call(torch.t), (torch.empty(3, 4),)), {}),
    "in the step of the optimizer": (trained, {"compare": trained}),
    "FLOPs is": (symbolic, {"compare": symbolic}),
    "decode, the last of 7 runs": (generated, {"compare": generated}),
    "it is not known of a graph that was exported": (
        lambda: gf.count(torch.export.export(nn.ReLU(), (torch.zeros(3),))),
        {},
    ),
}


@pytest.mark.parametrize("text", ODD)
def test_odd_reports_open_in_every_view(text: str, opened: Open) -> None:
    report, others = ODD[text]
    options = {name: other() for name, other in others.items()}
    found = opened(report(), device="a100", **options)
    seen = ""
    for tab in found.page.get_by_role("tab").all_inner_texts():
        seen += found.tab(tab).inner_text()
    assert text in seen


def test_a_page_reads_without_scripts(browser: Browser, tmp_path: Path) -> None:
    named().to_html(tmp_path / "report.html")
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto((tmp_path / "report.html").as_uri())
    assert (
        f"{named().flops:,}"
        in page.get_by_role("region", name="Totals and assumptions").inner_text()
    )
    modules = page.get_by_role("table").get_by_role("rowheader").all_inner_texts()
    assert modules == [visible(node.path) or "(model)" for node in named().root.walk()]


@pytest.mark.slow
@pytest.mark.parametrize(("color_scheme", "width"), [("light", 1300), ("dark", 400)])
def test_rules_of_accessibility_are_kept(color_scheme: str, width: int, opened: Open) -> None:
    options = {"compare": stack(), "device": "a100"}
    found = opened(stack(1), width=width, color_scheme=color_scheme, bypass_csp=True, **options)
    for tab in found.page.get_by_role("tab").all_inner_texts():
        panel = found.tab(tab)
        if tab == "Calls":
            panel.get_by_role("button", name="aten::linear").first.click()
        results = Axe().run(found.page)
        assert results.violations_count == 0, results.generate_report()
        assert len(results.response["passes"]) > 30


@pytest.mark.parametrize("width", [1300, 400])
def test_pages_scroll_up_and_down_only(width: int, opened: Open) -> None:
    found = opened(stack(1), width=width, compare=stack(), device="a100")
    for tab in found.page.get_by_role("tab").all_inner_texts():
        found.tab(tab)
        overflow = found.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert overflow <= 0, tab


def test_tabs_go_by_the_keyboard_and_the_address(opened: Open) -> None:
    found = opened(stack(), "#memory")
    selected = found.page.get_by_role("tab", selected=True)
    expect(selected).to_have_text("Memory")
    selected.press("ArrowRight")
    expect(selected).to_have_text("Modules")
    expect(selected).to_be_focused()
    selected.press("ArrowLeft")
    expect(selected).to_have_text("Memory")
    assert found.page.url.endswith("#memory")
    found.page.keyboard.press("Tab")
    expect(found.page.get_by_role("tabpanel", name="Memory")).to_be_focused()


def notebook(report: Any, browser: Browser, folder: Path, **options: Any) -> Opened:
    """What a notebook shows of a report, in a page."""
    path = folder / "notebook.html"
    path.write_text(
        f"<!DOCTYPE html><meta charset=utf-8><body id=app aria-busy=false>{report._repr_html_()}"
    )
    return Opened.at(browser.new_context(**options).new_page(), path)


@pytest.mark.parametrize("report", [named, trained, generated])
def test_a_notebook_has_an_icicle(report: Any, browser: Browser, tmp_path: Path) -> None:
    found = notebook(report(), browser, tmp_path)
    frame = found.page.frame_locator("iframe")
    icicle, details = frame.get_by_role("application"), frame.locator(".details")
    icicle.press("ArrowDown")
    expect(details).to_contain_text(report().root.children[0].path)
    frame.get_by_role("radio", name="Parameters").check()
    expect(frame.get_by_role("application", name="Icicle of modules by Parameters")).to_be_visible()
    app = frame.locator("#app")
    assert (
        app.evaluate("(app) => app.ownerDocument.documentElement.scrollHeight - innerHeight") <= 0
    )
    assert found.errors == []
    assert {url for url in found.requests if url != "about:srcdoc"} == {found.path.as_uri()}


def test_a_notebook_without_scripts_has_a_table(browser: Browser, tmp_path: Path) -> None:
    page = notebook(named(), browser, tmp_path, java_script_enabled=False).page
    assert f"{named().flops:,}" in page.locator("table").inner_text()
    expect(page.locator("details").first).to_contain_text("<script>")
    assert ">The icicle needs scripts" in (page.locator("iframe").get_attribute("srcdoc") or "")
