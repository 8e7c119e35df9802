// Two reports side by side: totals, icicles, and what differs.

const TOTALS = {
  flops: ["FLOPs", (value) => quantity(value, "FLOPs")],
  macs: ["MACs", (value) => quantity(value, "MACs")],
  transcendentals: ["transcendentals", exact],
  bytes: ["bytes moved", (value) => quantity(value, "B")],
  params: ["parameters", (value) => METRICS[2].text(value)],
  params_trainable: ["trainable", (value) => METRICS[2].text(value)],
  unsupported: ["unsupported calls", exact],
};

function compareView(reports, diff) {
  const roots = reports.map((report) => mergeEqual(moduleTree(report.modules)));
  const places = reports.map(() => element("div", {}));
  const metrics = metricsOf(reports[0].modules).filter(({ id }) => id in reports[1].modules);

  function showMetric(metric) {
    const colors = colorsByName(roots.flatMap(walk), metric);
    roots.forEach((root, i) => {
      if (!numeric(root[metric.id])) {
        places[i].replaceChildren(
          element("p", { class: "why" }, whyEmpty(root, metric, reports[i].symbols)),
        );
        return;
      }
      const chart = icicle(root, metric, colors);
      places[i].replaceChildren(chart.element);
      chart.draw();
    });
  }

  const sides = reports.map((report, i) =>
    element(
      "section",
      {},
      element("h3", {}, `${i ? "After" : "Before"}: ${report.model}`),
      places[i],
    ),
  );
  const view = element(
    "div",
    {},
    totalsTable(diff.totals),
    metricChoice(metrics, showMetric),
    element("div", { class: "sides" }, sides),
    section("Modules that differ", changes(diff.modules, "modules", moduleChange)),
    section("Operators that differ", changes(diff.operators, "operators", operatorChange)),
    section("Calls that differ", changes(diff.calls, "calls", callChange)),
  );
  return { element: view, draw: () => showMetric(metrics[0]) };
}

function section(title, content) {
  return element("section", {}, element("h3", {}, title), content);
}

function totalsTable(totals) {
  const rows = Object.entries(TOTALS).map(([id, [title, text]]) => {
    const { before, after } = totals[id];
    const cells = [text(before), text(after), signed(before, after, text), increase(before, after)];
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, title),
      cells.map((cell) => element("td", { class: "number" }, cell)),
    );
  });
  const head = ["total", "before", "after", "difference", "%"].map((title, i) =>
    element("th", { scope: "col", class: i ? "number" : null }, title),
  );
  const table = element(
    "table",
    {},
    element("caption", { class: "hidden" }, "Totals of both reports"),
    element("thead", {}, element("tr", {}, head)),
    element("tbody", {}, rows),
  );
  return element(
    "div",
    { class: "scroll totals", role: "region", tabindex: "0", "aria-label": "Totals" },
    table,
  );
}

/** The table of what differs; `describe` gives the name of a change and words on it. */
function changes(rows, noun, describe) {
  if (!rows.length) return element("p", {}, "There is no difference.");
  const bytes = (cost) => sum([cost.bytes_read, cost.bytes_written]);
  const figure = (id, title, value, cell) => ({ id, title, isNumber: true, value, cell });
  return dataTable({
    caption: `${noun} that differ`,
    noun,
    rows: rows.map((row, id) => ({ ...row, ...describe(row), id })),
    search: (row) => `${row.title} ${row.words} ${row.change}`,
    columns: [
      { id: "title", title: noun, value: (row) => row.title, cell: (row) => row.title },
      {
        id: "change",
        title: "change",
        value: (row) => row.change,
        cell: (row) => element("span", { class: row.change }, row.change),
      },
      { id: "words", title: "what", value: (row) => row.words, cell: (row) => row.words },
      figure(
        "before",
        "FLOPs before",
        (row) => numeric(row.before.flops),
        (row) => quantity(row.before.flops),
      ),
      figure(
        "after",
        "after",
        (row) => numeric(row.after.flops),
        (row) => quantity(row.after.flops),
      ),
      figure(
        "difference",
        "difference",
        (row) => difference(row.before.flops, row.after.flops),
        (row) => signed(row.before.flops, row.after.flops, quantity),
      ),
      figure(
        "percent",
        "%",
        (row) => relative(row.before.flops, row.after.flops),
        (row) => increase(row.before.flops, row.after.flops),
      ),
      figure(
        "bytes",
        "bytes difference",
        (row) => difference(bytes(row.before), bytes(row.after)),
        (row) => signed(bytes(row.before), bytes(row.after), (value) => quantity(value, "B")),
      ),
    ],
  }).element;
}

function moduleChange({ path, before_path: before, class: name }) {
  const paths = [...new Set([before, path].filter((each) => each !== null))];
  return { title: paths.map((each) => each || "(model)").join(" → "), words: name };
}

function operatorChange({ operator, calls }) {
  const words =
    calls.before === calls.after
      ? `${calls.after} calls`
      : `${calls.before} → ${calls.after} calls`;
  return { title: operator, words };
}

function callChange({ pass, module, operator, shapes }) {
  return { title: operator, words: `${pass}, ${module || "(model)"}: ${shapes}` };
}

function difference(before, after) {
  const [a, b] = [numeric(before), numeric(after)];
  return a === undefined || b === undefined ? undefined : b - a;
}

function relative(before, after) {
  const increase = difference(before, after);
  return increase === undefined || !numeric(before)
    ? undefined
    : (100 * increase) / numeric(before);
}

function signed(before, after, text) {
  const value = difference(before, after);
  if (value === undefined) return "";
  return value > 0 ? `+${text(value)}` : text(value);
}

function increase(before, after) {
  const value = relative(before, after);
  if (value === undefined) return "";
  return `${value > 0 ? "+" : ""}${Number(value.toFixed(2))}%`;
}
