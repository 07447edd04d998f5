// What the page asks the server: which adapters there are, and what they predict.

const MOST_TRIES = 20;
let key = "";

/** Uses an API key from now on. */
export function useKey(value) {
  key = value;
}

/** An answer that is an error. `status` is the status of HTTP, or 0 if there was no answer. */
export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Returns the names of the adapters, `adapters`, and the `default` one. */
export function listed() {
  return ask("v1/adapters");
}

/** Returns what an adapter predicts: `name`, `task`, `labels`, and `pairs`, which says whether it reads pairs. */
export function described(name) {
  return ask(pathOf(name));
}

/**
 * Returns what an adapter predicts for texts: `predictions`, each as `bertlora predict` prints it, and `notes`.
 *
 * `items` are texts, or pairs of texts. `options` are those of the API: `explain`, `base`, `abstain`. `control` has a
 * `signal`, which ends the request, and `waiting`, which is called with the seconds until the next try, and then with 0.
 */
export function predict(adapter, items, options, control) {
  return ask(`${pathOf(adapter.name)}/predict`, { [adapter.pairs ? "pairs" : "texts"]: items, ...options }, control);
}

/** Returns the options that fit the task of an adapter. */
export function fitting(adapter, { abstain }) {
  return abstain && adapter.task === "classification" ? { abstain } : {};
}

const pathOf = (name) => `v1/adapters/${encodeURIComponent(name)}`;

/** Asks, and tries again if the server says when. */
async function ask(path, body, { signal, waiting } = {}) {
  for (let tries = 1; ; tries++) {
    const response = await send(path, body, signal);
    const seconds = retryAfter(response);
    if (seconds === null || tries === MOST_TRIES) return content(response);
    waiting?.(seconds);
    await pause(seconds, signal);
    waiting?.(0);
  }
}

async function send(path, body, signal) {
  const headers = { ...(body && { "Content-Type": "application/json" }), ...(key && { Authorization: `Bearer ${key}` }) };
  try {
    return await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server does not answer. See whether it runs, then try again.", 0);
  }
}

/** Returns the seconds after which a busy server wants to be asked again, or null. */
function retryAfter(response) {
  const given = response.headers.get("Retry-After");
  if (![429, 503].includes(response.status) || given === null) return null;
  const seconds = Number.isNaN(Number(given)) ? (Date.parse(given) - Date.now()) / 1000 : Number(given);
  return Math.min(Math.max(seconds, 0.1), 60);
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, 1000 * seconds);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

async function content(response) {
  const found = await response.json().catch(() => ({}));
  if (response.ok) return found;
  throw new ServerError(oneLine(found.error, response.status), response.status);
}

function oneLine(message, status) {
  if (status === 401) return "The server needs an API key, or does not know this one.";
  if (typeof message !== "string" || !message) return `The server answered with status ${status}.`;
  return message.split(/\s+/).join(" ").slice(0, 500);
}
