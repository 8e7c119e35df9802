// Icicle of modules: each as wide as its figure, below the module that it is part of.

const ROW = 30;
const PALETTE = [
  ..."#8ab8e6 #f6b26b #93c47d #e6cf5c #ea9999 #c9a6d6 #7fc4bb #d9b38c #f4a6c6 #b5bd61".split(" "),
];
const PLAIN = "#c4c8ce";
let icicles = 0;

/**
 * Make an icicle.
 *
 * @param root module tree
 * @param metric metric that it shows
 * @param colors colours by name of module, as `colorsByName` has them
 * @param onSelect function of the node that is selected
 * @param openCalls function that shows the calls of modules at a prefix of paths, if there is one
 * @returns the element, and `show` to select a module by its path
 */
function icicle(root, metric, colors, { onSelect = () => {}, openCalls } = {}) {
  const nodes = walk(root);
  const hintId = `icicle-keys-${++icicles}`;
  nodes.forEach((node, key) => (node.key = key));
  const whole = numeric(root[metric.id]);
  let [selected, zoomed] = [root, root];

  const place = element("div", {
    class: "icicle",
    role: "application",
    tabindex: "0",
    "aria-label": `Icicle of modules by ${metric.title}`,
    "aria-describedby": hintId,
    keydown: onKey,
  });
  const hint = element(
    "p",
    { class: "hint", id: hintId },
    "Each module stands below the one that it is part of, as wide as its figure. Click or press Enter to zoom in, ",
    "Escape to zoom out; arrow keys go from module to module.",
  );
  const crumbs = element("div", { class: "crumbs", role: "group", "aria-label": "Zoomed module" });
  const details = element("div", { class: "details", "aria-live": "polite" });
  const box = element("div", {}, hint, crumbs, place, legend(colors), details);
  const chart = { view: null };

  /** Draw it, once it is on the page. */
  function draw() {
    drawChart(place, () => icicleSpec(values(), root), listen);
  }

  function values() {
    return nodes.map((node) => {
      const parts = node.children.reduce(
        (total, child) => total + (numeric(child[metric.id]) ?? 0),
        0,
      );
      const figure = `${metric.text(node[metric.id])} ${percent(node[metric.id], whole)}`;
      return {
        key: node.key,
        parent: node.parent?.key ?? null,
        own: Math.max(0, (numeric(node[metric.id]) ?? 0) - parts),
        label: node.name,
        figure,
        tip: `${pathText(node)}: ${figure}`,
        color: colors.get(node.name) ?? PLAIN,
      };
    });
  }

  function listen(view) {
    chart.view = view;
    view.addEventListener("click", (_, item) => {
      const node = nodes[item?.datum?.key];
      if (!node) return;
      select(node);
      zoom(node === zoomed ? (node.parent ?? node) : node);
    });
    update();
  }

  function select(node) {
    selected = node;
    const isInSight = lineage(node).includes(zoomed) || lineage(zoomed).includes(node);
    if (!isInSight) zoomed = node.parent ?? root;
    update();
    onSelect(node);
  }

  /** Let a module take the whole width. */
  function zoom(node) {
    if (numeric(node[metric.id])) zoomed = node;
    update();
  }

  function update() {
    const spans = new Map(chart.view?.data("nodes").map((datum) => [datum.key, datum]) ?? []);
    const span = spans.get(zoomed.key);
    if (span && span.x1 > span.x0) {
      chart.view
        .signal("left", span.x0)
        .signal("right", span.x1)
        .signal("selected", selected.key)
        .run();
    }
    crumbs.replaceChildren(...lineage(zoomed).map(crumb));
    details.replaceChildren(...description(selected, root), ...(openCalls ? [callsButton()] : []));
  }

  function callsButton() {
    return element(
      "button",
      { type: "button", click: () => openCalls(selected.path && `${selected.path}.`) },
      "Show its calls",
    );
  }

  function crumb(node) {
    const attributes = { type: "button", click: () => zoom(node) };
    return element(
      "button",
      { ...attributes, "aria-current": node === zoomed ? "true" : null },
      node.name,
    );
  }

  function onKey(event) {
    const siblings = selected.parent?.children ?? [selected];
    const next = {
      ArrowRight: () => siblings[siblings.indexOf(selected) + 1],
      ArrowLeft: () => siblings[siblings.indexOf(selected) - 1],
      ArrowDown: () =>
        selected.children.find((child) => numeric(child[metric.id])) ?? selected.children[0],
      ArrowUp: () => selected.parent,
      Home: () => root,
    }[event.key];
    if (next) {
      const node = next();
      if (node) select(node);
    } else if (event.key === "Enter" || event.key === " ") zoom(selected);
    else if (event.key === "Escape" && zoomed.parent) zoom(zoomed.parent);
    else return;
    event.preventDefault();
  }

  /** Select a module by its path, without telling. */
  function show(path) {
    const isThere = (node) => path === node.path || path.startsWith(`${node.path}.`) || !node.path;
    selected = nodes.filter(isThere).at(-1) ?? root;
    update();
  }

  return { element: box, draw, show };
}

