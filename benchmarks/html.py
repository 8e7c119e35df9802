"""Size of the pages of reports, and time until they are there: ``python -m benchmarks.html``.

Each page is opened in new windows of one browser without a window. It is there when its totals,
its icicle and its table of modules are, from the start of the navigation on; its calls are there
when the first rows of all calls are. Medians and largest of the rounds. Writes
``benchmarks/results/html.json`` and the table of ``docs/tasks/html.md``.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser
from tabulate import tabulate

import graphflops as gf
from benchmarks.browser import READY, chromium
from benchmarks.results import environment, fill
from graphflops.models import Options, resolve
from graphflops.models.prepare_training import TrainingOptions, prepare_training

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "html.json"
PAGE = ROOT / "docs" / "tasks" / "html.md"
LARGEST = "hf:examples/configs/llama-3.1-405b"
DEVICE = "h100-sxm"
ROUNDS = 9


def _forward(name: str, **options: Any) -> Callable[[Path], gf.Report]:
    def write(path: Path) -> gf.Report:
        workload = resolve(name, Options(**options))
        report = gf.count(workload.model, workload.args, workload.kwargs)
        report.to_html(path, device=DEVICE)
        return report

    return write


def _training(path: Path) -> gf.TrainingReport:
    workload = resolve(LARGEST, Options(seq_len=2048))
    step = prepare_training(workload, TrainingOptions())
    report = gf.count_training(step.model, step.args, step.kwargs, optimizer="adamw")
    report.to_html(path, device=DEVICE)
    return report


def _compared(path: Path) -> gf.Report:
    before, after = (
        gf.count(workload.model, workload.args, workload.kwargs)
        for workload in (resolve(LARGEST, Options(seq_len=n)) for n in (2048, 4096))
    )
    before.to_html(path, device=DEVICE, compare=after, workload="any")
    return before


PAGES: dict[str, Callable[[Path], gf.Report | gf.TrainingReport]] = {
    "ResNet-50": _forward("torchvision:resnet50"),
    "Swin-B": _forward("torchvision:swin_b"),
    "Llama 3 8B": _forward("hf:examples/configs/llama-3-8b", seq_len=2048),
    "Llama 3.1 405B": _forward(LARGEST, seq_len=2048),
    "Llama 3.1 405B, training": _training,
    "Llama 3.1 405B, 2,048 and 4,096 tokens compared": _compared,
}


def main() -> None:
    """Write the pages, open them, save the figures."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        for number, (name, write) in enumerate(PAGES.items()):
            path = Path(folder) / f"{number}.html"
            start = time.perf_counter()
            report = write(path)
            written = time.perf_counter() - start
            opened = [_opened(browser, path) for _ in range(ROUNDS)]
            rows.append(
                {
                    "page": name,
                    "calls": len(report.records),
                    "modules": len(list(report.root.walk())),
                    "counted_and_written": written,
                    "bytes": path.stat().st_size,
                    "ready": [ready for ready, _ in opened],
                    "calls_ready": [calls for _, calls in opened],
                }
            )
            print(rows[-1], flush=True)
        versions = {
            **environment(("torch", "transformers", "playwright")),
            "chromium": browser.version,
        }
    RESULTS.write_text(json.dumps({"environment": versions, "rows": rows}, indent=1) + "\n")
    fill(PAGE, "html", table(rows))


def _opened(browser: Browser, path: Path) -> tuple[float, float]:
    """Return the seconds until a page is there, and from a click until its calls are."""
    context = browser.new_context(viewport={"width": 1300, "height": 900})
    page = context.new_page()
    page.goto(path.as_uri())
    page.locator(READY).wait_for()
    mark = "performance.getEntriesByName('graphflops-ready')[0].startTime / 1000"
    ready = page.evaluate(mark)
    calls = page.evaluate("""async () => {
        const start = performance.now();
        document.getElementById("tab-calls").click();
        await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
        if (!document.querySelector("#calls tbody tr")) throw new Error("there are no calls");
        return (performance.now() - start) / 1000;
    }""")
    context.close()
    return ready, calls


def table(rows: list[dict[str, Any]]) -> str:
    """Return the figures as a Markdown table."""
    cells = [
        (
            row["page"],
            f"{row['calls']:,}",
            f"{row['modules']:,}",
            f"{row['bytes'] / 1e6:.2f} MB",
            _seconds(row["ready"]),
            _seconds(row["calls_ready"]),
        )
        for row in rows
    ]
    headers = ("page", "calls", "modules", "size", "opens in", "calls in")
    return tabulate(cells, headers, "github", disable_numparse=True)


def _seconds(rounds: list[float]) -> str:
    return f"{statistics.median(rounds):.2f} s (at most {max(rounds):.2f} s)"


if __name__ == "__main__":
    main()
