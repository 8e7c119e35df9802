// Memory over the calls of a pass, by what it is for, and the tensors that are alive at the peak.

const CONSTANT_SHARE = 0.6;

const CATEGORY_COLORS = {
  parameters: "#4e79a7",
  buffers: "#9c755f",
  optimizer: "#b07aa1",
  gradients: "#e15759",
  inputs: "#9aa0a6",
  kv_cache: "#76b7b2",
  activations: "#59a14f",
  temporaries: "#f28e2b",
};

function memoryView(report) {
  const { memory } = report;
  if (memory.why) return { element: element("p", { class: "why" }, memory.why) };
  const place = element("div", { class: "chart", role: "img", "aria-label": memoryText(memory) });
  const tensors = memory.tensors.map(
    ([name, category, nbytes, dtype, operator, path, line], id) => ({
      id,
      name,
      category: category.replaceAll("_", " "),
      nbytes,
      dtype,
      operator,
      path,
      line,
    }),
  );
  const word = (id, title) => ({ id, title, value: (row) => row[id], cell: (row) => row[id] });
  const table = dataTable({
    caption: "Tensors that are alive at the peak, the largest first",
    noun: "tensors",
    rows: tensors,
    search: (row) =>
      `${row.name} ${row.category} ${row.dtype} ${row.operator} ${row.path} ${row.line}`,
    columns: [
      word("name", "tensor"),
      word("category", "category"),
      {
        id: "nbytes",
        title: "bytes",
        isNumber: true,
        value: (row) => numeric(row.nbytes),
        cell: (row) => quantity(row.nbytes, "B"),
      },
      { id: "share", title: "share", cell: (row) => shareBar(row.nbytes, memory.peak) },
      word("dtype", "dtype"),
      word("operator", "made by"),
      word("path", "module"),
      word("line", "source"),
    ],
  });
  const left = memory.number_of_tensors - tensors.length;
  const constant = sum(Object.values(memory.categories).map((column) => Math.min(...column)));
  const rest = element("input", { type: "checkbox", change: () => chart.redraw() });
  rest.checked = constant > CONSTANT_SHARE * numeric(memory.peak);
  let chart = null;
  return {
    element: element(
      "div",
      {},
      element("p", {}, memoryText(memory)),
      element(
        "label",
        { class: "tools" },
        rest,
        ` without what is there throughout, ${quantity(constant, "B")}`,
      ),
      place,
      element("h3", {}, "Alive at the peak"),
      left > 0 &&
        element(
          "p",
          { class: "hint" },
          `The ${tensors.length} largest; ${exact(left)} smaller ones are left out.`,
        ),
      table.element,
    ),
    draw: () => (chart = drawChart(place, () => memorySpec(memory, rest.checked))),
  };
}

function memoryText(memory) {
  const at = memory.operator
    ? `at call ${exact(memory.call)}, in ${memory.operator} of ${memory.path || "(model)"}`
    : memory.call < 0
      ? "before the first call"
      : "in the step of the optimizer";
  return `Peak ${quantity(memory.peak, "B")} on ${memory.device} ${at}: ${memory.kind}.`;
}

function memorySpec({ calls, categories, call, peak, backward }, isVarying) {
  const names = Object.keys(CATEGORY_COLORS).filter((name) => name in categories);
  const floors = names.map((name) => (isVarying ? Math.min(...categories[name]) : 0));
  const values = names.flatMap((name, order) =>
    categories[name].map((nbytes, i) => {
      return {
        call: calls[i],
        name: name.replaceAll("_", " "),
        order,
        nbytes: nbytes - floors[order],
      };
    }),
  );
  const titles = names.map((name) => name.replaceAll("_", " "));
  const highest = numeric(peak) - sum(floors);
  return {
    height: 320,
    autosize: { type: "fit-x", contains: "padding" },
    padding: 8,
    data: [
      {
        name: "table",
        values,
        transform: [
          { type: "stack", groupby: ["call"], sort: { field: "order" }, field: "nbytes" },
        ],
      },
      { name: "backward", values: backward === null ? [] : [{ call: backward }] },
      { name: "peak", values: [{ call, peak: highest, text: `peak ${quantity(peak, "B")}` }] },
    ],
    scales: [
      {
        name: "x",
        type: "linear",
        domain: [calls[0], Math.max(calls.at(-1), calls[0] + 1)],
        range: "width",
        zero: false,
      },
      { name: "y", type: "linear", domain: [0, (highest || 1) * 1.12], range: "height" },
      {
        name: "color",
        type: "ordinal",
        domain: titles,
        range: names.map((name) => CATEGORY_COLORS[name]),
      },
    ],
    axes: [
      { orient: "bottom", scale: "x", title: "operator call", tickCount: 8 },
      { orient: "left", scale: "y", title: "bytes", format: "~s", grid: true, tickCount: 5 },
    ],
    legends: [{ fill: "color", orient: "bottom", direction: "horizontal", symbolType: "square" }],
    marks: [
      {
        type: "group",
        from: { facet: { name: "series", data: "table", groupby: "name" } },
        marks: [
          {
            type: "area",
            from: { data: "series" },
            encode: {
              update: {
                interpolate: { value: "step-after" },
                x: { scale: "x", field: "call" },
                y: { scale: "y", field: "y0" },
                y2: { scale: "y", field: "y1" },
                fill: { scale: "color", field: "name" },
              },
            },
          },
        ],
      },
      {
        type: "rule",
        from: { data: "backward" },
        encode: {
          enter: {
            stroke: { value: color("ink") },
            strokeDash: { value: [2, 3] },
            y: { value: 0 },
          },
          update: { x: { scale: "x", field: "call" }, y2: { signal: "height" } },
        },
      },
      {
        type: "text",
        from: { data: "backward" },
        encode: {
          enter: {
            text: { value: "backward" },
            dx: { value: 4 },
            y: { value: 10 },
            fontSize: { value: 11 },
          },
          update: { x: { scale: "x", field: "call" }, fill: { value: color("ink") } },
        },
      },
      {
        type: "symbol",
        from: { data: "peak" },
        encode: {
          update: {
            x: { scale: "x", field: "call" },
            y: { scale: "y", field: "peak" },
            shape: { value: "triangle-down" },
            fill: { value: color("ink") },
          },
        },
      },
      {
        type: "text",
        from: { data: "peak" },
        encode: {
          enter: {
            fontSize: { value: 12 },
            fill: { value: color("ink") },
            dy: { value: -10 },
            text: { field: "text" },
          },
          update: {
            x: { scale: "x", field: "call" },
            y: { scale: "y", field: "peak" },
            align: { signal: "scale('x', datum.call) > width / 2 ? 'right' : 'left'" },
          },
        },
      },
    ],
  };
}
