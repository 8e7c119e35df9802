// Operators, with the cost of all their calls.

function operatorsView(report) {
  const whole = (id) => report.modules[id][0];
  const figures = [
    ["flops", "FLOPs", (row) => row.flops, (value) => quantity(value, "FLOPs")],
    ["macs", "MACs", (row) => row.macs, (value) => quantity(value, "MACs")],
    ["bytes", "bytes moved", bytesOf, (value) => quantity(value, "B")],
    ...(report.modules.seconds ? [["seconds", "time", (row) => row.seconds, seconds]] : []),
  ];
  const table = dataTable({
    caption: "Operators",
    noun: "operators",
    rows: report.operators.map((row) => ({ ...row, id: row.operator })),
    search: (row) => `${row.operator} ${row.status}`,
    sort: [{ id: "flops", desc: true }],
    columns: [
      {
        id: "operator",
        title: "operator",
        value: (row) => row.operator,
        cell: (row) => row.operator,
      },
      {
        id: "status",
        title: "status",
        value: (row) => row.status,
        cell: (row) => statusText(row.status),
      },
      {
        id: "calls",
        title: "calls",
        isNumber: true,
        value: (row) => row.calls,
        cell: (row) => exact(row.calls),
      },
      { id: "share", title: "share of FLOPs", cell: (row) => shareBar(row.flops, whole("flops")) },
      ...figures.map(([id, title, value, text]) => ({
        id,
        title,
        isNumber: true,
        value: (row) => numeric(value(row)),
        cell: (row) => text(value(row)),
      })),
    ],
  });
  return { element: table.element };
}

function bytesOf(row) {
  const parts = [row.bytes_read, row.bytes_written];
  return parts.every((part) => numeric(part) !== undefined)
    ? sum(parts)
    : parts.filter(Boolean).join(" + ");
}

function statusText(status) {
  const isUnknown = status === "unknown";
  return element(
    "span",
    { class: isUnknown ? "unknown" : null },
    isUnknown ? "unsupported" : status,
  );
}
