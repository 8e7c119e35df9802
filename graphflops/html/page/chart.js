// Charts by Vega, on a canvas. Expressions are interpreted: the page's policy forbids to make code.

/**
 * Draw a chart that is as wide as its place, and drawn again when the page turns light or dark.
 *
 * @param place element to draw in, which says what the chart shows to those who do not see it
 * @param makeSpec function that returns the specification in Vega's terms, in the colours of now
 * @param prepare function of each new view, once it has run, to listen to its events
 * @returns an object whose `view` is the one on the page
 */
function drawChart(place, makeSpec, prepare = () => {}) {
  const chart = { view: null, redraw };
  const canvas = element("div", { "aria-hidden": "true" }); // Vega gives it a role and a label
  place.replaceChildren(canvas);

  function redraw() {
    chart.view?.finalize();
    const runtime = charts.parse(makeSpec(), config(), { ast: true });
    chart.view = new charts.View(runtime, {
      renderer: "canvas",
      container: canvas,
      hover: true,
      expr: charts.expressionInterpreter,
    });
    chart.view.width(width());
    chart.view.run();
    prepare(chart.view);
  }

  const width = () => Math.max(280, place.clientWidth);
  const observer = new ResizeObserver(() => {
    if (!place.isConnected) observer.disconnect();
    else if (place.clientWidth && chart.view.width() !== width()) chart.view.width(width()).run();
  });
  observer.observe(place);
  onColorScheme(() => place.isConnected && redraw());
  redraw();
  return chart;
}

function config() {
  const ink = color("ink");
  const axis = {
    labelColor: ink,
    titleColor: ink,
    domainColor: color("muted"),
    tickColor: color("muted"),
  };
  return {
    background: null,
    font: "system-ui, sans-serif",
    axis: {
      ...axis,
      gridColor: color("line"),
      labelFontSize: 11,
      titleFontSize: 12,
      titleFontWeight: "normal",
    },
    legend: { labelColor: ink, titleColor: ink, labelFontSize: 12 },
    text: { fill: ink },
    title: { color: ink },
  };
}
