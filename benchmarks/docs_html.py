"""Pictures of the page on reports in a browser: ``python -m benchmarks.docs_html``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, Page

import graphflops as gf
from benchmarks.browser import READY, chromium
from graphflops.models import Options, resolve

FOLDER = Path(__file__).parents[1] / "docs" / "tasks"
_LLAMA = "hf:examples/configs/llama-3-8b"


def _count(name: str, **options: Any) -> gf.Report:
    workload = resolve(name, Options(**options))
    return gf.count(workload.model, workload.args, workload.kwargs)


def _open(
    browser: Browser, path: Path, tab: str, scheme: Literal["light", "dark"] = "light"
) -> Page:
    page = browser.new_page(viewport={"width": 1100, "height": 700}, color_scheme=scheme)
    page.goto(path.as_uri())
    page.locator(READY).wait_for()
    page.get_by_role("tab", name=tab, exact=True).click()
    return page


def _picture(page: Page, name: str, top: str = "[role=tablist]", height: int = 700) -> None:
    """Write a picture of the page from an element on."""
    start = page.locator(top).evaluate("(e) => e.getBoundingClientRect().top + scrollY")
    page.screenshot(
        path=FOLDER / f"{name}.png",
        full_page=True,
        clip={"x": 0, "y": start, "width": 1100, "height": height},
    )
    page.close()


def main() -> None:
    """Draw a forward pass of Llama 3 8B, a training step of ResNet-50, and two ResNets."""
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        llama, step, pair = (Path(folder) / f"{name}.html" for name in ("llama", "step", "pair"))
        _count(_LLAMA, seq_len=2048).to_html(llama, device="h100-sxm", dtype="bfloat16")
        resnet = resolve("torchvision:resnet50", Options(batch_size=32))
        resnet.model.train()
        trained = gf.count_training(resnet.model, resnet.args, resnet.kwargs, optimizer="adamw")
        trained.to_html(step, device="h100-sxm", dtype="bfloat16")
        resnets = [_count(f"torchvision:resnet{n}", batch_size=8) for n in (34, 50)]
        resnets[0].to_html(pair, device="h100-sxm", dtype="bfloat16", compare=resnets[1])

        _picture(_open(browser, llama, "Modules"), "html_modules", top="h1", height=1190)
        calls = _open(browser, llama, "Calls")
        calls.get_by_role("searchbox", name="Search calls").fill("layers.7. linear")
        calls.get_by_role("button", name="aten::linear").nth(2).click()
        _picture(calls, "html_calls", height=560)
        _picture(_open(browser, step, "Roofline", "dark"), "html_roofline", height=625)
        _picture(_open(browser, step, "Memory"), "html_memory", height=560)
        _picture(_open(browser, pair, "Compare"), "html_compare", height=760)


if __name__ == "__main__":
    main()
