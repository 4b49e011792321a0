/** The timeline under the frame: a row an object; click to jump, wheel to zoom, drag to pan. */

import { goTo, setScrubbing, shown } from "./player.js";
import { allPrompts } from "./prompts.js";
import { byId, css, emit, objects, on, state, timeOf } from "./state.js";
import { BINS, need, setRowHeight, tileAt, topLevel } from "./tiles.js";

const canvas = byId("timeline", HTMLCanvasElement);
const tip = byId("tip", HTMLElement);
const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
const NAMES = 96; // CSS pixels at the left
const RULER = 20; // CSS pixels at the top, with the tracked spans

/** Frames from left to right, and how far the rows are scrolled. */
const view = { first: 0, frames: 1, top: 0 };
let dirty = false;
/** Milliseconds of the last draws, for tests. @type {number[]} */
export const drawTimes = [];

const numFrames = () => state.project?.video?.num_frames ?? 1;
const width = () => Math.max(1, canvas.clientWidth - NAMES);
/** @param {number} frame Where its left edge is, in CSS pixels. */
const xOf = (frame) => NAMES + ((frame - view.first) / view.frames) * width();
/** @param {number} x */
const frameAt = (x) => view.first + ((x - NAMES) / width()) * view.frames;
const rowHeight = () => {
  const room = canvas.clientHeight - RULER;
  return Math.max(8, Math.min(40, Math.floor(room / Math.max(1, objects().length))));
};
const level = () => {
  const perPixel = view.frames / (width() * devicePixelRatio);
  return Math.max(0, Math.min(topLevel(), Math.ceil(Math.log2(perPixel))));
};

/** Stay within the video, and have the tiles come. */
function moved() {
  view.frames = Math.max(Math.min(40, numFrames()), Math.min(numFrames(), view.frames));
  view.first = Math.max(0, Math.min(numFrames() - view.frames, view.first));
  const most = objects().length * rowHeight() - (canvas.clientHeight - RULER);
  view.top = Math.max(0, Math.min(most, view.top));
  const span = BINS * 2 ** level();
  need(level(), Math.floor(view.first / span), Math.floor((view.first + view.frames - 1) / span));
  redraw();
}

/** @param {number} factor @param {number} [x] CSS pixels; the shown frame if not given. */
export function zoomTimeline(factor, x = xOf(state.frame)) {
  const frame = frameAt(x);
  const frames = Math.max(Math.min(40, numFrames()), Math.min(numFrames(), view.frames / factor));
  view.first = frame - ((frame - view.first) * frames) / view.frames;
  view.frames = frames;
  moved();
}

function redraw() {
  if (dirty) return;
  dirty = true;
  requestAnimationFrame(draw);
}

function draw() {
  const began = performance.now();
  dirty = false;
  const ratio = devicePixelRatio;
  const [w, h] = [canvas.clientWidth, canvas.clientHeight];
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, w, h);
  if (!state.project?.video) return;
  drawRuler(w);
  context.save();
  context.beginPath();
  context.rect(0, RULER, w, h - RULER);
  context.clip();
  drawRows(w);
  context.beginPath();
  context.rect(NAMES, RULER, w - NAMES, h - RULER);
  context.clip();
  drawTiles(ratio);
  drawMend(h);
  drawMarks();
  context.restore();
  const x = xOf(shown.frame + 0.5);
  if (x >= NAMES) {
    context.fillStyle = "#fff";
    context.fillRect(Math.round(x) - 1, 0, 2, h);
  }
  drawTimes.push(performance.now() - began);
  if (drawTimes.length > 1000) drawTimes.shift();
}

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 18000, 36000];

/** @param {number} w */
function drawRuler(w) {
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  const rate = state.project?.video?.rate ?? null;
  const least = (view.frames / width()) * 90;
  const inSeconds = rate !== null && least > rate;
  const nice = inSeconds
    ? (STEPS.find((step) => step * rate >= least) ?? 36000) * rate
    : [1, 2, 5].map((n) => n * 10 ** Math.ceil(Math.log10(least / n))).sort((a, b) => a - b)[0];
  const step = Math.max(1, nice);
  for (let i = Math.ceil(view.first / step); i * step <= view.first + view.frames; i++) {
    const x = Math.round(xOf(i * step));
    context.fillStyle = "#3a3f47";
    context.fillRect(x, 0, 1, RULER);
    context.fillStyle = "#9aa3ad";
    const text = inSeconds ? timeOf(Math.round(i * step)).replace(/\.\d+$/, "") : String(i * step);
    if (x < w - 30) context.fillText(text, x + 4, 8);
  }
  context.fillStyle = "#5fa777";
  for (const [first, last] of state.project?.tracked ?? []) bar(first, last, RULER - 4, 3);
}

