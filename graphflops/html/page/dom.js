// Elements of the page. Text that others chose stays text: nothing here takes markup.

/**
 * Make an element.
 *
 * Functions among the attributes listen to the event of their name; `true` and `false` set and leave
 * out an attribute. Strings among the children are text.
 */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value !== false && value != null) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return made;
}

/** A colour of the style sheet, light or dark as the page is. */
function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Call a function when the page turns light or dark. */
function onColorScheme(listener) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", listener);
}

/** Text of an element of packed data: base64 of gzip. */
async function unpack(id) {
  const packed = document.getElementById(id).textContent;
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

/** Start a library of the page: the policy knows its checksum. */
async function start(id) {
  const script = document.createElement("script");
  script.textContent = await unpack(id);
  document.head.append(script);
}
