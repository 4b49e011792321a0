/** The timeline under the frame: a row an object; click to jump, wheel to zoom, drag to pan. */
import { layer, wheelOf } from "./canvas.js";
import { goTo, setScrubbing, shown } from "./player.js";
import { allPrompts } from "./prompts.js";
import { byId, css, numFrames, objects, on, select, state, timeOf } from "./state.js";
import { BINS, need, setRowHeight, tileAt, topLevel } from "./tiles.js";
const NAMES = 96; // CSS pixels at the left
const RULER = 20; // CSS pixels at the top, with the tracked spans
const LEAST = 40; // frames from left to right
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 18000, 36000]; // seconds

const { canvas, context, redraw } = layer("timeline", draw, moved);
const tip = byId("tip", HTMLElement);
/** Frames from left to right, and CSS pixels that the rows are scrolled. */
const view = { first: 0, frames: 1, top: 0 };
/** Milliseconds of the last draws, for tests. @type {number[]} */
export const drawTimes = [];
/** What there is to mark, in rows; made again when it changes, not with each draw.
 * @type {{prompts: number[], spans: import("./types.js").Span[]}[]} */
let marks = [];
const width = () => Math.max(1, canvas.clientWidth - NAMES);
/** Where a frame's left edge is, in CSS pixels. @param {number} frame */
const xOf = (frame) => NAMES + ((frame - view.first) / view.frames) * width();
const frameAt = (/** @type {number} */ x) => view.first + ((x - NAMES) / width()) * view.frames;
const yOf = (/** @type {number} */ row) => RULER + row * rowHeight() - view.top;
const rowAt = (/** @type {number} */ y) => (y < RULER ? -1 : Math.floor((y - RULER + view.top) / rowHeight()));
function rowHeight() {
  const fitting = Math.floor((canvas.clientHeight - RULER) / Math.max(1, objects().length));
  return Math.max(8, Math.min(40, fitting));
}
function level() {
  const perPixel = view.frames / (width() * devicePixelRatio);
  return Math.max(0, Math.min(topLevel(), Math.ceil(Math.log2(perPixel))));
}

/** Stay within the video, and have the tiles come. */
function moved() {
  view.frames = Math.max(Math.min(LEAST, numFrames()), Math.min(numFrames(), view.frames));
  view.first = Math.max(0, Math.min(numFrames() - view.frames, view.first));
  const most = objects().length * rowHeight() - (canvas.clientHeight - RULER);
  view.top = Math.max(0, Math.min(most, view.top));
  const span = BINS * 2 ** level();
  need(level(), Math.floor(view.first / span), Math.floor((view.first + view.frames - 1) / span));
  redraw();
}
/** @param {number} factor @param {number} [x] CSS pixels; the wanted frame if not given. */
export function zoomTimeline(factor, x = xOf(state.frame)) {
  const frame = frameAt(x);
  const frames = Math.max(Math.min(LEAST, numFrames()), Math.min(numFrames(), view.frames / factor));
  view.first = frame - ((frame - view.first) * frames) / view.frames;
  view.frames = frames;
  moved();
}

function draw() {
  const began = performance.now();
  const { clientWidth: w, clientHeight: h } = canvas;
  context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  context.clearRect(0, 0, w, h);
  if (!state.project?.video) return;
  context.textBaseline = "middle";
  drawRuler(w);
  context.save();
  clip(0, RULER, w, h);
  drawRows(w);
  clip(NAMES, RULER, w, h);
  drawTiles();
  drawCorrection(Math.min(h, yOf(objects().length)));
  drawMarks();
  context.restore();
  context.fillStyle = "#fff";
  const x = Math.round(xOf(shown.frame + 0.5));
  if (x >= NAMES) context.fillRect(x - 1, 0, 2, h);
  drawTimes.push(performance.now() - began);
  if (drawTimes.length > 1000) drawTimes.shift();
}
/** @param {number} x @param {number} y @param {number} w @param {number} h */
function clip(x, y, w, h) {
  context.beginPath();
  context.rect(x, y, w - x, h - y);
  context.clip();
}

