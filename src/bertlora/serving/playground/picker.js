// The list of adapters, and which of them are picked.

import { byId, counted, element, show, write } from "./elements.js";
import { described } from "./server.js";

// From this number on the list has a filter, and an adapter is described only when it is picked.
const MANY = 9;
let known = [];

/** Lists adapters by name and picks the default one. */
export function listAdapters(names, usual) {
  known = names.map((name) => ({ name }));
  const many = known.length >= MANY;
  byId("adapters").replaceChildren(...known.map((adapter, i) => choice(adapter.name, i, adapter.name === usual)));
  byId("adapters").classList.toggle("long", many);
  show("filter-field", many);
  return Promise.all((many ? [] : known).map(describe));
}

/** Calls `changed` when others are picked. */
export function onPick(changed) {
  byId("adapters").addEventListener("change", changed);
  byId("filter").addEventListener("input", filter);
}

/** Returns the adapters that are picked, in the order of the list: `name`, `task`, `labels`, `pairs`. */
export function picked() {
  const chosen = known.filter((_, i) => boxOf(i).checked);
  write("picked", known.length >= MANY ? `${chosen.length} of ${known.length} picked` : "");
  return Promise.all(chosen.map(describe));
}

const boxOf = (i) => byId(`adapter-${i}`);

function choice(name, i, checked) {
  const box = element("input", { type: "checkbox", id: `adapter-${i}`, checked });
  const note = element("span", { class: "note" });
  return element("li", {}, box, element("label", { for: box.id }, element("span", {}, name), note));
}

/** Asks once what an adapter predicts, and writes it below its name. */
async function describe(adapter) {
  if (!adapter.task) {
    Object.assign(adapter, await described(adapter.name));
    boxOf(known.indexOf(adapter)).parentElement.querySelector(".note").textContent = description(adapter);
  }
  return adapter;
}

function description(adapter) {
  const pairs = adapter.pairs ? "pairs: " : "";
  if (adapter.task === "regression") return `${pairs}a number`;
  const several = adapter.task === "multilabel" ? "several of " : "";
  return pairs + several + (adapter.labels.length > 4 ? counted(adapter.labels.length, "label") : adapter.labels.join(", "));
}

function filter() {
  const wanted = byId("filter").value.trim().toLowerCase();
  known.forEach((adapter, i) => { boxOf(i).parentElement.hidden = !adapter.name.toLowerCase().includes(wanted); });
}
