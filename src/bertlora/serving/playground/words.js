// The words that matter: coloured and underlined by their attribution, and as a table.

import { element, figure } from "./elements.js";

// Words below a fifth of the largest attribution are not coloured, as in the report.
const FAINT = 0.2;
const LISTED = 50;

/**
 * Returns the words of an explanation.
 *
 * `question` has the `text` and perhaps a `pair`. `task` is the adapter's.
 */
export function wordsThatMatter(question, explanation, task) {
  const parts = [[question.text, explanation.words], [question.pair, explanation.pair_words]].filter((part) => part[1]);
  const all = parts.flatMap((part) => part[1]);
  const largest = Math.max(...all.map(strength), 1e-12);
  const unread = all.some((word) => word.attribution === null) ? " [Words in brackets] were not read." : "";
  const { supports, opposes } = meaning(explanation, task);
  return element("div", { class: "words" },
    element("h4", {}, "Words that matter"),
    ...parts.map(([text, words]) => element("p", { class: "marked" }, ...marked(text, words, largest))),
    element("p", { class: "note" }, element("span", { class: "for" }, supports), ", ",
      element("span", { class: "against" }, opposes), `.${unread}`),
    listed(all, task === "regression" ? "Change of the number" : "Change in logits"));
}

const strength = (word) => Math.abs(word.attribution ?? 0);

function meaning(explanation, task) {
  if (task === "regression") return { supports: "Solid line: raises the number", opposes: "dotted line: lowers it" };
  const over = explanation.rival ? ` over ${explanation.rival}` : "";
  return { supports: `Solid line: for ${explanation.label}${over}`, opposes: "dotted line: against it" };
}

/** Returns the text in pieces: words with marks, and the white space between them. */
function marked(text, words, largest) {
  const pieces = [];
  let done = 0;
  for (const word of words) {
    const start = text.indexOf(word.word, done);
    if (start < 0) continue;
    pieces.push(text.slice(done, start), markedWord(word, largest));
    done = start + word.word.length;
  }
  return [...pieces, text.slice(done)];
}

function markedWord(word, largest) {
  if (word.attribution === null) return element("span", { class: "unread" }, `[${word.word}]`);
  const weight = strength(word) / largest;
  if (weight < FAINT) return word.word;
  const made = element("span", { class: word.attribution > 0 ? "for" : "against" }, word.word);
  made.style.setProperty("--weight", weight);
  return made;
}

function listed(words, heading) {
  const read = words.filter((word) => word.attribution !== null).sort((a, b) => strength(b) - strength(a));
  const rows = read.slice(0, LISTED).map((word) =>
    element("tr", {}, element("th", { scope: "row" }, word.word), element("td", {}, signed(word.attribution))));
  return element("details", {},
    element("summary", {}, "The words as a table"),
    element("table", {},
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Word"),
        element("th", { scope: "col" }, heading))),
      element("tbody", {}, ...rows)));
}

function signed(value) {
  return `${value < 0 ? "−" : "+"}${figure(Math.abs(value))}`;
}
