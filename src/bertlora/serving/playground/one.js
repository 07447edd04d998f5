// One text, asked of each picked adapter: a card for each.

import { card, fill, fillWithError, inWords } from "./answers.js";
import { byId, element, show, write } from "./elements.js";
import { fitting, predict } from "./server.js";
import { wordsThatMatter } from "./words.js";

const KEPT = 10;
let earlier = [];

/** Shows the field of the second text if a picked adapter reads pairs. */
export function fitText(picked) {
  const names = picked.filter((adapter) => adapter.pairs).map((adapter) => adapter.name);
  show("pair-field", names.length > 0);
  write("pair-note", `Read by ${names.join(", ")}.`);
}

/** Returns what is in the form. An Error says what is missing. */
function readQuestion(picked) {
  const question = { text: byId("text").value, pair: byId("pair").value };
  if (!question.text.trim()) throw new Error("There is no text. Type or paste one.");
  if (!question.pair.trim() && picked.some((adapter) => adapter.pairs)) {
    throw new Error("There is no second text. Type or paste one.");
  }
  return question;
}

/** Asks all picked adapters at once, and shows each answer when it comes. The words come after all answers. */
export async function predictOne(picked, options, control) {
  const question = readQuestion(picked);
  remember(question);
  const cards = picked.map((adapter) => ({ adapter, made: card(adapter), item: itemOf(adapter, question) }));
  byId("cards").replaceChildren(...cards.map((one) => one.made));
  show("one-answers");
  const said = await Promise.all(cards.map((one) => answer(one, options, control)));
  write("said", said.filter((each) => each).join(". "));
  if (options.explain) await Promise.all(cards.map((one, i) => said[i] && explain(one, question, control)));
}

const itemOf = (adapter, question) => (adapter.pairs ? [question.text, question.pair] : question.text);

/** Fills the card of an adapter, and returns the answer in words; nothing if there is none. */
async function answer({ adapter, made, item }, options, control) {
  try {
    const own = predict(adapter, [item], fitting(adapter, options), control);
    const ofBase = options.base ? predict(adapter, [item], { base: true }, control) : { predictions: [null] };
    const [found, base] = await Promise.all([own, ofBase]);
    fill(made, adapter, found.predictions[0], base.predictions[0], found.notes);
    return `${adapter.name}: ${inWords(adapter, found.predictions[0])}`;
  } catch (error) {
    fillWithError(made, error);
    if (error.status === 401 || error.name === "AbortError") throw error;
    return "";
  }
}

/** Adds the words that matter to a card. */
async function explain({ adapter, made, item }, question, control) {
  const wait = element("p", { class: "note" }, "The words are computed.");
  made.append(wait);
  try {
    const { predictions } = await predict(adapter, [item], { explain: true }, control);
    wait.replaceWith(wordsThatMatter(question, predictions[0].explanation, adapter.task));
  } catch (error) {
    wait.textContent = error.name === "AbortError" ? "Stopped." : `No words: ${error.message}`;
  }
}

/** Puts a question on top of the earlier ones. */
function remember(question) {
  const others = earlier.filter((one) => one.text !== question.text || one.pair !== question.pair);
  earlier = [question, ...others].slice(0, KEPT);
  byId("earlier-texts").replaceChildren(...earlier.map(again));
  show("earlier");
}

function again(question) {
  const button = element("button", { type: "button", class: "again" }, question.text);
  button.addEventListener("click", () => {
    byId("text").value = question.text;
    byId("pair").value = question.pair;
    byId("text").focus();
  });
  return element("li", {}, button);
}