function drawRuler(/** @type {number} */ w) {
  context.font = "11px system-ui, sans-serif";
  const rate = state.project?.video?.rate ?? 0;
  const least = (view.frames / width()) * 90; // frames, so that the texts have room
  const inSeconds = rate > 0 && least > rate;
  const tens = [1, 2, 5].map((n) => n * 10 ** Math.ceil(Math.log10(least / n)));
  const seconds = STEPS.find((one) => one * rate >= least) ?? 36000;
  const step = inSeconds ? seconds * rate : Math.max(1, Math.min(...tens));
  for (let i = Math.ceil(view.first / step); i * step <= view.first + view.frames; i++) {
    const x = Math.round(xOf(i * step));
    context.fillStyle = "#3a3f47";
    context.fillRect(x, 0, 1, RULER);
    context.fillStyle = "#9aa3ad";
    const text = inSeconds ? timeOf(Math.round(i * step)).slice(0, -4) : String(i * step);
    if (x < w - 30) context.fillText(text, x + 4, 8);
  }
  for (const [first, last] of state.project?.tracked ?? []) bar("#5fa777", first, last, RULER - 4, 3);
}

/** @param {string | CanvasPattern} fill @param {number} first @param {number} last Frames.
 * @param {number} y @param {number} height */
function bar(fill, first, last, y, height) {
  const [left, right] = [Math.max(NAMES, xOf(first)), xOf(last + 1)];
  if (right <= NAMES || last < first || left > canvas.clientWidth) return;
  context.fillStyle = fill;
  context.fillRect(left, y, Math.max(1.5, right - left), height);
}

function drawRows(/** @type {number} */ w) {
  const height = rowHeight();
  context.font = `${Math.min(12, height)}px system-ui, sans-serif`;
  objects().forEach(({ id, color }, row) => {
    const [y, own] = [yOf(row), id === state.selected];
    context.fillStyle = own ? "#2b3037" : row % 2 ? "#1b1e22" : "#181b1f";
    context.fillRect(0, y, w, height - 1);
    context.fillStyle = css(color);
    context.fillRect(0, y, 4, height - 1);
    context.fillStyle = own ? "#fff" : "#b7bec7";
    context.fillText(String(id).slice(0, 14), 10, y + height / 2, NAMES - 14);
  });
}

function drawTiles() {
  const own = level();
  const span = BINS * 2 ** own;
  setRowHeight(Math.round(rowHeight() * devicePixelRatio));
  context.imageSmoothingEnabled = false;
  for (let at = Math.floor(view.first / span); at * span < view.first + view.frames; at++) {
    // What is not here yet is seen in a coarser tile.
    for (let up = 0; own + up <= topLevel(); up++) {
      const tile = tileAt(own + up, at >> up);
      if (!tile) continue;
      const bins = BINS / 2 ** up;
      const from = (at - ((at >> up) << up)) * bins;
      const [x0, x1] = [xOf(at * span), xOf((at + 1) * span)];
      const { bitmap, rows } = tile;
      context.drawImage(bitmap, from, 0, bins, bitmap.height, x0, yOf(0), x1 - x0, rows * rowHeight());
      break;
    }
  }
}

const hatch = (() => {
  const tile = new OffscreenCanvas(8, 8);
  const brush = /** @type {OffscreenCanvasRenderingContext2D} */ (tile.getContext("2d"));
  brush.strokeStyle = "rgb(255 255 255 / 0.55)";
  for (const x of [-8, 0, 8]) {
    brush.moveTo(x, 8);
    brush.lineTo(x + 8, 0);
  }
  brush.stroke();
  return /** @type {CanvasPattern} */ (context.createPattern(tile, "repeat"));
})();

/** Frames whose masks are from before the correction. @param {number} bottom */
function drawCorrection(bottom) {
  const correction = state.project?.correction;
  if (!correction) return;
  const at = correction.at ?? correction.frame;
  if (correction.reverse) bar(hatch, correction.first, Math.min(correction.last, at - 1), RULER, bottom - RULER);
  else bar(hatch, Math.max(correction.first, at + 1), correction.last, RULER, bottom - RULER);
  bar("#fff", correction.frame, correction.frame, RULER, bottom - RULER);
}

