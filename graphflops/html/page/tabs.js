// Tabs: one view at a time, each made when it is first looked at. The address names the one shown.

/**
 * Make tabs.
 *
 * @param views `{id, title, make}`: `make` returns an element, and `draw`, which is called once it
 *   is on the page
 * @returns the element, `first` to show the view that the address names, and `show`, which returns
 *   what was made
 */
function tabs(views) {
  const made = new Map();
  const heads = views.map(({ id, title }) =>
    element(
      "button",
      { type: "button", role: "tab", id: `tab-${id}`, "aria-controls": id, click: () => show(id) },
      title,
    ),
  );
  const panels = views.map(({ id }) =>
    element("section", {
      role: "tabpanel",
      id,
      "aria-labelledby": `tab-${id}`,
      tabindex: "0",
      hidden: true,
    }),
  );
  const list = element("div", { role: "tablist", "aria-label": "Views", keydown: onKey }, heads);

  function show(id) {
    views.forEach((view, i) => {
      const isShown = view.id === id;
      heads[i].setAttribute("aria-selected", String(isShown));
      heads[i].tabIndex = isShown ? 0 : -1;
      panels[i].hidden = !isShown;
      if (isShown && !made.has(id)) {
        made.set(id, view.make());
        panels[i].append(made.get(id).element);
        made.get(id).draw?.();
      }
    });
    history.replaceState(null, "", `#${id}`);
    return made.get(id);
  }

  function onKey(event) {
    const steps = { ArrowRight: 1, ArrowLeft: -1 };
    if (!(event.key in steps)) return;
    const at = heads.indexOf(document.activeElement);
    const next = (at + steps[event.key] + heads.length) % heads.length;
    heads[next].focus();
    show(views[next].id);
    event.preventDefault();
  }

  function first() {
    const wanted = location.hash.slice(1);
    show((views.find(({ id }) => id === wanted) ?? views[0]).id);
  }

  return { element: element("div", { class: "tabs" }, list, panels), first, show };
}
