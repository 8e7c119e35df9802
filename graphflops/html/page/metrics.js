// The choice of a metric.

let choices = 0;

/**
 * Make radio buttons for metrics.
 *
 * @param metrics the metrics, the one chosen at first in front
 * @param onChange function of the metric that is chosen
 */
function metricChoice(metrics, onChange) {
  const name = `metric-${++choices}`;
  const radios = metrics.map((metric, i) => {
    const attributes = { type: "radio", name, value: metric.id, checked: i === 0 };
    return element(
      "label",
      {},
      element("input", { ...attributes, change: () => onChange(metric) }),
      metric.title,
    );
  });
  return element("fieldset", {}, element("legend", { class: "hidden" }, "Figure"), radios);
}

/** The metrics that columns of modules have. */
function metricsOf(columns) {
  return METRICS.filter(({ id }) => id in columns);
}

/** Why there is no chart of a metric. */
function whyEmpty(root, metric, symbols) {
  if (numeric(root[metric.id]) !== undefined) return `${metric.title}: nothing.`;
  const numbers = symbols.map((name) => `${name}=...`).join(", ");
  return `${metric.title} is ${root[metric.id]}: a chart shows numbers. Put them in: report.subs(${numbers}).`;
}
