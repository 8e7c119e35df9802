// Roofline: operators by arithmetic intensity and the rate that is expected of them.

const PASS_COLORS = ["#4e79a7", "#f28e2b", "#59a14f", "#b07aa1"];
const LABELLED = 14;

function rooflineView(report) {
  const { time } = report;
  if (time.why) return { element: element("p", { class: "why" }, time.why) };
  const place = element("div", { class: "chart", role: "img", "aria-label": rooflineText(time) });
  const rows = time.points.map((point, id) => ({ ...point, id }));
  const table = dataTable({
    caption: "Operators under the roofline",
    noun: "operators in passes",
    rows,
    search: (row) => `${row.operator} ${row.pass_name}`,
    sort: [{ id: "share", desc: true }],
    columns: [
      {
        id: "operator",
        title: "operator",
        value: (row) => row.operator,
        cell: (row) => row.operator,
      },
      { id: "pass", title: "pass", value: (row) => row.pass_name, cell: (row) => row.pass_name },
      {
        id: "share",
        title: "share of the time",
        value: (row) => row.share,
        isNumber: true,
        cell: (row) => shareBar(row.share, 1),
      },
      ...[
        [
          "intensity",
          "FLOPs per byte",
          (value) => Number(value.toPrecision(3)).toLocaleString("en"),
        ],
        ["expected", "FLOP/s expected", (value) => quantity(Math.round(value), "FLOP/s")],
        ["bound", "FLOP/s at the roof", (value) => quantity(Math.round(value), "FLOP/s")],
      ].map(([id, title, text]) => ({
        id,
        title,
        isNumber: true,
        value: (row) => row[id],
        cell: (row) => text(row[id]),
      })),
    ],
  });
  const hint =
    "A point is an operator in a pass, as large as its share of the time; the line above it ends at the rate that the device allows. Operators with little or no arithmetic are not shown.";
  return {
    element: element("div", {}, element("p", { class: "hint" }, hint), place, table.element),
    draw: () => drawChart(place, () => rooflineSpec(time)),
  };
}

function rooflineText(time) {
  return `Roofline of ${time.device}: ${time.points.length} operators, ${time.expected} expected. The table below has the same figures.`;
}

function rooflineSpec({ points, roofs, bandwidth }) {
  const xs = [
    ...points.map((point) => point.intensity),
    ...roofs.map(({ rate }) => rate / bandwidth),
  ];
  const ys = [...points.map((point) => point.expected), ...roofs.map(({ rate }) => rate)];
  const [left, right] = [Math.min(...xs) / 3, Math.max(...xs) * 30];
  const [bottom, top] = [Math.min(...ys) / 4, Math.max(...ys) * 4];
  const highest = Math.max(...roofs.map(({ rate }) => rate), 0) || right * bandwidth;
  const start = Math.max(left, bottom / bandwidth);
  const lines = [
    { x: start, y: start * bandwidth, x2: highest / bandwidth, y2: highest },
    ...roofs.map(({ rate }) => ({ x: rate / bandwidth, y: rate, x2: right, y2: rate })),
  ];
  const names = [...new Set(points.map((point) => point.pass_name))];
  const byShare = [...points].sort((a, b) => b.share - a.share);
  const x = { scale: "x", field: "intensity" };
  return {
    height: 420,
    autosize: { type: "fit-x", contains: "padding" },
    padding: 8,
    data: [
      {
        name: "points",
        values: byShare.map((point, i) => ({
          ...point,
          label: i < LABELLED ? shortName(point.operator) : "",
          tip: `${point.operator}, ${point.pass_name}: ${quantity(Math.round(point.expected), "FLOP/s")}, ${percent(point.share, 1)} of the time`,
        })),
      },
      { name: "lines", values: lines },
      {
        name: "roofs",
        values: roofs.map(({ rate, name }) => ({
          rate,
          text: `${name}: ${quantity(Math.round(rate), "FLOP/s")}`,
        })),
      },
    ],
    scales: [
      { name: "x", type: "log", domain: [left, right], range: "width" },
      { name: "y", type: "log", domain: [bottom, top], range: "height" },
      { name: "size", type: "linear", domain: [0, 1], range: [30, 1400] },
      { name: "pass", type: "ordinal", domain: names, range: PASS_COLORS },
    ],
    axes: [
      {
        orient: "bottom",
        scale: "x",
        title: "arithmetic intensity in FLOPs per byte",
        grid: true,
        values: decades(left, right),
        encode: tickText("datum.value < 1 ? format(datum.value, '~g') : format(datum.value, ',')"),
      },
      {
        orient: "left",
        scale: "y",
        title: "FLOP/s",
        grid: true,
        values: decades(bottom, top),
        format: "~s",
      },
    ],
    legends:
      names.length > 1
        ? [{ fill: "pass", orient: "bottom", direction: "horizontal", symbolType: "circle" }]
        : [],
    marks: [
      {
        type: "rule",
        from: { data: "lines" },
        encode: {
          enter: { stroke: { value: color("muted") }, strokeWidth: { value: 1.5 } },
          update: {
            x: { scale: "x", field: "x" },
            y: { scale: "y", field: "y" },
            x2: { scale: "x", field: "x2" },
            y2: { scale: "y", field: "y2" },
          },
        },
      },
      {
        type: "text",
        from: { data: "roofs" },
        encode: {
          enter: {
            text: { field: "text" },
            align: { value: "right" },
            dy: { value: -5 },
            fontSize: { value: 11 },
          },
          update: {
            x: { signal: "width" },
            y: { scale: "y", field: "rate" },
            fill: { value: color("muted") },
          },
        },
      },
      {
        type: "rule",
        from: { data: "points" },
        encode: {
          update: {
            x,
            y: { scale: "y", field: "expected" },
            y2: { scale: "y", field: "bound" },
            stroke: { scale: "pass", field: "pass_name" },
            strokeWidth: { value: 1 },
          },
        },
      },
      {
        type: "symbol",
        name: "circles",
        from: { data: "points" },
        encode: {
          update: {
            x,
            y: { scale: "y", field: "expected" },
            size: { scale: "size", field: "share" },
            fill: { scale: "pass", field: "pass_name" },
            fillOpacity: { value: 0.8 },
            tooltip: { field: "tip" },
          },
        },
      },
      {
        type: "text",
        from: { data: "circles" },
        interactive: false,
        encode: {
          enter: {
            text: { field: "datum.label" },
            fontSize: { value: 11 },
            fill: { value: color("ink") },
          },
        },
        transform: [
          {
            type: "label",
            size: { signal: "[width, height]" },
            anchor: ["right", "left", "top", "bottom", "top-right", "bottom-right"],
            offset: [3],
            avoidMarks: ["circles"],
          },
        ],
      },
    ],
  };
}

/** Powers of ten within a range. */
function decades(low, high) {
  const first = Math.ceil(Math.log10(low));
  return Array.from(
    { length: Math.floor(Math.log10(high)) - first + 1 },
    (_, i) => 10 ** (first + i),
  );
}

function tickText(signal) {
  return { labels: { update: { text: { signal } } } };
}
