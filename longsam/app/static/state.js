/** What the page knows, in one place, and who listens to its changes. */
import { post, reasonOf } from "./api.js";
/** @typedef {import("./types.js").ObjectId} ObjectId @typedef {import("./types.js").Thing} Thing */
/** @typedef {"point" | "box" | "paint" | "erase"} Tool */
/**
 * Topics: project (a new one), progress (of a pass), prompts (edits of this page too), objects (list,
 * selection, visibility), frame (another is wanted), shown (another is on the canvas), masks (of a frame
 * have come), tool, play, view (zoom, pointer), tiles (of the timeline), connection.
 * @typedef {"project" | "progress" | "prompts" | "objects" | "frame" | "shown" | "masks" |
 *   "tool" | "play" | "view" | "tiles" | "connection"} Topic
 */
/** @type {Map<Topic, ((detail?: any) => void)[]>} */
const listeners = new Map();

export function on(/** @type {Topic[]} */ topics, /** @type {(detail?: any) => void} */ listener) {
  for (const topic of topics) listeners.set(topic, [...(listeners.get(topic) ?? []), listener]);
}
/** @param {Topic} topic @param {any} [detail] */
export const emit = (topic, detail) => listeners.get(topic)?.forEach((listener) => listener(detail));

/** Okabe and Ito's colours, lightened for a dark ground, and more between them. */
export const PALETTE = /** @type {[number, number, number][]} */ ([
  [230, 159, 0], [86, 180, 233], [0, 178, 126], [240, 228, 66], [204, 121, 167], [240, 110, 40],
  [60, 130, 246], [235, 235, 235], [150, 210, 80], [178, 120, 240], [160, 120, 80], [120, 220, 220],
]);
export const rgb = (/** @type {number} */ color) => PALETTE[color % PALETTE.length];
export const css = (/** @type {number} */ color) => `rgb(${rgb(color).join(" ")})`;
/** A pixel of an ImageData seen as Uint32Array: little-endian, as all that run browsers.
 * @param {number} color @param {number} alpha 0 to 255. */
export function pixelOf(color, alpha) {
  const [red, green, blue] = rgb(color);
  return (red | (green << 8) | (blue << 16) | (alpha << 24)) >>> 0;
}

export const state = {
  /** @type {import("./types.js").Project | null} */
  project: null,
  connected: false,
  events: 0,
  /** @type {Thing[]} Objects made here that have no prompts yet. */
  fresh: [],
  /** @type {ObjectId | null} */
  selected: null,
  /** @type {Set<ObjectId>} */
  hidden: new Set(),
  allHidden: false,
  /** @type {Tool} */
  tool: "point",
  brush: 24,
  /** The frame that the user wants to see; `shown` of player.js is what there is to see. */
  frame: 0,
  playing: false,
  speed: 1,
  scrubbing: false,
  /** Whether the user has stopped the unfinished pass: Track begins a new one. */
  setAside: false,
};

/** @returns {Thing[]} */
export const objects = () => [...(state.project?.objects ?? []), ...state.fresh];
/** Those that can be prompted; others only have masks. */
export const present = () => objects().filter(({ removed }) => !removed);
/** @param {ObjectId | null} id */
export const colorOf = (id) => objects().find((thing) => thing.id === id)?.color ?? 0;
export const isHidden = (/** @type {ObjectId} */ id) => state.allHidden || state.hidden.has(id);
export const numFrames = () => state.project?.video?.num_frames ?? 1;

export function select(/** @type {ObjectId | null} */ id) {
  state.selected = id;
  emit("objects");
}
export function newObject() {
  const all = objects();
  const id = Math.max(0, ...all.map((thing) => (typeof thing.id === "number" ? thing.id : 0))) + 1;
  state.fresh.push({ id, color: Math.max(-1, ...all.map(({ color }) => color)) + 1 });
  select(id);
  return id;
}
export function selectNext() {
  const all = present();
  if (all.length) select(all[(all.findIndex(({ id }) => id === state.selected) + 1) % all.length].id);
}
export function toggleHidden(/** @type {ObjectId | null} */ id) {
  if (id !== null && !state.hidden.delete(id)) state.hidden.add(id);
  emit("objects");
}

export function setProject(/** @type {import("./types.js").Project} */ project) {
  const before = objects().find(({ id }) => id === state.selected);
  state.project = project;
  const known = new Set(project.objects.map(({ id }) => id));
  state.fresh = state.fresh.filter(({ id }) => !known.has(id));
  // Its last prompt was undone: it stays selected, for the next one.
  if (before && !objects().some(({ id }) => id === before.id)) state.fresh.push(before);
  state.selected ??= present()[0]?.id ?? null;
  emit("project");
  emit("objects");
}

export function setProgress(/** @type {import("./types.js").Progress} */ progress) {
  const { project } = state;
  if (!project) return;
  Object.assign(project, { tracking: progress.tracking, correction: progress.correction });
  if (progress.tracking) state.setAside = false;
  if (progress.tracked) project.tracked = joined(project.tracked, progress.tracked);
  emit("progress", progress);
}

/** @param {import("./types.js").Range[]} ranges @param {import("./types.js").Range} added */
function joined(ranges, [first, last]) {
  const apart = ranges.filter(([a, b]) => b < first - 1 || a > last + 1);
  for (const [a, b] of ranges) {
    if (b >= first - 1 && a <= last + 1) [first, last] = [Math.min(a, first), Math.max(b, last)];
  }
  return [...apart, /** @type {[number, number]} */ ([first, last])].sort((a, b) => a[0] - b[0]);
}
let latest = { text: "", at: 0 };
/** Show a message for a while; the same one twice in a row counts once.
 * @param {"info" | "warning" | "error"} level @param {string} text */
export function say(level, text) {
  const now = performance.now();
  if (text === latest.text && now - latest.at < 2000) return;
  latest = { text, at: now };
  const item = Object.assign(document.createElement("p"), { className: level, textContent: text });
  const onclick = () => item.remove();
  item.append(Object.assign(document.createElement("button"), { textContent: "×", ariaLabel: "Close message", onclick }));
  const area = byId("messages", HTMLElement);
  area.append(item);
  while (area.children.length > 4) area.firstElementChild?.remove();
  window.setTimeout(onclick, { info: 5000, warning: 9000, error: 20000 }[level] ?? 5000);
}

/** Send a command; what the server refuses is shown. @param {string} name @param {object} body
 * @returns {Promise<boolean>} Whether it was taken. */
export const command = (name, body) =>
  post(`api/${name}`, body).then(() => true, (error) => (say("error", reasonOf(error)), false));
export function watches() {
  if (state.project?.control) return false;
  say("warning", "This tab watches. Take control first.");
  return true;
}

/** @template {Element} T @param {string} id @param {new () => T} kind @returns {T} */
export function byId(id, kind) {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`no ${kind.name} with id ${id}`);
  return element;
}

export function timeOf(/** @type {number} */ frame) {
  const rate = state.project?.video?.rate;
  if (!rate) return "";
  const ms = Math.floor((frame / rate) * 1000 + 1e-6);
  const rest = new Date(ms % 3600000).toISOString().slice(14, 23); // mm:ss.mmm
  return `${Math.floor(ms / 3600000)}:${rest}`;
}

export function duration(/** @type {number} */ seconds) {
  const minutes = Math.ceil(seconds / 60);
  if (minutes < 60) return seconds < 60 ? `${Math.ceil(seconds)} s` : `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
