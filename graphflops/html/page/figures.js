// Numbers as people read them. Figures are numbers, strings of digits where these are too many for
// a number, or expressions of symbolic sizes.

const PREFIXES = [
  [1e18, "E"],
  [1e15, "P"],
  [1e12, "T"],
  [1e9, "G"],
  [1e6, "M"],
  [1e3, "K"],
];

const METRICS = [
  { id: "flops", title: "FLOPs", text: (value) => quantity(value, "FLOPs") },
  { id: "macs", title: "MACs", text: (value) => quantity(value, "MACs") },
  { id: "params", title: "Parameters", text: (value) => quantity(value).replace("G", "B") },
  { id: "bytes", title: "Bytes moved", text: (value) => quantity(value, "B") },
  { id: "seconds", title: "Kernel time", text: seconds },
  { id: "memory", title: "Memory at the peak", text: (value) => quantity(value, "B") },
];

/** A figure as a number, rounded if need be; `undefined` for an expression and for none. */
function numeric(value) {
  if (typeof value === "string") return /^-?\d+$/.test(value) ? Number(value) : undefined;
  return value ?? undefined;
}

/** A figure with a prefix: `8.25 GFLOPs`. */
function quantity(value, unit = "") {
  const number = numeric(value);
  if (!number) return value == null ? "" : String(value);
  const [factor, prefix] = PREFIXES.find(([least]) => Math.abs(number) >= least) ?? [1, ""];
  return `${Number((number / factor).toFixed(2))} ${prefix}${unit}`.trimEnd();
}

/** Every digit of a figure, with separators. */
function exact(value) {
  if (typeof value === "string" && numeric(value) !== undefined)
    return BigInt(value).toLocaleString("en");
  return typeof value === "number" ? value.toLocaleString("en") : (value ?? "");
}

/** A time with a fitting unit. */
function seconds(value) {
  if (typeof value !== "number") return value ?? "";
  for (const [scale, unit] of [
    [1, "s"],
    [1e-3, "ms"],
    [1e-6, "us"],
  ]) {
    if (value >= scale) return `${Number((value / scale).toPrecision(4))} ${unit}`;
  }
  return value ? `${Number((value / 1e-9).toPrecision(4))} ns` : "0 s";
}

/** A share in percent; empty where it is symbolic or of nothing. */
function percent(part, whole) {
  const [a, b] = [numeric(part), numeric(whole)];
  if (a === undefined || !b) return "";
  const share = (100 * a) / b;
  if (share && share < 0.01) return "<0.01%";
  return `${Number(share.toPrecision(share < 99 ? 2 : 4))}%`;
}

/** An operator without the namespace of PyTorch's own. */
function shortName(operator) {
  return operator.replace(/^aten::/, "");
}
