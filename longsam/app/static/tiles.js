/** The timeline's tiles: fetched, kept, and drawn to bitmaps away from the screen. */
import { request } from "./api.js";
import { emit, numFrames, on, pixelOf, state } from "./state.js";

export const BINS = 256;
const KEPT = 400;
const AT_ONCE = 3; // requests; the rest of a browser's six are for frames
/** @typedef {{level: number, at: number, rows: number, data: Uint8Array, height: number,
 *   bitmap: OffscreenCanvas, stale: boolean, used: number}} Tile  height: of a row */
/** @type {Map<string, Tile>} */
const tiles = new Map();
/** Stale: changed on the way here. @type {Map<string, {controller: AbortController, stale: boolean}>} */
const coming = new Map();
/** Level and place of those that are seen. @type {[number, number][]} */
let needed = [];
let clock = 0;
/** Device pixels of a row, told by the timeline. */
let rowHeight = 16;
/** @type {number | undefined} */
let timer;
/** The least level whose one tile has the whole video. */
export const topLevel = () => Math.max(0, Math.ceil(Math.log2(numFrames() / BINS)));

/** The tile if it is here; never fetches. @param {number} level @param {number} at */
export function tileAt(level, at) {
  const tile = tiles.get(`${level}/${at}`);
  if (tile) tile.used = ++clock;
  return tile;
}
/** Say what is seen; fetched a moment later, if the view has not moved on.
 * @param {number} level @param {number} first @param {number} last */
export function need(level, first, last) {
  needed = [[topLevel(), 0]]; // drawn where others are not here yet
  for (let at = first; at <= last; at++) needed.push([level, at]);
  window.clearTimeout(timer);
  timer = window.setTimeout(fetchNeeded, 60);
}
function fetchNeeded() {
  const keys = new Set(needed.map(([level, at]) => `${level}/${at}`));
  for (const [key, { controller }] of coming) if (!keys.has(key)) controller.abort();
  for (const [level, at] of needed) {
    const key = `${level}/${at}`;
    if (coming.size >= AT_ONCE) return;
    if (!coming.has(key) && tiles.get(key)?.stale !== false) fetchTile(key, level, at);
  }
}

async function fetchTile(/** @type {string} */ key, /** @type {number} */ level, /** @type {number} */ at) {
  const own = { controller: new AbortController(), stale: false };
  coming.set(key, own);
  try {
    const buffer = await (await request(`api/timeline/${key}`, { signal: own.controller.signal })).arrayBuffer();
    const rows = new DataView(buffer).getUint32(0, true);
    const data = new Uint8Array(buffer, 8, rows * BINS * 3);
    const bitmap = new OffscreenCanvas(BINS, 1);
    const tile = { level, at, rows, data, bitmap, height: 0, stale: own.stale, used: ++clock };
    paint(tile);
    tiles.set(key, tile);
    coming.delete(key);
    const oldest = tiles.size > KEPT ? [...tiles].sort((a, b) => a[1].used - b[1].used) : [];
    for (const [old] of oldest.slice(0, KEPT / 4)) tiles.delete(old);
    emit("tiles");
    fetchNeeded();
  } catch {
    coming.delete(key); // left out, or the server is away: the next `need` asks again
  }
}

function paint(/** @type {Tile} */ tile) {
  const { rows, data, bitmap } = tile;
  const [height, room] = [rowHeight, rowHeight - 3];
  const image = new ImageData(BINS, Math.max(1, rows * height));
  const pixels = new Uint32Array(image.data.buffer);
  for (let row = 0; row < rows; row++) {
    const color = state.project?.objects[row]?.color ?? row;
    const [band, below] = [pixelOf(color, 235), pixelOf(color, 95)];
    const [least, most, score] = [0, 1, 2].map((kind) => (row * 3 + kind) * BINS);
    const bottom = (row + 1) * height - 2;
    const yOf = (/** @type {number} */ value) => bottom - Math.round(((Math.max(value, 1) - 1) / 254) * room);
    for (let bin = 0, before = 0; bin < BINS; bin++) {
      const [low, high] = [data[least + bin], data[most + bin]];
      const from = yOf(low);
      for (let y = high ? yOf(high) : bottom + 1; y <= bottom; y++) {
        if (high > 1 || y === bottom) pixels[y * BINS + bin] = y <= from ? band : below;
      }
      const y = height >= 12 && data[score + bin] ? yOf(data[score + bin]) : 0;
      for (let i = Math.min(y, before || y); y && i <= Math.max(y, before); i++) pixels[i * BINS + bin] = 0xd0ffffff;
      before = y;
    }
  }
  bitmap.height = image.height;
  bitmap.getContext("2d")?.putImageData(image, 0, 0);
  tile.height = height;
}

/** @param {number} height Of a row, in device pixels. */
export function setRowHeight(height) {
  if (height === rowHeight) return;
  rowHeight = height;
  window.setTimeout(repaint);
}
/** A few at a time, so that the screen does not freeze. */
function repaint() {
  const old = [...tiles.values()].filter((tile) => tile.height !== rowHeight);
  old.sort((a, b) => b.used - a.used);
  old.slice(0, 4).forEach(paint);
  if (old.length > 4) window.setTimeout(repaint, 16);
  emit("tiles");
}

/** @type {number | undefined} */
let later;
/** @param {number} first @param {number} last Frames whose masks are new. */
function changed(first, last) {
  for (const tile of tiles.values()) {
    const frames = BINS * 2 ** tile.level;
    if (tile.at * frames <= last && (tile.at + 1) * frames > first) tile.stale = true;
  }
  for (const own of coming.values()) own.stale = true;
  later ??= window.setTimeout(() => {
    later = undefined;
    fetchNeeded();
  }, 500);
}

let rows = "";
on(["project"], () => {
  const now = JSON.stringify([state.project?.video?.name, state.project?.objects]);
  if (now !== rows) tiles.clear(); // other rows, or other colours
  rows = now;
  changed(0, Infinity);
});
on(["progress"], ({ changed: range }) => range && changed(range[0], range[1]));
