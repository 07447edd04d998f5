// The answer of one adapter to one text, as a card; and in a few words.

import { bar, element, figure, percent } from "./elements.js";

const SHOWN = 8;

/** Returns an empty card, which `fill` or `fillWithError` fills. */
export function card(adapter) {
  return element("article", { class: "card", "aria-busy": "true" },
    element("h3", {}, adapter.name),
    element("p", { class: "note" }, "Waits for the answer"));
}

/** Fills a card with an answer. `base` is the answer of the base without the adapter, or null. */
export function fill(made, adapter, answer, base, notes) {
  finish(made,
    element("p", { class: "verdict" }, ...verdict(adapter, answer)),
    ...(adapter.task === "regression" ? number(answer, base) : shares(answer, base)),
    ...notes.map((note) => element("p", { class: "note" }, note)));
}

/** Fills a card with the reason why there is no answer. */
export function fillWithError(made, error) {
  const stopped = error.name === "AbortError";
  finish(made, element("p", stopped ? { class: "note" } : { class: "error", role: "alert" }, stopped ? "Stopped." : error.message));
}

function finish(made, ...children) {
  made.removeAttribute("aria-busy");
  made.replaceChildren(made.firstElementChild, element("div", { class: "answer" }, ...children));
}

/** Returns an answer in a few words: "positive, 97.3 %". */
export function inWords(adapter, answer) {
  if (adapter.task === "regression") return figure(answer.value) + (answer.interval ? ` (${ends(answer)})` : "");
  if (adapter.task === "multilabel") return answer.labels.join(", ") || "none of the labels";
  return `${answer.abstained ? "no label" : answer.label}, ${percent(answer.confidence)}`;
}

function verdict(adapter, answer) {
  if (adapter.task === "regression") return [figure(answer.value)];
  if (adapter.task === "multilabel") return answer.labels.length ? answer.labels.map(chip) : ["None of the labels"];
  if (answer.abstained) return ["No label ", element("span", { class: "aside" }, "The confidence is too low.")];
  return [`${answer.label} `, element("span", { class: "aside" }, percent(answer.confidence))];
}

function chip(label) {
  return element("span", { class: "chip" }, label);
}

/** Returns the probabilities of all labels as bars, the largest first; those of the base below them. */
function shares(answer, base) {
  const sorted = Object.entries(answer.probabilities).sort((a, b) => b[1] - a[1]);
  const given = answer.labels ?? [answer.label];
  const items = sorted.map(([label, share]) => shareOf(label, share, given.includes(label), base?.probabilities[label]));
  const first = element("ul", { class: "shares" }, ...items.slice(0, SHOWN));
  if (items.length <= SHOWN) return [first];
  const rest = element("ul", { class: "shares" }, ...items.slice(SHOWN));
  return [first, element("details", {}, element("summary", {}, `${items.length - SHOWN} more labels`), rest)];
}

function shareOf(label, share, given, ofBase) {
  const made = element("li", { class: given ? "given" : null },
    element("span", { class: "label" }, label),
    element("span", { class: "base" }, ofBase === undefined ? "" : `base ${percent(ofBase)}`),
    element("span", { class: "share" }, percent(share)),
    bar(share));
  if (ofBase !== undefined) made.append(bar(ofBase, "of-base"));
  return made;
}

/** Returns the interval of a number, and the number of the base. */
function number(answer, base) {
  const lines = [answer.interval ? `90 % interval: ${ends(answer)}` : "No interval: there were too few validation rows."];
  if (base) lines.push(`Base: ${figure(base.value)}, the mean of the training targets.`);
  return lines.map((line) => element("p", {}, line));
}

function ends(answer) {
  return `${figure(answer.interval[0])} to ${figure(answer.interval[1])}`;
}