function lineage(node) {
  return node ? [...lineage(node.parent), node] : [];
}

function pathText(node) {
  const more = node.members > 1 ? ` and ${node.members - 1} equal` : "";
  return `${node.path || "(model)"}${more}`;
}

/** The figures of a module as elements. */
function description(node, root) {
  const figures = METRICS.filter(({ id }) => id in node).map(({ id, title, text }) => {
    const share = percent(node[id], root[id]);
    return element(
      "span",
      {},
      `${title} `,
      element("b", {}, text(node[id])),
      share && ` (${share})`,
    );
  });
  const name = element("strong", {}, pathText(node));
  const unknown = node.unknown ? element("em", {}, `unsupported calls: ${node.unknown}`) : null;
  return [name, element("span", {}, node.class), ...figures, unknown].filter(Boolean);
}

/** Colours of the names that have most; numbers of layers have none. */
function colorsByName(nodes, metric) {
  const totals = new Map();
  for (const { name, parent, [metric.id]: figure } of nodes) {
    if (parent && !/^\d/.test(name))
      totals.set(name, (totals.get(name) ?? 0) + (numeric(figure) ?? 0));
  }
  const names = [...totals].filter(([, total]) => total).sort((a, b) => b[1] - a[1]);
  return new Map(PALETTE.slice(0, names.length).map((shade, i) => [names[i][0], shade]));
}

function legend(colors) {
  const items = [...colors].map(([name, shade]) => {
    const swatch = element("i", {});
    swatch.style.background = shade;
    return element("li", {}, swatch, name);
  });
  return element("ul", { class: "legend", "aria-hidden": "true" }, items);
}

function icicleSpec(values, root) {
  const rows = Math.max(...walk(root).map((node) => lineage(node).length));
  const place = {
    x: { scale: "x", field: "x0" },
    x2: { scale: "x", field: "x1" },
    y: { signal: `datum.depth * ${ROW} + 1` },
    height: { value: ROW - 1 },
  };
  return {
    height: rows * ROW,
    padding: 0,
    autosize: "none",
    signals: [
      { name: "left", value: 0 },
      { name: "right", value: 1 },
      { name: "selected", value: root.key },
      { name: "height", update: `${rows * ROW + 2}` },
    ],
    data: [
      {
        name: "nodes",
        values,
        transform: [
          { type: "stratify", key: "key", parentKey: "parent" },
          { type: "partition", field: "own", size: [1, 1] },
        ],
      },
      {
        name: "shown",
        source: "nodes",
        transform: [
          {
            type: "formula",
            as: "room",
            expr: "(min(datum.x1, right) - max(datum.x0, left)) / (right - left) * width",
          },
          { type: "filter", expr: "datum.room > 0.5" },
        ],
      },
    ],
    scales: [
      {
        name: "x",
        type: "linear",
        domain: { signal: "[left, right]" },
        range: { signal: "[1, width - 1]" },
        clamp: true,
        zero: false,
      },
    ],
    marks: [
      {
        type: "rect",
        from: { data: "shown" },
        encode: {
          enter: {
            fill: { field: "color" },
            cursor: { value: "pointer" },
            tooltip: { field: "tip" },
          },
          update: {
            ...place,
            stroke: [
              { test: "datum.key === selected", value: color("ink") },
              { value: color("paper") },
            ],
            strokeWidth: [{ test: "datum.key === selected", value: 2.5 }, { value: 0.5 }],
            zindex: [{ test: "datum.key === selected", value: 1 }, { value: 0 }],
          },
          hover: { stroke: { value: color("ink") }, strokeWidth: { value: 1.5 } },
        },
      },
      {
        type: "text",
        from: { data: "shown" },
        interactive: false,
        encode: {
          enter: {
            fill: { value: "#14171a" },
            fontSize: { value: 12 },
            baseline: { value: "middle" },
          },
          update: {
            x: { signal: "scale('x', datum.x0) + 5" },
            y: { signal: `datum.depth * ${ROW} + ${ROW / 2 + 1}` },
            limit: { signal: "datum.room - 8" },
            text: {
              signal:
                "datum.room > 190 ? datum.label + '   ' + datum.figure : datum.room > 22 ? datum.label : ''",
            },
          },
        },
      },
    ],
  };
}
