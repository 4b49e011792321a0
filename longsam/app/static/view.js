/** The canvas: frame, masks, prompts and what the tool in hand draws; zoom and pan. */
import { layer } from "./canvas.js";
import { masksAt, pictureOf } from "./masks.js";
import { arrived, setScale, shown } from "./player.js";
import { editsOf } from "./prompts.js";
import { hit } from "./rle.js";
import { colorOf, css, emit, isHidden, objects, on, state } from "./state.js";
/** @typedef {{x: number, y: number}} Point @typedef {{clientX: number, clientY: number}} Client */
/** @typedef {import("./types.js").Box} Box @typedef {import("./types.js").ObjectId} ObjectId */

const MAX_ZOOM = 64; // CSS pixels for a pixel of the video
export const { canvas, context, redraw } = layer("view", draw, () => (zoom.fitted ? fit() : moved()));
/** CSS pixels for a pixel of the video, and where its top left corner is. */
const zoom = { scale: 1, x: 0, y: 0, fitted: true };
/** What a tool draws: a box being dragged, a brush, a mask being painted.
 * @type {{box: Box | null, brush: Point | null, painting: {canvas: OffscreenCanvas, object: ObjectId} | null}} */
export const overlay = { box: null, brush: null, painting: null };

/** @param {Client} event @returns {Point} In pixels of the video. */
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
function size() {
  const { width, height } = state.project?.video ?? { width: 1, height: 1 };
  const { clientWidth, clientHeight } = canvas;
  return { width, height, clientWidth, clientHeight, fitting: Math.min(clientWidth / width, clientHeight / height) };
}
export function fit() {
  const { width, height, clientWidth, clientHeight, fitting } = size();
  const [x, y] = [(clientWidth - width * fitting) / 2, (clientHeight - height * fitting) / 2];
  Object.assign(zoom, { scale: fitting, x, y, fitted: true });
  moved();
}

/** @param {number} factor @param {Client} [at] The centre, if not given. */
export function zoomBy(factor, at) {
  const { clientWidth, clientHeight, fitting } = size();
  const { left, top } = canvas.getBoundingClientRect();
  const [x, y] = at ? [at.clientX - left, at.clientY - top] : [clientWidth / 2, clientHeight / 2];
  const scale = Math.min(MAX_ZOOM, zoom.scale * factor);
  if (scale <= fitting) return fit();
  zoom.x = x - ((x - zoom.x) * scale) / zoom.scale;
  zoom.y = y - ((y - zoom.y) * scale) / zoom.scale;
  Object.assign(zoom, { scale, fitted: false });
  moved();
}
export function panBy(/** @type {number} */ dx, /** @type {number} */ dy) {
  Object.assign(zoom, { x: zoom.x + dx, y: zoom.y + dy, fitted: false });
  moved();
}

function moved() {
  const { width, height, clientWidth, clientHeight } = size();
  // Some of the frame stays in sight.
  zoom.x = Math.min(clientWidth - 40, Math.max(40 - width * zoom.scale, zoom.x));
  zoom.y = Math.min(clientHeight - 40, Math.max(40 - height * zoom.scale, zoom.y));
  setScale(zoom.scale * devicePixelRatio);
  emit("view");
  redraw();
}
/** The object whose mask is under a point. @param {Point} point @returns {ObjectId | null} */
export function objectAt({ x, y }) {
  const all = masksAt(shown.frame)?.masks ?? [];
  return all.findLast((mask) => !isHidden(mask.id) && hit(mask.cut, x, y))?.id ?? null;
}

function draw() {
  const ratio = devicePixelRatio;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!shown.bitmap) return;
  const { width, height } = size();
  const factor = zoom.scale * ratio;
  context.setTransform(factor, 0, 0, factor, zoom.x * ratio, zoom.y * ratio);
  context.imageSmoothingEnabled = factor < 2; // single pixels are to be seen as such
  context.imageSmoothingQuality = factor < 1 ? "medium" : "low";
  context.drawImage(shown.bitmap, 0, 0, width, height);
  drawMasks(Math.max(1, Math.round(width / 800)));
  context.setTransform(ratio, 0, 0, ratio, zoom.x * ratio, zoom.y * ratio);
  if (arrived()) drawPrompts();
  if (overlay.box) drawBox(overlay.box, css(colorOf(state.selected)), false);
  if (overlay.brush) drawBrush(overlay.brush);
}

function drawMasks(/** @type {number} */ thick) {
  const entry = masksAt(shown.frame);
  for (const mask of entry?.masks ?? []) {
    if (isHidden(mask.id) || overlay.painting?.object === mask.id) continue;
    const picture = pictureOf(mask, colorOf(mask.id), entry?.kind === "before", thick);
    if (picture && mask.cut) context.drawImage(picture, mask.cut.x, mask.cut.y);
  }
  if (overlay.painting) context.drawImage(overlay.painting.canvas, 0, 0);
}

function stroke(/** @type {string} */ color, /** @type {number} */ width) {
  context.strokeStyle = color;
  context.lineWidth = width;
  context.stroke();
}

function drawPrompts() {
  for (const { id } of objects()) {
    if (isHidden(id)) continue;
    const own = id === state.selected;
    context.globalAlpha = own ? 1 : 0.45;
    for (const edit of editsOf(id, state.frame)) {
      if (edit.kind === "point") drawPoint(edit, css(colorOf(id)), own ? 7 : 5);
      if (edit.kind === "box") drawBox(edit.box, css(colorOf(id)), own);
    }
  }
  context.globalAlpha = 1;
}

/** @param {import("./types.js").PointEdit} edit @param {string} color @param {number} radius */
function drawPoint({ x, y, label }, color, radius) {
  const [cx, cy, half] = [x * zoom.scale, y * zoom.scale, radius / 2];
  context.beginPath();
  context.arc(cx, cy, radius, 0, 2 * Math.PI);
  context.fillStyle = label ? color : "#111";
  context.fill();
  stroke(label ? "#fff" : color, 2);
  context.beginPath();
  context.rect(cx - half, cy, radius, 0);
  if (label) context.rect(cx, cy - half, 0, radius);
  stroke(label ? "#111" : "#fff", 2);
}

function drawBox(/** @type {Box} */ box, /** @type {string} */ color, /** @type {boolean} */ handle) {
  const [x0, y0, x1, y1] = box.map((value) => value * zoom.scale);
  context.beginPath();
  context.rect(x0, y0, x1 - x0, y1 - y0);
  stroke("rgb(0 0 0 / 0.6)", 3.5);
  stroke(color, 2);
  if (!handle) return;
  context.fillStyle = color;
  context.fillRect(x0 - 7, y0 - 7, 14, 14); // a click here takes the box away
  context.beginPath();
  context.moveTo(x0 - 3, y0 - 3);
  context.lineTo(x0 + 3, y0 + 3);
  context.moveTo(x0 + 3, y0 - 3);
  context.lineTo(x0 - 3, y0 + 3);
  stroke("#111", 2);
}

/** @param {Point} at */
function drawBrush({ x, y }) {
  context.beginPath();
  context.arc(x * zoom.scale, y * zoom.scale, (state.brush / 2) * zoom.scale, 0, 2 * Math.PI);
  context.setLineDash(state.tool === "erase" ? [4, 4] : []);
  stroke("#000", 3);
  stroke("#fff", 1.25);
  context.setLineDash([]);
}

on(["shown", "masks", "prompts", "objects", "tool"], redraw);
