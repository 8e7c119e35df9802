// The module tree, made from columns, and the same with equal layers as one.

const FEWEST_EQUAL = 4;

/** Return the root of the module tree; each node has its figures, `parent` and `children`. */
function moduleTree(columns) {
  const byPath = new Map();
  columns.path.forEach((path, id) => {
    const node = { id, path, children: [], parent: null, members: 1 };
    for (const [name, values] of Object.entries(columns)) node[name] = values[id];
    node.name = path.slice(path.lastIndexOf(".") + 1) || "(model)";
    byPath.set(path, node);
    if (!path) return;
    node.parent = byPath.get(path.slice(0, Math.max(0, path.lastIndexOf("."))));
    node.parent.children.push(node);
  });
  return byPath.get("");
}

/** Return the tree with neighbours that are equal, as layers are, as one node with their sums. */
function mergeEqual(root) {
  const signatures = new Map();

  function signature(node) {
    if (!signatures.has(node)) {
      const own = [node.class, node.flops, node.macs, node.params, node.bytes];
      const parts = node.children.map((child) => `${child.name}:${signature(child)}`);
      signatures.set(node, JSON.stringify([own, parts]));
    }
    return signatures.get(node);
  }

  function merged(nodes, parent) {
    const [first, last] = [nodes[0], nodes.at(-1)];
    const several = nodes.length > 1 && (!parent || parent.members < nodes.length);
    const node = { ...first, parent, members: nodes.length, children: [] };
    for (const { id } of METRICS) if (id in first) node[id] = sum(nodes.map((each) => each[id]));
    if (several) node.name = `${first.name} to ${last.name}`;
    const groups = [];
    first.children.forEach((child, position) => {
      const members = nodes.map((each) => each.children[position]);
      const group = groups.at(-1);
      const isEqual = group && isNumber(child) && signature(group[0]) === signature(child);
      if (isEqual) group.push(...members);
      else groups.push(members);
    });
    const split = groups.flatMap((group) =>
      group.length >= FEWEST_EQUAL * nodes.length ? [group] : chunks(group, nodes.length),
    );
    node.children = split.map((group) => merged(group, node));
    return node;
  }

  return merged([root], null);
}

function isNumber(node) {
  return /^\d+$/.test(node.name);
}

function chunks(items, size) {
  return Array.from({ length: items.length / size }, (_, i) =>
    items.slice(i * size, (i + 1) * size),
  );
}

/** The sum of figures; the first where they are expressions. */
function sum(figures) {
  const numbers = figures.map(numeric);
  return numbers.includes(undefined) ? figures[0] : numbers.reduce((a, b) => a + b, 0);
}

/** Return all nodes of a tree, parents first. */
function walk(node) {
  return [node, ...node.children.flatMap(walk)];
}