/** @param {number} first @param {number} last @param {number} y @param {number} height */
function bar(first, last, y, height) {
  const left = Math.max(NAMES, xOf(first));
  const right = xOf(last + 1);
  if (right > NAMES && first <= view.first + view.frames) {
    context.fillRect(left, y, Math.max(1.5, right - left), height);
  }
}

/** @param {number} w */
function drawRows(w) {
  const height = rowHeight();
  const size = Math.min(12, height);
  context.font = `${size}px system-ui, sans-serif`;
  objects().forEach(({ id, color }, row) => {
    const y = RULER + row * height - view.top;
    if (y + height < RULER || y > canvas.clientHeight) return;
    const own = id === state.selected;
    context.fillStyle = own ? "#2b3037" : row % 2 ? "#1b1e22" : "#181b1f";
    context.fillRect(0, y, w, height - 1);
    context.fillStyle = css(color);
    context.fillRect(0, y, 4, height - 1);
    context.fillStyle = own ? "#fff" : "#b7bec7";
    context.fillText(String(id).slice(0, 14), 10, y + height / 2, NAMES - 14);
  });
}

/** @param {number} ratio */
function drawTiles(ratio) {
  const own = level();
  const span = BINS * 2 ** own;
  setRowHeight(Math.round(rowHeight() * ratio));
  context.imageSmoothingEnabled = false;
  const last = Math.floor((view.first + view.frames - 1) / span);
  for (let at = Math.floor(view.first / span); at <= last; at++) {
    // What is not here yet is seen in a coarser tile.
    for (let up = 0; own + up <= topLevel(); up++) {
      const tile = tileAt(own + up, at >> up);
      if (!tile?.bitmap) continue;
      const bins = BINS / 2 ** up;
      const from = (at - ((at >> up) << up)) * bins;
      const [x0, x1] = [xOf(at * span), xOf((at + 1) * span)];
      const height = tile.rows * rowHeight();
      const y = RULER - view.top;
      context.drawImage(tile.bitmap, from, 0, bins, tile.bitmap.height, x0, y, x1 - x0, height);
      break;
    }
  }
}

const hatch = (() => {
  const tile = new OffscreenCanvas(8, 8);
  const brush = /** @type {OffscreenCanvasRenderingContext2D} */ (tile.getContext("2d"));
  brush.strokeStyle = "rgb(255 255 255 / 0.55)";
  brush.lineWidth = 1.5;
  for (const x of [-8, 0, 8]) {
    brush.moveTo(x, 8);
    brush.lineTo(x + 8, 0);
  }
  brush.stroke();
  return /** @type {CanvasPattern} */ (context.createPattern(tile, "repeat"));
})();

/** Frames whose masks are from before the mend. @param {number} h */
function drawMend(h) {
  const mend = state.project?.mend;
  if (!mend) return;
  let { first, last } = mend;
  const at = mend.at ?? mend.frame;
  if (mend.reverse) last = Math.min(last, at - 1);
  else first = Math.max(first, at + 1);
  context.fillStyle = hatch;
  const bottom = Math.min(h - RULER, objects().length * rowHeight() - view.top);
  if (last >= first) bar(first, last, RULER, bottom);
  context.fillStyle = "#fff";
  bar(mend.frame, mend.frame, RULER, bottom);
}

/** What there is to mark, in rows; made anew when it changes, not with each draw.
 * @type {{prompts: number[], spans: import("./types.js").Span[]}[]} */
let marks = [];

function collectMarks() {
  const rows = new Map(objects().map(({ id }, row) => [id, row]));
  marks = objects().map(() => ({ prompts: [], spans: [] }));
  for (const { object, frame } of allPrompts()) marks[rows.get(object) ?? -1]?.prompts.push(frame);
  for (const span of state.project?.spans ?? []) marks[rows.get(span.object) ?? -1]?.spans.push(span);
  for (const row of marks) {
    row.prompts.sort((a, b) => a - b);
    row.spans.sort((a, b) => a.first - b.first);
  }
  moved();
}

