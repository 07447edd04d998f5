// Many texts, from pasted lines or a file, sent in chunks; the answers as a table and as CSV.

import { inWords } from "./answers.js";
import { byId, counted, element, show, write } from "./elements.js";
import { fitting, predict } from "./server.js";
import { readFile, readLines, writeCsv } from "./tables.js";

const CHUNK_ROWS = 32;
const CHUNK_CHARACTERS = 200_000;
const SHOWN = 200;
const LARGEST_MIB = 20;
// What the columns of texts are usually called.
const USUAL = ["text", "sentence", "sentence1", "review", "content", "body", "comment", "premise", "question"];
const USUAL_PAIR = ["text_pair", "sentence2", "hypothesis", "pair", "answer"];

let file = null; // the table of the file, if there is one
let done = null; // the last batch

/** Takes a file that was chosen or dropped. */
export async function takeFile(chosen) {
  if (chosen.size > LARGEST_MIB * 2 ** 20) {
    throw new Error(`${chosen.name}: more than ${LARGEST_MIB} MiB; use bertlora predict --file for it`);
  }
  try {
    file = readFile(chosen.name, await chosen.arrayBuffer());
  } catch (error) {
    throw new Error(`${chosen.name}: ${error.message}`);
  }
  file.name = chosen.name;
  write("file-says", `${file.name}: ${counted(file.rows.length, "row")}`);
  offer("column", USUAL, 0);
  offer("pair-column", USUAL_PAIR, 1);
  showFile();
}

/** Goes back to the pasted lines. */
export function forgetFile() {
  file = null;
  byId("file").value = "";
  showFile();
  byId("lines").focus();
}

function showFile() {
  show("columns", file !== null);
  show("pasted", file === null);
}

/** Offers the file's columns, and chooses one of a usual name, or the one at `place`. */
function offer(id, usual, place) {
  const options = file.columns.map((name, i) => element("option", { value: i }, name || `column ${i + 1}`));
  byId(id).replaceChildren(...options);
  const found = file.columns.findIndex((name) => usual.includes(name.toLowerCase()));
  byId(id).selectedIndex = found >= 0 ? found : Math.min(place, file.columns.length - 1);
}

/** Shows the choice of the second column if a picked adapter reads pairs. */
export function fitColumns(picked) {
  show("pair-column-field", picked.some((adapter) => adapter.pairs));
}

/** Returns the table, and the columns of the texts in it. An Error says what is missing. */
function readBatch(picked) {
  const table = file ?? readLines(byId("lines").value);
  if (!table.rows.length) throw new Error("There are no texts. Paste some, or choose a file.");
  const [text, pair] = file ? [byId("column").selectedIndex, byId("pair-column").selectedIndex] : [0, 1];
  if (pair >= table.columns.length && picked.some((adapter) => adapter.pairs)) {
    throw new Error("There are no second texts. Put a tab between the two texts of a pair.");
  }
  return { table, text, pair };
}

/** Predicts all rows chunk by chunk. What is done stays if it is stopped. */
export async function predictMany(picked, options, control) {
  done = { ...readBatch(picked), picked, answers: [], started: performance.now() };
  begin();
  while (done.answers.length < done.table.rows.length) {
    const rows = nextRows();
    const columns = await Promise.all(picked.map((adapter) => chunk(adapter, rows, options, control)));
    control.signal.throwIfAborted(); // a new batch may have begun
    const first = done.answers.length;
    done.answers.push(...rows.map((_, i) => columns.map((column) => column[i])));
    addRows(first);
    showProgress();
  }
  write("said", `All ${counted(done.answers.length, "text")} are predicted.`);
}

/** Returns the rows of the next chunk: a number of rows, or fewer if they are long. */
function nextRows() {
  const rows = done.table.rows.slice(done.answers.length, done.answers.length + CHUNK_ROWS);
  let characters = 0;
  const end = rows.findIndex((cells) => {
    characters += cells.join("").length;
    return characters > CHUNK_CHARACTERS;
  });
  return end < 0 ? rows : rows.slice(0, Math.max(end, 1));
}

