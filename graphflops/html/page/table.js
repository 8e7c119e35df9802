// Tables that are sorted, searched and opened. TanStack Table has the logic; the markup is that of a
// plain table, so that screen readers, the search of the browser and copying work.

const FIRST_ROWS = 100;
const MORE_ROWS = 400;

/**
 * Make a table.
 *
 * @param caption what it is a table of, for those who hear it
 * @param noun what its rows are, in the plural
 * @param columns `{id, title, value, cell, isNumber}`: `value` of a row to sort by, `cell` a text or
 *   an element; the first one names the row
 * @param rows the rows, each with an `id` of its own
 * @param children parts of a row, if the rows are trees
 * @param isOpen rows whose parts are shown at first
 * @param search text of a row that is searched
 * @param detail an element with more of a row, if there is more
 * @param sort columns to sort by at first, `[{id, desc}]`
 * @returns the element, `render` to show it again, `reveal` to show and mark a row, `find` to search
 */
function dataTable(options) {
  const { caption, noun, columns, rows, children, search, detail } = options;
  const table = tables.constructTable(tableOptions(options));
  const opened = new Set();
  const matches = (row, terms) => terms.every((term) => search(row).toLowerCase().includes(term));
  const everyRow = (function all(some) {
    return some.flatMap((row) => [row, ...all(children?.(row) ?? [])]);
  })(rows);
  let terms = [];
  let marked = null;
  let closed = null;

  const input = element("input", {
    type: "search",
    "aria-label": `Search ${noun}`,
    input: onSearch,
  });
  input.placeholder = `Search ${noun}`;
  const count = element("output", { "aria-live": "polite" });
  const headers = columns.map(header);
  const body = element("tbody");
  const more = element("button", { type: "button", class: "more", click: showMore });
  const view = element(
    "div",
    { class: "data-table" },
    element("div", { class: "tools" }, input, count),
    element(
      "div",
      { class: "scroll", role: "region", tabindex: "0", "aria-label": caption },
      element(
        "table",
        {},
        element("caption", { class: "hidden" }, caption),
        element("thead", {}, element("tr", {}, headers)),
        body,
      ),
    ),
    more,
  );

  function header(column) {
    const attributes = { scope: "col", class: column.isNumber ? "number" : null };
    if (!column.value) return element("th", attributes, column.title);
    const toggle = () => {
      table.getColumn(column.id).toggleSorting();
      render();
    };
    return element(
      "th",
      attributes,
      element("button", { type: "button", click: toggle }, column.title),
    );
  }

  function onSearch() {
    terms = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    table.setColumnFilters(terms.length ? [{ id: "search", value: terms }] : []);
    if (children && terms.length && !closed) closed = table.atoms.expanded.get();
    if (children) table.setExpanded(terms.length ? true : (closed ?? {}));
    if (!terms.length) closed = null;
    render();
  }

  function showMore() {
    table.setPageSize(table.atoms.pagination.get().pageSize + MORE_ROWS);
    render();
  }

  function toggle(row) {
    if (children) row.toggleExpanded();
    else if (!opened.delete(row.id)) opened.add(row.id);
    render();
  }

  /** A button that opens and closes a row, where there is more of it. */
  function opener(row, title) {
    const isOpen = children ? row.getIsExpanded() : opened.has(row.id);
    const attributes = {
      type: "button",
      class: "opener",
      "aria-expanded": String(isOpen),
      "data-row": row.id,
    };
    return element("button", { ...attributes, click: () => toggle(row) }, title);
  }

  function cell(row, column, position) {
    const shown = column.cell(row.original);
    if (position > 0) return element("td", { class: column.isNumber ? "number" : null }, shown);
    const hasMore = detail || row.subRows.length > 0;
    const head = element("th", { scope: "row" }, hasMore ? opener(row, shown) : shown);
    if (children) head.classList.toggle("leaf", !hasMore);
    head.style.setProperty("--depth", row.depth);
    return head;
  }

  function rendered(row) {
    const attributes = { "aria-current": row.id === marked ? "true" : null, "data-id": row.id };
    const shown = element(
      "tr",
      attributes,
      columns.map((column, i) => cell(row, column, i)),
    );
    if (options.onSelect) shown.addEventListener("click", () => options.onSelect(row.original));
    if (!opened.has(row.id)) return [shown];
    const content = element("td", { colspan: columns.length }, detail(row.original));
    return [shown, element("tr", { class: "detail" }, content)];
  }

  function render() {
    const focused = document.activeElement?.dataset?.row;
    const isInside = body.contains(document.activeElement);
    const found = table.getRowModel().rows;
    body.replaceChildren(...found.flatMap(rendered));
    columns.forEach((column, i) => {
      const order = column.value && table.getColumn(column.id).getIsSorted();
      if (order) headers[i].setAttribute("aria-sort", order === "asc" ? "ascending" : "descending");
      else headers[i].removeAttribute("aria-sort");
    });
    const total = everyRow.length.toLocaleString("en");
    const matching = everyRow.filter((row) => matches(row, terms)).length.toLocaleString("en");
    count.textContent = terms.length ? `${matching} of ${total} ${noun}` : `${total} ${noun}`;
    const left = table.getPrePaginatedRowModel().rows.length - found.length;
    more.hidden = left <= 0;
    more.textContent = `Show ${Math.min(left, MORE_ROWS)} more of ${left.toLocaleString("en")}`;
    if (isInside && focused) body.querySelector(`[data-row="${CSS.escape(focused)}"]`)?.focus();
  }

  /** Show a row and mark it. */
  function reveal(id) {
    if (input.value) {
      input.value = "";
      onSearch();
    }
    marked = String(id);
    for (let row = table.getRow(marked, true).getParentRow?.(); row; row = row.getParentRow()) {
      row.toggleExpanded(true);
    }
    const place = table.getPrePaginatedRowModel().rows.findIndex((row) => row.id === marked);
    if (place >= table.atoms.pagination.get().pageSize) table.setPageSize(place + MORE_ROWS);
    render();
    const shown = body.querySelector(`[data-id="${CSS.escape(marked)}"]`);
    const box = shown?.closest(".scroll");
    if (box) box.scrollTop = shown.offsetTop - box.clientHeight / 2;
  }

  function find(text) {
    input.value = text;
    onSearch();
  }

  render();
  return { element: view, render, reveal, find };
}

