// Calls one by one, each with its formula and the line of the model that makes it.

function callsView(report) {
  if (!report.passes.length) return { element: element("p", {}, "There are no calls."), find() {} };
  const tables = new Map();
  const place = element("div", {});
  let terms = "";

  function show(number) {
    if (!tables.has(number)) tables.set(number, callsTable(report, report.passes[number]));
    const table = tables.get(number);
    place.replaceChildren(table.element);
    table.find(terms);
  }

  const options = report.passes.map((pass, i) => element("option", { value: i }, passTitle(pass)));
  const choice = element("select", { change: () => show(Number(choice.value)) }, options);
  const label = element("label", { class: "tools" }, "Pass ", choice);

  function find(text) {
    terms = text;
    show(Number(choice.value));
  }

  return {
    element: element("div", {}, report.passes.length > 1 && label, place),
    draw: () => show(Number(choice.value)),
    find,
  };
}

function passTitle({ name, runs }) {
  return runs > 1 ? `${name}, the last of ${runs.toLocaleString("en")} runs` : name;
}

function callsTable(report, pass) {
  const rows = unfold(pass);
  rows.forEach((row, id) => (row.id = id));
  const figure = (id, title, value, text) => ({
    id,
    title,
    isNumber: true,
    value: (row) => numeric(value(row)),
    cell: (row) => (row.status === "unknown" ? "" : text(value(row))),
  });
  const word = (id, title, cell = (row) => row[id]) => ({
    id,
    title,
    value: (row) => row[id],
    cell,
  });
  return dataTable({
    caption: `Calls of the pass ${pass.name}`,
    noun: "calls",
    rows,
    search: (row) =>
      `${row.operator} ${row.path}. ${row.line} ${row.name} ${statusWord(row.status)}`,
    detail: (row) => explanation(report, row),
    columns: [
      word("operator", "operator"),
      {
        id: "index",
        title: "call",
        isNumber: true,
        value: (row) => row.index,
        cell: (row) => String(row.index),
      },
      word("path", "module", (row) => row.path || "(model)"),
      word("inputs", "inputs"),
      word("outputs", "outputs"),
      figure(
        "flops",
        "FLOPs",
        (row) => row.flops,
        (value) => quantity(value, "FLOPs"),
      ),
      figure(
        "bytes",
        "bytes",
        (row) => bytesOf({ bytes_read: row.read, bytes_written: row.written }),
        (value) => quantity(value, "B"),
      ),
      ...(report.modules.seconds ? [figure("seconds", "time", (row) => row.seconds, seconds)] : []),
      word("status", "status", (row) => statusText(row.status)),
      word("line", "source"),
    ],
  });
}

function statusWord(status) {
  return status === "unknown" ? "unsupported" : status;
}

/** Where a call is made, its formula and the numbers put into it. */
function explanation(report, row) {
  const { lines, parts } = report.explanations[row.explanation];
  const where = [
    ["module", row.path || "(model)"],
    ["node", `${row.name}, call ${row.index}`],
    ...(row.line ? [["source", row.line]] : []),
  ];
  const grouped = new Map();
  for (const [label, text] of [...where, ...lines])
    grouped.set(label, [...(grouped.get(label) ?? []), text]);
  const items = [...grouped].map(([label, texts]) => [
    element("dt", {}, label),
    element("dd", { class: label === "formula" ? "formula" : null }, texts.join("\n")),
  ]);
  const list = element("dl", {}, items);
  if (!parts.length) return list;
  const made = parts.map(([operator, flops, shapes]) =>
    element("li", {}, `${operator}: ${flops} FLOPs, ${shapes}`),
  );
  return [list, element("p", {}, "It decomposes into:"), element("ol", {}, made)];
}
