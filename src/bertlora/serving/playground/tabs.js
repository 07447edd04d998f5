// Two tabs, one text and many texts: chosen by a click, or by the arrow keys (WAI-ARIA, pattern "tabs").

import { byId, show } from "./elements.js";

const NAMES = ["one", "many"];

/** Lets the reader choose between the tabs. */
export function openTabs() {
  NAMES.forEach((name, place) => {
    const tab = byId(`${name}-tab`);
    tab.addEventListener("click", () => open(name));
    tab.addEventListener("keydown", (event) => {
      const next = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: -1 }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      open(NAMES.at(next % NAMES.length)).focus();
    });
  });
}

/** Opens a tab, and returns it. */
function open(chosen) {
  for (const name of NAMES) {
    const tab = byId(`${name}-tab`);
    tab.setAttribute("aria-selected", String(name === chosen));
    tab.tabIndex = name === chosen ? 0 : -1;
    show(name, name === chosen);
  }
  document.body.dataset.tab = chosen;
  return byId(`${chosen}-tab`);
}
