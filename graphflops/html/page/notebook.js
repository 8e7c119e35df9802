// Starts the icicle of a notebook.

async function main() {
  await start("charts");
  const columns = JSON.parse(await unpack("data"));
  const root = mergeEqual(moduleTree(columns));
  const metrics = metricsOf(columns).filter(({ id }) => numeric(root[id]));
  const place = element("div", {});
  const app = document.getElementById("app");

  function showMetric(metric) {
    const chart = icicle(root, metric, colorsByName(walk(root), metric));
    place.replaceChildren(chart.element);
    chart.draw();
  }

  app.replaceChildren(metricChoice(metrics, showMetric), place);
  showMetric(metrics[0]);
  app.setAttribute("aria-busy", "false");
}

main().catch((error) => {
  document.getElementById("app").textContent = `The icicle could not be drawn: ${error}`;
});
