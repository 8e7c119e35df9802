// Calls of a pass, one by one: repeats of a layer are made from its traced instance.

/** Return the calls of a pass in order, as objects by the names of its columns. */
function unfold(pass) {
  const calls = pass.records.map((row) =>
    Object.fromEntries(pass.columns.map((name, column) => [name, row[column]])),
  );

  function* expand(items) {
    for (const item of items) {
      if (typeof item === "number") yield calls[item];
      else for (const call of expand(pass.blocks[item[0]])) yield moved(call, item);
    }
  }

  return [...expand(pass.items)];
}

/** A call of another instance of its layer. */
function moved(call, [, shift, fromPath, toPath, fromLine, toLine, fromSuffix, toSuffix]) {
  const isInside = call.path === fromPath || call.path.startsWith(`${fromPath}.`);
  const stem = call.name.endsWith(fromSuffix)
    ? call.name.slice(0, call.name.length - fromSuffix.length)
    : call.name;
  return {
    ...call,
    index: call.index + shift,
    path: isInside ? toPath + call.path.slice(fromPath.length) : call.path,
    name: stem + toSuffix,
    line: call.line === fromLine ? toLine : call.line,
  };
}
