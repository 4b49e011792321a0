/** What the page knows, in one place, and who is told when it changes. */

import { post } from "./api.js";

/** @typedef {import("./types.js").ObjectId} ObjectId */
/** @typedef {import("./types.js").Edit} Edit */
/** @typedef {import("./types.js").Project} Project */
/** @typedef {import("./types.js").Thing} Thing */
/** @typedef {"point" | "box" | "paint" | "erase"} Tool */

/**
 * Topics: project (a new one), progress (of a pass), prompts (edits of this page too), objects
 * (list, selection, visibility), frame (another is wanted), shown (another is on the canvas),
 * masks (of the shown frame), tool, play, view (zoom, pointer), tiles, connection.
 * @typedef {"project" | "progress" | "prompts" | "objects" | "frame" | "shown" | "masks" |
 *   "tool" | "play" | "view" | "tiles" | "connection"} Topic
 */
/** @type {Map<Topic, ((detail?: any) => void)[]>} */
const listeners = new Map();

/** @param {Topic[]} topics @param {(detail?: any) => void} listener */
export function on(topics, listener) {
  for (const topic of topics) listeners.set(topic, [...(listeners.get(topic) ?? []), listener]);
}

/** @param {Topic} topic @param {any} [detail] */
export function emit(topic, detail) {
  for (const listener of listeners.get(topic) ?? []) listener(detail);
}

/** Okabe and Ito's colours, lightened for a dark ground, and six more between them. */
export const PALETTE = /** @type {[number, number, number][]} */ ([
  [230, 159, 0], [86, 180, 233], [0, 178, 126], [240, 228, 66], [204, 121, 167], [240, 110, 40],
  [60, 130, 246], [235, 235, 235], [150, 210, 80], [178, 120, 240], [160, 120, 80], [120, 220, 220],
]);
/** @param {number} color */
export const rgb = (color) => PALETTE[color % PALETTE.length];
/** @param {number} color @param {number} [alpha] */
export const css = (color, alpha = 1) => `rgb(${rgb(color).join(" ")} / ${alpha})`;

export const state = {
  /** @type {Project | null} */
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

/** @param {ObjectId | null} id */
export const colorOf = (id) => objects().find((thing) => thing.id === id)?.color ?? 0;

/** @param {ObjectId} id */
export const isHidden = (id) => state.allHidden || state.hidden.has(id);

/** @param {ObjectId | null} id */
export function select(id) {
  state.selected = id;
  emit("objects");
}

export function newObject() {
  const all = objects();
  const numbers = all.map(({ id }) => (typeof id === "number" ? id : 0));
  const id = Math.max(0, ...numbers) + 1;
  const color = all.reduce((next, thing) => Math.max(next, thing.color + 1), 0);
  state.fresh.push({ id, color });
  select(id);
  return id;
}

/** @param {number} step */
export function selectNext(step) {
  const all = objects();
  if (!all.length) return;
  const at = all.findIndex(({ id }) => id === state.selected);
  select(all[(at + step + all.length) % all.length].id);
}

/** @param {ObjectId} id */
export function toggleHidden(id) {
  if (!state.hidden.delete(id)) state.hidden.add(id);
  emit("objects");
}

/** @param {Project} project */
export function setProject(project) {
  const before = objects().find(({ id }) => id === state.selected);
  state.project = project;
  const known = new Set(project.objects.map(({ id }) => id));
  state.fresh = state.fresh.filter(({ id }) => !known.has(id));
  // Its last prompt was undone: it stays selected, for the next one.
  if (before && !objects().some(({ id }) => id === before.id)) state.fresh.push(before);
  const all = objects();
  if (!all.some(({ id }) => id === state.selected)) state.selected = all[0]?.id ?? null;
  emit("project");
  emit("objects");
}

/** @param {import("./types.js").Progress} progress */
export function setProgress(progress) {
  const project = state.project;
  if (!project) return;
  project.tracking = progress.tracking;
  if (progress.tracking) state.setAside = false;
  project.mend = progress.mend;
  if (progress.tracked) project.tracked = joined(project.tracked, progress.tracked);
  emit("progress", progress);
}

/** @param {import("./types.js").Range[]} ranges @param {import("./types.js").Range} added */
export function joined(ranges, [first, last]) {
  const apart = ranges.filter(([a, b]) => b < first - 1 || a > last + 1);
  for (const [a, b] of ranges) {
    if (b >= first - 1 && a <= last + 1) [first, last] = [Math.min(a, first), Math.max(b, last)];
  }
  return [...apart, /** @type {[number, number]} */ ([first, last])].sort((a, b) => a[0] - b[0]);
}

/** @type {{text: string, level: import("./types.js").Level, at: number}} */
let latest = { text: "", level: "info", at: 0 };

/** Show a message; warnings and errors stay for longer. The same one twice in a row counts once.
 * @param {import("./types.js").Level} level @param {string} text */
export function say(level, text) {
  const now = performance.now();
  if (text === latest.text && now - latest.at < 2000) return;
  latest = { text, level, at: now };
  const item = document.createElement("p");
  item.className = level;
  item.textContent = text;
  const close = document.createElement("button");
  close.textContent = "×";
  close.ariaLabel = "Close message";
  close.onclick = () => item.remove();
  item.append(close);
  const area = byId("messages", HTMLElement);
  area.append(item);
  while (area.children.length > 4) area.firstElementChild?.remove();
  window.setTimeout(() => item.remove(), level === "error" ? 20000 : level === "info" ? 5000 : 9000);
}

/** Send a command; what the server refuses is shown. @param {string} name @param {object} body
 * @returns {Promise<boolean>} Whether it was taken. */
export async function command(name, body) {
  try {
    await post(`api/${name}`, body);
    return true;
  } catch (error) {
    say("error", error instanceof TypeError ? "The server cannot be reached." : String(
      error instanceof Error ? error.message : error,
    ));
    return false;
  }
}

/** @template {Element} T @param {string} id @param {new () => T} kind @returns {T} */
export function byId(id, kind) {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`no ${kind.name} with id ${id}`);
  return element;
}

/** @param {number} frame */
export function timeOf(frame) {
  const rate = state.project?.video?.rate;
  if (!rate) return "";
  const ms = Math.round((frame / rate) * 1000);
  const [h, m, s] = [Math.floor(ms / 3600000), Math.floor(ms / 60000) % 60, (ms / 1000) % 60];
  return `${h}:${String(m).padStart(2, "0")}:${(Math.floor(s * 1000) / 1000).toFixed(3).padStart(6, "0")}`;
}

/** @param {number} seconds */
export function duration(seconds) {
  if (seconds < 60) return `${Math.ceil(seconds)} s`;
  const minutes = Math.ceil(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
