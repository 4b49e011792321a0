/** The canvas: frame, masks, prompts and what the tool in hand draws; zoom and pan. */

import { masksAt, pictureOf } from "./masks.js";
import { hit } from "./rle.js";
import { setScale, shown } from "./player.js";
import { editsOf } from "./prompts.js";
import { byId, colorOf, css, emit, isHidden, objects, on, state } from "./state.js";

/** @typedef {import("./types.js").ObjectId} ObjectId */
/** @typedef {{x: number, y: number}} Point */

export const canvas = byId("view", HTMLCanvasElement);
const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
const MAX_ZOOM = 64; // CSS pixels for a pixel of the video

/** CSS pixels for a pixel of the video, and where its top left corner is. */
const zoom = { scale: 1, x: 0, y: 0, fitted: true };
let dirty = false;

/** What a tool draws: a box being dragged, a brush, a mask being painted.
 * @type {{box: [number, number, number, number] | null, brush: Point | null,
 *   painting: {canvas: OffscreenCanvas, object: ObjectId} | null}} */
export const overlay = { box: null, brush: null, painting: null };

/** @param {{clientX: number, clientY: number}} event @returns {Point} In pixels of the video. */
export function toVideo({ clientX, clientY }) {
  const { left, top } = canvas.getBoundingClientRect();
  return { x: (clientX - left - zoom.x) / zoom.scale, y: (clientY - top - zoom.y) / zoom.scale };
}

/** @param {Point} point @returns {Point} In CSS pixels of the window. */
export function toWindow({ x, y }) {
  const { left, top } = canvas.getBoundingClientRect();
  return { x: left + zoom.x + x * zoom.scale, y: top + zoom.y + y * zoom.scale };
}

export const scale = () => zoom.scale;

export function fit() {
  const video = state.project?.video;
  if (!video) return;
  zoom.scale = Math.min(canvas.clientWidth / video.width, canvas.clientHeight / video.height);
  zoom.x = (canvas.clientWidth - video.width * zoom.scale) / 2;
  zoom.y = (canvas.clientHeight - video.height * zoom.scale) / 2;
  zoom.fitted = true;
  moved();
}

/** @param {number} factor @param {{clientX: number, clientY: number}} [at] The centre, if not given. */
export function zoomBy(factor, at) {
  const video = state.project?.video;
  if (!video) return;
  const { left, top } = canvas.getBoundingClientRect();
  const x = at ? at.clientX - left : canvas.clientWidth / 2;
  const y = at ? at.clientY - top : canvas.clientHeight / 2;
  const smallest = Math.min(canvas.clientWidth / video.width, canvas.clientHeight / video.height);
  const scale = Math.min(MAX_ZOOM, zoom.scale * factor);
  if (scale <= smallest) return fit();
  zoom.x = x - ((x - zoom.x) * scale) / zoom.scale;
  zoom.y = y - ((y - zoom.y) * scale) / zoom.scale;
  zoom.scale = scale;
  zoom.fitted = false;
  moved();
}

/** @param {number} dx @param {number} dy */
export function panBy(dx, dy) {
  zoom.x += dx;
  zoom.y += dy;
  zoom.fitted = false;
  moved();
}

function moved() {
  const video = state.project?.video;
  if (video) {
    // Some of the frame stays in sight.
    const [w, h] = [video.width * zoom.scale, video.height * zoom.scale];
    zoom.x = Math.min(canvas.clientWidth - 40, Math.max(40 - w, zoom.x));
    zoom.y = Math.min(canvas.clientHeight - 40, Math.max(40 - h, zoom.y));
  }
  setScale(zoom.scale * devicePixelRatio);
  emit("view", zoom.scale);
  redraw();
}

/** The object whose mask is under a point. @param {Point} point @returns {ObjectId | null} */
export function objectAt({ x, y }) {
  const all = masksAt(shown.frame)?.masks ?? [];
  return all.findLast((mask) => !isHidden(mask.id) && hit(mask.cut, x, y))?.id ?? null;
}

/** Draw with the next frame of the screen. */
export function redraw() {
  if (dirty) return;
  dirty = true;
  requestAnimationFrame(draw);
}

function draw() {
  dirty = false;
  const ratio = devicePixelRatio;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  const video = state.project?.video;
  if (!video || !shown.bitmap) return;
  const factor = zoom.scale * ratio;
  context.setTransform(factor, 0, 0, factor, zoom.x * ratio, zoom.y * ratio);
  context.imageSmoothingEnabled = factor < 2; // single pixels are to be seen as such
  context.imageSmoothingQuality = factor < 1 ? "medium" : "low";
  context.drawImage(shown.bitmap, 0, 0, video.width, video.height);
  drawMasks(video.width);
  context.setTransform(ratio, 0, 0, ratio, zoom.x * ratio, zoom.y * ratio);
  if (zoom.scale >= 16) drawGrid(video);
  if (shown.exact && shown.frame === state.frame) drawPrompts();
  drawTool();
}

