// Elements and numbers of the page. A text becomes a text node, whatever it contains: it is never read as HTML.

/** Returns the element of the page with this id. */
export const byId = (id) => document.getElementById(id);

/** Returns a new element. An attribute is left out if it is false or null. Children are elements or texts. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** Returns a bar for a share in 0..1. The share must be written next to it too. */
export function bar(share, kind = "") {
  const made = element("span", { class: `bar ${kind}`, "aria-hidden": "true" });
  made.style.setProperty("--share", share);
  return made;
}

/** Shows or hides an element. */
export function show(id, shown = true) {
  byId(id).hidden = !shown;
}

/** Writes a text into an element; a live region then says it. */
export function write(id, text) {
  byId(id).textContent = text;
}

/** Returns a share in 0..1 as percent. Only an exact 0 or 1 is shown as 0 % or 100 %. */
export function percent(share) {
  if (share > 0 && share < 0.0005) return "<0.1 %";
  if (share < 1 && share >= 0.9995) return ">99.9 %";
  return `${(100 * share).toFixed(1)} %`;
}

/** Returns a number with four significant digits. */
export function figure(value) {
  return String(Number(value.toPrecision(4)));
}

/** Returns a count with its noun: "1 text", "1,200 texts". */
export function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}