/** Returns the answers of an adapter to rows; null for a row without a text, which is not sent. */
async function chunk(adapter, rows, options, control) {
  const items = rows.map((cells) => [cells[done.text], ...(adapter.pairs ? [cells[done.pair]] : [])]);
  const whole = items.map((texts) => texts.every((text) => text.trim()));
  const sent = items.filter((_, i) => whole[i]).map((texts) => (adapter.pairs ? texts : texts[0]));
  if (!sent.length) return rows.map(() => null);
  try {
    const { predictions } = await predict(adapter, sent, fitting(adapter, options), control);
    return whole.map((is) => (is ? predictions.shift() : null));
  } catch (error) {
    if (error.status) error.message = `${adapter.name}: ${error.message}`;
    throw error;
  }
}

function begin() {
  const names = done.picked.map((adapter) => element("th", { scope: "col" }, adapter.name));
  byId("table").replaceChildren(element("table", {},
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Row"), element("th", { scope: "col" }, "Text"), ...names)),
    element("tbody", {})));
  write("table-note", done.table.rows.length > SHOWN ? `The first ${SHOWN} rows; the CSV has all.` : "");
  show("many-answers");
  showProgress();
}

function showProgress() {
  const [ready, all] = [done.answers.length, done.table.rows.length];
  byId("progress").max = all;
  byId("progress").value = ready;
  const speed = ready / ((performance.now() - done.started) / 1000);
  const left = ready && ready < all ? `, about ${counted(Math.ceil((all - ready) / speed), "second")} left` : "";
  write("progress-says", `${ready.toLocaleString("en")} of ${counted(all, "text")}${left}`);
  byId("download").disabled = ready === 0;
  byId("counts").replaceChildren(...done.picked.flatMap(countsOf));
}

/** Returns how often each adapter gave each label. */
function countsOf(adapter, place) {
  if (adapter.task === "regression") return [];
  const times = new Map();
  for (const answer of done.answers.map((row) => row[place]).filter((one) => one)) {
    for (const label of answer.labels ?? [answer.label ?? "no label"]) times.set(label, (times.get(label) ?? 0) + 1);
  }
  const sorted = [...times].sort((a, b) => b[1] - a[1]).slice(0, 6);
  const said = sorted.map(([label, count]) => `${label} (${count.toLocaleString("en")})`).join(", ");
  return said ? [element("li", {}, `${adapter.name}: ${said}`)] : [];
}

function addRows(first) {
  const rows = done.answers.slice(first, Math.max(first, SHOWN)).map((answers, i) => rowOf(first + i, answers));
  byId("table").querySelector("tbody").append(...rows);
}

function rowOf(place, answers) {
  const text = done.table.rows[place][done.text];
  const cells = answers.map((answer, i) => element("td", {}, answer ? inWords(done.picked[i], answer) : "blank"));
  return element("tr", {}, element("td", {}, String(place + 1)), element("td", { class: "text" }, text), ...cells);
}

/** Gives the reader the table with the predictions, as a CSV file. */
export function download() {
  const rows = done.answers.map((answers, place) =>
    [...done.table.rows[place], ...answers.flatMap((answer, i) => valuesOf(done.picked[i], answer))]);
  const columns = [...done.table.columns, ...done.picked.flatMap(columnsOf)];
  const url = URL.createObjectURL(new Blob([writeCsv(columns, rows)], { type: "text/csv;charset=utf-8" }));
  element("a", { href: url, download: "predictions.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** Returns the names that `bertlora predict --file` gives its columns; with several adapters their name comes first. */
function columnsOf(adapter) {
  const own = {
    regression: ["predicted_value", "low", "high"],
    multilabel: ["predicted_labels"],
    classification: ["predicted_label", "confidence"],
  }[adapter.task];
  return done.picked.length === 1 ? own : own.map((name) => `${adapter.name}: ${name}`);
}

function valuesOf(adapter, answer) {
  if (!answer) return columnsOf(adapter).map(() => "");
  if (adapter.task === "regression") return [answer.value, ...(answer.interval ?? ["", ""])];
  if (adapter.task === "multilabel") return [answer.labels.join("|")];
  return [answer.label ?? "", answer.confidence];
}