/** @param {number} width */
function drawMasks(width) {
  const entry = masksAt(shown.frame);
  const thick = Math.max(1, Math.round(width / 800));
  for (const mask of entry?.masks ?? []) {
    if (isHidden(mask.id) || overlay.painting?.object === mask.id) continue;
    const picture = pictureOf(mask, colorOf(mask.id), entry?.kind === "before", thick);
    if (picture && mask.cut) context.drawImage(picture, mask.cut.x, mask.cut.y);
  }
  if (overlay.painting) context.drawImage(overlay.painting.canvas, 0, 0);
}

/** @param {{width: number, height: number}} video */
function drawGrid({ width, height }) {
  const s = zoom.scale;
  const left = Math.max(0, Math.floor(-zoom.x / s));
  const top = Math.max(0, Math.floor(-zoom.y / s));
  const right = Math.min(width, Math.ceil((canvas.clientWidth - zoom.x) / s));
  const bottom = Math.min(height, Math.ceil((canvas.clientHeight - zoom.y) / s));
  context.beginPath();
  for (let x = left; x <= right; x++) context.rect(x * s, top * s, 0, (bottom - top) * s);
  for (let y = top; y <= bottom; y++) context.rect(left * s, y * s, (right - left) * s, 0);
  context.lineWidth = 1;
  context.strokeStyle = "rgb(128 128 128 / 0.35)";
  context.stroke();
}

function drawPrompts() {
  for (const { id } of objects()) {
    if (isHidden(id)) continue;
    const own = id === state.selected;
    context.globalAlpha = own ? 1 : 0.45;
    for (const edit of editsOf(id, state.frame)) {
      if (edit.kind === "point") drawPoint(edit, css(colorOf(id)), own);
      if (edit.kind === "box") drawBox(edit.box, css(colorOf(id)), own);
    }
  }
  context.globalAlpha = 1;
}

/** @param {import("./types.js").PointEdit} edit @param {string} color @param {boolean} own */
function drawPoint({ x, y, label }, color, own) {
  const [cx, cy, r] = [x * zoom.scale, y * zoom.scale, own ? 7 : 5];
  context.beginPath();
  context.arc(cx, cy, r, 0, 2 * Math.PI);
  context.fillStyle = label ? color : "#111";
  context.fill();
  context.lineWidth = 2;
  context.strokeStyle = label ? "#fff" : color;
  context.stroke();
  context.beginPath();
  context.moveTo(cx - r / 2, cy);
  context.lineTo(cx + r / 2, cy);
  if (label) context.moveTo(cx, cy - r / 2);
  if (label) context.lineTo(cx, cy + r / 2);
  context.strokeStyle = label ? "#111" : "#fff";
  context.stroke();
}

/** @param {[number, number, number, number]} box @param {string} color @param {boolean} handle */
function drawBox(box, color, handle) {
  const [x0, y0, x1, y1] = box.map((value) => value * zoom.scale);
  context.lineWidth = 3.5;
  context.strokeStyle = "rgb(0 0 0 / 0.6)";
  context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  context.lineWidth = 2;
  context.strokeStyle = color;
  context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  if (!handle) return;
  context.fillStyle = color;
  context.fillRect(x0 - 7, y0 - 7, 14, 14); // a click here takes the box away
  context.beginPath();
  context.moveTo(x0 - 3, y0 - 3);
  context.lineTo(x0 + 3, y0 + 3);
  context.moveTo(x0 + 3, y0 - 3);
  context.lineTo(x0 - 3, y0 + 3);
  context.strokeStyle = "#111";
  context.stroke();
}

function drawTool() {
  if (overlay.box) drawBox(overlay.box, css(colorOf(state.selected)), false);
  if (!overlay.brush) return;
  const { x, y } = overlay.brush;
  for (const [width, color] of /** @type {[number, string][]} */ ([[3, "#000"], [1.25, "#fff"]])) {
    context.beginPath();
    context.arc(x * zoom.scale, y * zoom.scale, (state.brush / 2) * zoom.scale, 0, 2 * Math.PI);
    context.lineWidth = width;
    context.strokeStyle = color;
    context.setLineDash(state.tool === "erase" ? [4, 4] : []);
    context.stroke();
  }
  context.setLineDash([]);
}

new ResizeObserver(() => {
  canvas.width = Math.round(canvas.clientWidth * devicePixelRatio);
  canvas.height = Math.round(canvas.clientHeight * devicePixelRatio);
  if (zoom.fitted) fit();
  else moved();
  draw(); // at once: setting the size has cleared it
}).observe(canvas);

on(["shown", "masks", "prompts", "objects", "tool"], redraw);