function drawMarks() {
  const height = rowHeight();
  const end = view.first + view.frames;
  const least = view.frames / width(); // frames of a pixel: no more than one mark in it
  marks.forEach(({ prompts, spans }, row) => {
    const y = RULER + row * height - view.top;
    if (y + height < RULER || y > canvas.clientHeight) return;
    context.fillStyle = "#ff5d73";
    let before = -Infinity;
    for (const { first, last } of spans) {
      if (first > end) break;
      if (last < view.first || last - before < least) continue;
      bar(first, last, y, Math.max(3, height * 0.2));
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

// Pointer -----------------------------------------------------------------------------------------

/** @type {{x: number, y: number, lastX: number, lastY: number, moved: boolean, ruler: boolean} | null} */
let press = null;

canvas.addEventListener("pointerdown", (event) => {
  const [x, y] = [event.offsetX, event.offsetY];
  canvas.setPointerCapture(event.pointerId);
  press = { x, y, lastX: x, lastY: y, moved: false, ruler: y < RULER && x >= NAMES };
  if (press.ruler) setScrubbing(true);
  if (press.ruler) goTo(frameAt(x));
});

canvas.addEventListener("pointermove", (event) => {
  const [x, y] = [event.offsetX, event.offsetY];
  if (!press) return showTip(x, y);
  tip.hidden = true;
  if (press.ruler) return goTo(frameAt(x));
  press.moved ||= Math.hypot(x - press.x, y - press.y) > 3;
  if (press.moved) {
    view.first -= ((x - press.lastX) / width()) * view.frames;
    view.top -= y - press.lastY;
    [press.lastX, press.lastY] = [x, y];
    moved();
  }
});

canvas.addEventListener("pointerup", (event) => {
  const was = press;
  press = null;
  if (was?.ruler) return setScrubbing(false);
  if (!was || was.moved) return;
  const object = objects()[rowAt(event.offsetY)];
  if (object && object.id !== state.selected) {
    state.selected = object.id;
    emit("objects");
  }
  if (event.offsetX >= NAMES) goTo(Math.floor(frameAt(event.offsetX)));
});
canvas.addEventListener("pointerleave", () => (tip.hidden = true));

/** @param {number} y */
const rowAt = (y) => (y < RULER ? -1 : Math.floor((y - RULER + view.top) / rowHeight()));

/** @param {number} x @param {number} y */
function showTip(x, y) {
  const frame = Math.floor(frameAt(x));
  tip.hidden = x < NAMES || !state.project?.video || frame >= numFrames();
  if (tip.hidden) return;
  const row = rowAt(y);
  const slack = (3 * view.frames) / width();
  const span = marks[row]?.spans.find((one) => frame >= one.first - slack && frame <= one.last + slack);
  const thing = objects()[row];
  const parts = [`${frame}`, timeOf(frame), thing ? `object ${thing.id}` : ""];
  if (span) parts.push(`flagged ${span.first}–${span.last}: ${span.reasons.join(", ")}`);
  tip.textContent = parts.filter(Boolean).join("  ·  ");
  const box = canvas.getBoundingClientRect();
  const left = Math.min(box.left + x + 12, window.innerWidth - tip.offsetWidth - 8);
  tip.style.transform = `translate(${left}px, ${box.top + y - 30}px)`;
}

canvas.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    const unit = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 33 : 1;
    const sideways = event.shiftKey ? event.deltaY : event.deltaX;
    if (sideways) {
      view.first += ((sideways * unit) / width()) * view.frames;
      moved();
    } else zoomTimeline(1.002 ** (-event.deltaY * unit), Math.max(NAMES, event.offsetX));
  },
  { passive: false },
);

new ResizeObserver(() => {
  canvas.width = Math.round(canvas.clientWidth * devicePixelRatio);
  canvas.height = Math.round(canvas.clientHeight * devicePixelRatio);
  moved();
  draw();
}).observe(canvas);

/** The frame shown stays in view, a page at a time. */
function follow() {
  const { first, frames } = view;
  if (!press && (shown.frame < first || shown.frame >= first + frames)) {
    view.first = shown.frame < first ? shown.frame - frames * 0.9 : shown.frame - frames * 0.1;
    moved();
  }
  redraw();
}

let video = "";
on(["project"], () => {
  const now = state.project?.video?.name ?? "";
  if (now !== video) Object.assign(view, { first: 0, frames: numFrames(), top: 0 });
  video = now;
});
on(["project", "prompts", "objects"], collectMarks);
on(["shown"], follow);
on(["progress", "tiles"], redraw);
