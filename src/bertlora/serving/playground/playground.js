// The page: adapters are listed, a press of Predict asks them, and each error is one line.

import { byId, show, write } from "./elements.js";
import { download, fitColumns, forgetFile, predictMany, takeFile } from "./many.js";
import { fitText, predictOne } from "./one.js";
import { listAdapters, onPick, picked } from "./picker.js";
import { listed, useKey } from "./server.js";
import { openTabs } from "./tabs.js";

let running = null; // the AbortController of what is asked now

/** Lists the adapters, or asks for the API key if the server needs one. */
function start() {
  return reported(async () => {
    const found = await listed();
    show("key-form", false);
    await listAdapters(found.adapters, found.default);
    await fit();
    if (!found.adapters.length) throw new Error("The server has no adapters. Load one, then open this page again.");
  });
}

/** Shows the fields that the picked adapters need. */
async function fit() {
  const chosen = await picked();
  fitText(chosen);
  fitColumns(chosen);
}

/** Predicts what the open tab has. A new prediction ends the one before. */
async function predictNow() {
  running?.abort();
  const own = new AbortController();
  running = own;
  show("stop");
  await reported(async () => {
    const chosen = await picked();
    if (!chosen.length) throw new Error("No adapter is picked. Pick one or more.");
    const work = byId("one").hidden ? predictMany : predictOne;
    await work(chosen, options(), { signal: own.signal, waiting });
  });
  if (running === own) finish();
}

function finish() {
  running = null;
  show("stop", false);
  write("waiting", "");
}

function options() {
  return { explain: byId("explain").checked, base: byId("base").checked, abstain: byId("abstain").value };
}

/** Says how long the page waits for a busy server. */
function waiting(seconds) {
  write("waiting", seconds ? `The server is busy. The page asks again in ${Math.ceil(seconds)} s.` : "");
}

/** Does some work; shows what went wrong in one line. */
async function reported(work) {
  write("error", "");
  try {
    await work();
  } catch (error) {
    if (error.name === "AbortError") write("said", "Stopped.");
    else write("error", error.message);
    if (error.status === 401) askForKey();
  }
}

function askForKey() {
  show("key-form");
  byId("key").focus();
}

function pressed(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    byId("ask").requestSubmit();
  }
  if (event.key === "Escape") running?.abort();
}

function dropped(event) {
  event.preventDefault();
  byId("drop").classList.remove("over");
  const [chosen] = event.dataTransfer.files;
  if (chosen) reported(() => takeFile(chosen));
}

function listen() {
  const on = (id, name, handler) => byId(id).addEventListener(name, handler);
  on("ask", "submit", (event) => { event.preventDefault(); predictNow(); });
  on("ask", "keydown", pressed);
  on("stop", "click", () => running?.abort());
  on("key-form", "submit", (event) => { event.preventDefault(); useKey(byId("key").value); start(); });
  on("file", "change", () => { if (byId("file").files[0]) reported(() => takeFile(byId("file").files[0])); });
  on("forget", "click", forgetFile);
  on("download", "click", download);
  on("many", "dragover", (event) => { event.preventDefault(); byId("drop").classList.add("over"); });
  on("many", "dragleave", () => byId("drop").classList.remove("over"));
  on("many", "drop", dropped);
}

if (/Mac|iPhone|iPad/.test(navigator.userAgent)) write("command", "Cmd");
openTabs();
onPick(() => reported(fit));
listen();
start();
