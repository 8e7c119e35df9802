// Starts the page.

const VIEWS = [
  ["modules", "Modules", modulesView],
  ["operators", "Operators", operatorsView],
  ["calls", "Calls", callsView],
  ["roofline", "Roofline", rooflineView],
  ["memory", "Memory", memoryView],
];

async function main() {
  await Promise.all([start("charts"), start("tables")]);
  const { reports, diff } = JSON.parse(await unpack("data"));
  const app = document.getElementById("app");

  function show(report) {
    const compare = diff
      ? [{ id: "compare", title: "Compare", make: () => compareView(reports, diff) }]
      : [];
    const views = VIEWS.map(([id, title, make]) => ({
      id,
      title,
      make: () => make(report, openCalls),
    }));
    const openCalls = (prefix) => {
      made.show("calls").find(prefix);
      document.getElementById("tab-calls").focus();
    };
    const made = tabs([...compare, ...views]);
    app.replaceChildren(...(diff ? [reportChoice(reports, show, report)] : []), made.element);
    made.first();
  }

  show(reports[0]);
  app.setAttribute("aria-busy", "false");
  performance.mark("graphflops-ready");
}

/** The choice of the report that is shown, where there are two. */
function reportChoice(reports, onChange, shown) {
  const options = reports.map((report, i) => {
    const title = `${i ? "after" : "before"}: ${report.model}`;
    return element("option", { value: i, selected: report === shown }, title);
  });
  const choice = element(
    "select",
    { change: (event) => onChange(reports[event.target.value]) },
    options,
  );
  return element("label", { class: "tools" }, "Report shown ", choice);
}

main().catch((error) => {
  const trouble = document.getElementById("trouble");
  trouble.textContent =
    typeof DecompressionStream === "undefined"
      ? "This browser is too old for the charts and tables of this page, which need one of 2023 or later."
      : `The charts and tables of this page could not be made: ${error}`;
  trouble.hidden = false;
});