function collectMarks() {
  const rows = new Map(objects().map(({ id }, row) => [id, row]));
  marks = objects().map(() => ({ prompts: [], spans: [] }));
  for (const { object, frame } of allPrompts()) marks[rows.get(object) ?? -1]?.prompts.push(frame);
  for (const span of state.project?.spans ?? []) marks[rows.get(span.object) ?? -1]?.spans.push(span);
  for (const { prompts, spans } of marks) {
    prompts.sort((a, b) => a - b);
    spans.sort((a, b) => a.first - b.first);
  }
  moved();
}
function drawMarks() {
  const height = rowHeight();
  const end = view.first + view.frames;
  const least = view.frames / width(); // frames of a pixel: no more than one mark in it
  marks.forEach(({ prompts, spans }, row) => {
    const y = yOf(row);
    let before = -Infinity;
    for (const { first, last } of spans) {
      if (first > end) break;
      if (last < view.first || last - before < least) continue;
      bar("#ff5d73", first, last, y, Math.max(3, height * 0.2));
      before = last;
    }
    context.fillStyle = "#fff";
    before = -Infinity;
    for (const frame of prompts) {
      if (frame > end) break;
      if (frame < view.first || frame - before < least * 2) continue;
      before = frame;
      const x = xOf(frame + 0.5);
      context.beginPath();
      context.moveTo(x, y + height - 8);
      context.lineTo(x + 4, y + height - 1);
      context.lineTo(x - 4, y + height - 1);
      context.fill();
    }
  });
}

/** @type {{x: number, y: number, moved: boolean, ruler: boolean} | null} */
let press = null;

canvas.addEventListener("pointerdown", ({ offsetX: x, offsetY: y, pointerId }) => {
  canvas.setPointerCapture(pointerId);
  press = { x, y, moved: false, ruler: y < RULER && x >= NAMES };
  if (!press.ruler) return;
  setScrubbing(true);
  goTo(Math.floor(frameAt(x)));
});
canvas.addEventListener("pointermove", ({ offsetX: x, offsetY: y }) => {
  if (!press) return showTip(x, y);
  tip.hidden = true;
  if (press.ruler) return goTo(Math.floor(frameAt(x)));
  if (!press.moved && Math.hypot(x - press.x, y - press.y) <= 3) return;
  view.first -= ((x - press.x) / width()) * view.frames;
  view.top -= y - press.y;
  Object.assign(press, { x, y, moved: true });
  moved();
});
canvas.addEventListener("pointerup", ({ offsetX: x, offsetY: y }) => {
  const was = press;
  press = null;
  if (was?.ruler) return setScrubbing(false);
  if (!was || was.moved) return;
  const object = objects()[rowAt(y)];
  if (object) select(object.id);
  if (x >= NAMES) goTo(Math.floor(frameAt(x)));
});
canvas.addEventListener("pointerleave", () => (tip.hidden = true));
canvas.addEventListener("wheel", (event) => {
  const [sideways, down] = wheelOf(event);
  view.first += (sideways / width()) * view.frames;
  zoomTimeline(1.002 ** -down, Math.max(NAMES, event.offsetX));
}, { passive: false });

function showTip(/** @type {number} */ x, /** @type {number} */ y) {
  const frame = Math.floor(frameAt(x));
  tip.hidden = x < NAMES || !state.project?.video || frame >= numFrames();
  if (tip.hidden) return;
  const [row, slack] = [rowAt(y), (3 * view.frames) / width()];
  const span = marks[row]?.spans.find(({ first, last }) => frame >= first - slack && frame <= last + slack);
  const thing = objects()[row];
  const flagged = span ? `flagged ${span.first}–${span.last}: ${span.reasons.join(", ")}` : "";
  const parts = [String(frame), timeOf(frame), thing ? `object ${thing.id}` : "", flagged];
  tip.textContent = parts.filter(Boolean).join("  ·  ");
  const box = canvas.getBoundingClientRect();
  const left = Math.min(box.left + x + 12, window.innerWidth - tip.offsetWidth - 8);
  tip.style.transform = `translate(${left}px, ${box.top + y - 30}px)`;
}

let video = "";
on(["project"], () => {
  const now = state.project?.video?.name ?? "";
  if (now !== video) Object.assign(view, { first: 0, frames: numFrames(), top: 0 });
  video = now;
});
on(["project", "prompts", "objects"], collectMarks);
on(["progress", "tiles"], redraw);
on(["shown"], () => {
  const { first, frames } = view; // the frame shown stays in view, a page at a time
  if (press || (shown.frame >= first && shown.frame < first + frames)) return redraw();
  view.first = shown.frame - frames * (shown.frame < first ? 0.9 : 0.1);
  moved();
});
