/** The timeline's tiles: fetched, kept, and drawn to bitmaps away from the screen. */

import { getBuffer } from "./api.js";
import { emit, on, rgb, state } from "./state.js";

export const BINS = 256;
const KEPT = 400;
const AT_ONCE = 3; // requests; the rest of a browser's six are for frames
/**
 * @typedef {{level: number, at: number, rows: number, data: Uint8Array, height: number,
 *   bitmap: OffscreenCanvas | null, stale: boolean, used: number}} Tile  height: of a row
 */
/** @type {Map<string, Tile>} */
const tiles = new Map();
/** @type {Map<string, AbortController>} */
const coming = new Map();
/** @type {Set<string>} Changed on their way here. */
const overtaken = new Set();
let clock = 0;
/** Device pixels of a row, told by the timeline. */
let rowHeight = 16;
/** @type {[number, number][]} Level and place of those that are seen, most needed first. */
let needed = [];
/** @type {number | undefined} */
let timer;

/** The least level whose one tile has the whole video. */
export const topLevel = () =>
  Math.max(0, Math.ceil(Math.log2((state.project?.video?.num_frames ?? 1) / BINS)));

/** The tile if it is here; never fetches. @param {number} level @param {number} at */
export function tileAt(level, at) {
  const tile = tiles.get(`${level}/${at}`);
  if (tile) tile.used = ++clock;
  return tile ?? null;
}

/** Say what is seen; fetched a moment later, when the view has not moved on.
 * @param {number} level @param {number} first @param {number} last */
export function need(level, first, last) {
  needed = [[topLevel(), 0]];
  for (let at = first; at <= last; at++) needed.push([level, at]);
  window.clearTimeout(timer);
  timer = window.setTimeout(fetchNeeded, 60);
}

function fetchNeeded() {
  const keys = new Set(needed.map(([level, at]) => `${level}/${at}`));
  for (const [key, controller] of coming) if (!keys.has(key)) controller.abort();
  for (const [level, at] of needed) {
    const key = `${level}/${at}`;
    if (coming.size >= AT_ONCE) return;
    if (!coming.has(key) && tiles.get(key)?.stale !== false) fetchTile(key, level, at);
  }
}

/** @param {string} key @param {number} level @param {number} at */
async function fetchTile(key, level, at) {
  const controller = new AbortController();
  coming.set(key, controller);
  try {
    const buffer = await getBuffer(`api/timeline/${key}`, controller.signal);
    const rows = new DataView(buffer).getUint32(0, true);
    const data = new Uint8Array(buffer, 8, rows * BINS * 3);
    const tile = { level, at, rows, data, height: 0, bitmap: null, stale: overtaken.has(key), used: ++clock };
    paint(tile);
    tiles.set(key, tile);
    if (tiles.size > KEPT) dropOldest();
    emit("tiles");
  } catch {
    // Left out, or the server is away: asked for again when the view or the project changes.
    coming.delete(key);
    return;
  } finally {
    overtaken.delete(key);
  }
  coming.delete(key);
  fetchNeeded();
}

function dropOldest() {
  const oldest = [...tiles.entries()].sort((a, b) => a[1].used - b[1].used);
  for (const [key] of oldest.slice(0, KEPT / 4)) tiles.delete(key);
}

/** @param {Tile} tile */
function paint(tile) {
  const { rows, data } = tile;
  const height = rowHeight;
  const image = new ImageData(BINS, Math.max(1, rows * height));
  const pixels = new Uint32Array(image.data.buffer);
  const room = height - 3;
  for (let row = 0; row < rows; row++) {
    const [r, g, b] = rgb(state.project?.objects[row]?.color ?? row);
    const color = r | (g << 8) | (b << 16);
    const [band, below] = [(color | (235 << 24)) >>> 0, (color | (95 << 24)) >>> 0];
    const [least, most, score] = [0, 1, 2].map((kind) => (row * 3 + kind) * BINS);
    const bottom = row * height + height - 2;
    for (let bin = 0, before = -1; bin < BINS; bin++) {
      const [low, high] = [data[least + bin], data[most + bin]];
      if (high) {
        const to = bottom - Math.round(((high - 1) / 254) * room);
        const from = bottom - Math.round(((Math.max(low, 1) - 1) / 254) * room);
        for (let y = to; y <= bottom; y++) {
          if (high > 1 || y === bottom) pixels[y * BINS + bin] = y <= from ? band : below;
        }
      }
      const value = height >= 12 ? data[score + bin] : 0;
      if (value) {
        const y = bottom - Math.round(((value - 1) / 254) * room);
        const other = before < 0 ? y : before;
        for (let i = Math.min(y, other); i <= Math.max(y, other); i++) {
          pixels[i * BINS + bin] = 0xd0ffffff;
        }
        before = y;
      } else before = -1;
    }
  }
  tile.bitmap ??= new OffscreenCanvas(1, 1);
  tile.bitmap.width = BINS;
  tile.bitmap.height = image.height;
  tile.bitmap.getContext("2d")?.putImageData(image, 0, 0);
  tile.height = height;
}

/** @param {number} height Of a row, in device pixels. */
export function setRowHeight(height) {
  if (height === rowHeight) return;
  rowHeight = height;
  repaint();
}

/** A few at a time, so that the screen goes on. */
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
  for (const key of coming.keys()) overtaken.add(key);
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
