// Modules: the icicle, and the tree with all figures.

const OPEN_LEVELS = 3;

function modulesView(report, openCalls) {
  const root = moduleTree(report.modules);
  const metrics = metricsOf(report.modules);
  const merge = element("input", {
    type: "checkbox",
    checked: true,
    change: () => showMetric(metric),
  });
  const place = element("div", {});
  let [metric] = metrics;
  let chart = null;

  const share = {
    id: "share",
    title: "share",
    cell: (node) => shareBar(node[metric.id], root[metric.id]),
  };
  const figures = metrics.map(({ id, title, text }) => ({
    id,
    title,
    isNumber: true,
    value: (node) => numeric(node[id]),
    cell: (node) => element("span", { title: exact(node[id]) }, text(node[id])),
  }));
  const table = dataTable({
    caption: "Modules",
    noun: "modules",
    rows: [root],
    children: (node) => node.children,
    isOpen: (node) => node.children.length && lineage(node).length < OPEN_LEVELS,
    search: (node) => `${node.path} ${node.class}`,
    onSelect: (node) => chart?.show(node.path),
    columns: [
      { id: "name", title: "module", value: (node) => node.path, cell: (node) => node.name },
      { id: "class", title: "class", value: (node) => node.class, cell: classOf },
      share,
      ...figures,
      {
        id: "calls",
        title: "runs",
        isNumber: true,
        value: (node) => numeric(node.calls),
        cell: (node) => exact(node.calls),
      },
    ],
  });

  function showMetric(chosen) {
    metric = chosen;
    const whole = numeric(root[metric.id]);
    table.render();
    if (!whole) {
      place.replaceChildren(element("p", { class: "why" }, whyEmpty(root, metric, report.symbols)));
      chart = null;
      return;
    }
    const shown = merge.checked ? mergeEqual(root) : root;
    const onSelect = (node) => table.reveal(node.id);
    chart = icicle(shown, metric, colorsByName(walk(shown), metric), { onSelect, openCalls });
    place.replaceChildren(chart.element);
    chart.draw();
  }

  const view = element(
    "div",
    {},
    element(
      "div",
      { class: "tools" },
      metricChoice(metrics, showMetric),
      element("label", {}, merge, " equal layers as one"),
    ),
    missingMetrics(report),
    place,
    table.element,
  );
  return { element: view, draw: () => showMetric(metric) };
}

/** Sentences on the metrics that a report does not have. */
function missingMetrics(report) {
  const missing = METRICS.filter(({ id }) => !(id in report.modules));
  return missing.map(({ id, title }) => {
    const why = id === "seconds" ? report.time.why : report.memory.why;
    return element("p", { class: "why" }, `${title}: ${why}`);
  });
}

function classOf(node) {
  const unknown = node.unknown
    ? element("em", { class: "unknown" }, ` ${node.unknown} unsupported`)
    : null;
  return element("span", { title: node.extra || null }, node.class, unknown);
}

/** A bar and a text of a share. */
function shareBar(part, whole) {
  const text = percent(part, whole);
  if (!text) return "";
  const bar = element("i", {});
  bar.style.width = `${Math.min(100, (100 * numeric(part)) / numeric(whole))}%`;
  return element(
    "span",
    { class: "share" },
    element("span", { class: "bar", "aria-hidden": "true" }, bar),
    text,
  );
}
