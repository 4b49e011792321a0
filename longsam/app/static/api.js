/** Talks to the server: requests, and the WebSocket of events. All addresses are relative. */
/** This tab, to the server: one tab controls, others watch. */
export const tab = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
  byte.toString(16).padStart(2, "0")).join("");

/** The server refused; the message is a sentence for the user. */
export class Refused extends Error {
  constructor(/** @type {number} */ status, /** @type {string} */ message) {
    super(message);
    this.status = status;
  }
}

/** @param {unknown} error */
export const isAbort = (error) => error instanceof DOMException && error.name === "AbortError";
export const reasonOf = (/** @type {unknown} */ error) =>
  error instanceof TypeError ? "the server cannot be reached." : error instanceof Error ? error.message : String(error);

/** @param {string} path @param {RequestInit} [options] */
export async function request(path, options) {
  const response = await fetch(path, options);
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({})); // not JSON: the status has to do
  throw new Refused(response.status, error ?? `The server answered ${response.status} ${response.statusText}.`);
}

/** @param {string} path @param {RequestInit} [options] @returns {Promise<any>} */
export const get = async (path, options) => (await request(path, options)).json();

/** @param {string} path @param {object} body @returns {Promise<any>} */
export async function post(path, body) {
  const headers = { "Content-Type": "application/json", "X-Tab": tab };
  const text = await (await request(path, { method: "POST", headers, body: JSON.stringify(body) })).text();
  return text ? JSON.parse(text) : null;
}

/** The lossless frame, among widths of JPEGs. */
export const LOSSLESS = 1e6;
export const WIDTHS = [640, 960, 1280, 1920, 2560];
let sequence = 0;

/** @param {number} frame @param {number} width One of WIDTHS, or LOSSLESS.
 * @param {boolean} toShow It is waited for: the server may drop those asked for before it. */
export function frameUrl(frame, width, toShow) {
  const shown = toShow ? `tab=${tab}&seq=${++sequence}` : "";
  return width === LOSSLESS ? `api/frame/${frame}.png?${shown}` : `api/frame/${frame}.jpg?width=${width}&${shown}`;
}

/** Listen to the server's events; reconnect with exponential backoff. The server sends the whole project
 * first, so that a new connection needs nothing else.
 * @param {(event: any) => void} onEvent @param {(connected: boolean, reason: string) => void} onConnection */
export function listen(onEvent, onConnection) {
  let failures = 0;
  /** @type {number | undefined} */
  let timer;
  /** @type {WebSocket | null} */
  let socket = null;
  function connect() {
    window.clearTimeout(timer);
    const url = new URL(`api/events?tab=${tab}`, document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    const opened = (socket = new WebSocket(url));
    opened.onopen = () => onConnection(true, "");
    opened.onmessage = (message) => {
      failures = 0;
      onEvent(JSON.parse(message.data));
    };
    opened.onclose = () => {
      socket = null;
      const seconds = Math.min(10, 0.5 * 2 ** failures++) * (0.75 + Math.random() / 2);
      timer = window.setTimeout(connect, seconds * 1000);
      onConnection(false, `No connection. Trying again in ${Math.ceil(seconds)} s.`);
      get("api/project").catch((error) => { // a WebSocket does not say why it was refused
        if (error instanceof Refused && !socket) onConnection(false, error.message);
      });
    };
  }
  window.addEventListener("online", () => socket || connect());
  document.addEventListener("visibilitychange", () => document.hidden || socket || connect());
  connect();
}
