// Tables of texts: read from pasted lines, CSV, TSV, JSON lines; written as CSV.
//
// A table has `columns`, their names, and `rows`, a list of cells for each row. All cells are texts.

/** Returns the table of plain lines. A tab separates the two texts of a pair. Blank lines are left out. */
export function readLines(text) {
  const rows = text.split(/\r?\n/).filter((line) => line.trim()).map((line) => line.split("\t"));
  const paired = rows.some((cells) => cells.length > 1);
  const complete = rows.map((cells) => (paired ? [cells[0], cells.slice(1).join(" ")] : cells));
  return { columns: paired ? ["text", "text_pair"] : ["text"], rows: complete };
}

/** Returns the table of a file. An Error says what is wrong with it, and where. */
export function readFile(name, bytes) {
  const text = decoded(bytes);
  const kind = name.toLowerCase().split(".").pop();
  if (kind === "csv") return readCsv(text, commonest(text, [",", ";", "\t"]));
  if (kind === "tsv") return readCsv(text, "\t");
  if (kind === "jsonl" || kind === "ndjson") return readJsonLines(text);
  return readLines(text);
}

function decoded(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new Error("the file is not UTF-8; save it as UTF-8");
  }
}

/** Returns the delimiter that the header has most often. */
function commonest(text, delimiters) {
  const header = text.slice(0, Math.max(text.search(/[\r\n]/), 0) || undefined);
  const times = (delimiter) => header.split(delimiter).length;
  return delimiters.reduce((best, next) => (times(next) > times(best) ? next : best));
}

/** Returns the table of CSV with a header (RFC 4180). */
function readCsv(text, delimiter) {
  const [header, ...rows] = cellsOf(text, delimiter);
  if (!header) throw new Error("the file is empty");
  const wrong = rows.findIndex(({ cells }) => cells.length !== header.cells.length);
  if (wrong >= 0) {
    const { line, cells } = rows[wrong];
    throw new Error(`line ${line}: ${cells.length} cells, and the header has ${header.cells.length}`);
  }
  return { columns: header.cells, rows: rows.map(({ cells }) => cells) };
}

/** Returns the rows of CSV, each with its `line` and its `cells`. Blank lines are left out. */
function cellsOf(text, delimiter) {
  // A cell, in quotes or without, and what ends it.
  const cell = new RegExp(`(?:"((?:[^"]|"")*)"|([^"${delimiter}\\r\\n][^${delimiter}\\r\\n]*)?)(${delimiter}|\\r?\\n|\\r|$)`, "y");
  const rows = [];
  let [cells, line, begin] = [[], 1, 1];
  while (cell.lastIndex < text.length || cells.length) {
    const found = cell.exec(text);
    if (!found) throw new Error(`line ${line}: a quoted cell does not end, or text follows its end`);
    cells.push(found[1] === undefined ? found[2] ?? "" : found[1].replaceAll('""', '"'));
    line += found[0].split("\n").length - 1;
    if (found[3] !== delimiter) {
      if (cells.length > 1 || found[0].length > found[3].length) rows.push({ line: begin, cells });
      [cells, begin] = [[], line];
    }
  }
  return rows;
}

/** Returns the table of JSON lines: an object or a text per line. */
function readJsonLines(text) {
  const objects = [];
  text.split("\n").forEach((line, i) => {
    if (line.trim()) objects.push(objectOf(line, i + 1));
  });
  const columns = [...new Set(objects.flatMap(Object.keys))];
  if (!columns.length) throw new Error("the file is empty");
  return { columns, rows: objects.map((one) => columns.map((name) => plain(one[name]))) };
}

function objectOf(line, number) {
  let found = null;
  try {
    found = JSON.parse(line);
  } catch { /* Said below. */ }
  if (typeof found === "string") return { text: found };
  if (typeof found !== "object" || found === null || Array.isArray(found)) {
    throw new Error(`line ${number}: is not a JSON object`);
  }
  return found;
}

function plain(value) {
  if (value === null || value === undefined) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** Returns CSV. Numbers stay; before a text that a spreadsheet would take for a formula there is `'`. */
export function writeCsv(columns, rows) {
  return [columns, ...rows].map((cells) => `${cells.map(cellOf).join(",")}\r\n`).join("");
}

function cellOf(value) {
  if (typeof value !== "string") return String(value);
  // OWASP, "CSV injection".
  const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