/** Options of TanStack Table for those of a table. */
function tableOptions({ columns, rows, children, isOpen, search, sort }) {
  const sortable = (column) => ({
    id: column.id,
    accessorFn: column.value ?? (() => undefined),
    sortFn: (a, b, id) => compare(a.getValue(id), b.getValue(id)),
    sortUndefined: "last",
    sortDescFirst: Boolean(column.isNumber),
  });
  const expanded = {};
  (function open(some) {
    for (const row of some) {
      if (!isOpen?.(row)) continue;
      expanded[row.id] = true;
      open(children(row));
    }
  })(children ? rows : []);
  return {
    features: tableFeatures(),
    data: rows,
    columns: [
      ...columns.map(sortable),
      {
        id: "search",
        accessorFn: (row) => search(row).toLowerCase(),
        filterFn: (row, id, terms) => terms.every((term) => row.getValue(id).includes(term)),
      },
    ],
    getRowId: (row) => String(row.id),
    getSubRows: children,
    filterFromLeafRows: true,
    initialState: {
      expanded,
      sorting: sort ?? [],
      pagination: { pageIndex: 0, pageSize: FIRST_ROWS },
    },
  };
}

function compare(a, b) {
  return typeof a === "string" && typeof b === "string" ? a.localeCompare(b) : a - b;
}

let features;

function tableFeatures() {
  features ??= tables.tableFeatures({
    coreReactivityFeature: tables.storeReactivityBindings(),
    columnFilteringFeature: tables.columnFilteringFeature,
    rowSortingFeature: tables.rowSortingFeature,
    rowExpandingFeature: tables.rowExpandingFeature,
    rowPaginationFeature: tables.rowPaginationFeature,
    filteredRowModel: tables.createFilteredRowModel(),
    sortedRowModel: tables.createSortedRowModel(),
    expandedRowModel: tables.createExpandedRowModel(),
    paginatedRowModel: tables.createPaginatedRowModel(),
  });
  return features;
}
