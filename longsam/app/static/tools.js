/** What the pointer does on the canvas: points, boxes, brush, zoom, pan. */

import { pause, shown } from "./player.js";
import { masksAt } from "./masks.js";
import { editsOf, setEdits } from "./prompts.js";
import { decode, encode } from "./rle.js";
import { colorOf, emit, newObject, on, rgb, say, select, state } from "./state.js";
import { canvas, objectAt, overlay, panBy, redraw, scale, toVideo, zoomBy } from "./view.js";

/** @typedef {import("./types.js").Edit} Edit */
/** @typedef {import("./types.js").ObjectId} ObjectId */
/** @typedef {import("./view.js").Point} Point */

const DRAG = 5; // CSS pixels from which a click is a box
const GRAB = 9; // CSS pixels around a point that are the point

/** @type {{start: PointerEvent, last: Point, drag: boolean} | null} */
let press = null;
/** @type {PointerEvent | null} */
let panning = null;

/** @type {{mask: Uint8Array, image: ImageData, frame: number, object: ObjectId, add: boolean} | null} */
let stroke = null;

/** @param {import("./state.js").Tool} tool */
export function setTool(tool) {
  cancel();
  state.tool = tool;
  if (tool === "point" || tool === "box") overlay.brush = null;
  emit("tool");
}

/** @param {number} factor */
export function resizeBrush(factor) {
  const size = state.brush * factor;
  state.brush = Math.max(1, Math.min(600, factor > 1 ? Math.ceil(size) : Math.floor(size)));
  emit("tool");
}

/** Leave a drag undone. @returns {boolean} Whether there was one. */
export function cancel() {
  const was = press !== null || stroke !== null;
  press = stroke = overlay.box = overlay.painting = null;
  redraw();
  return was;
}

/** The frame that a prompt is for, once it is to be seen. */
function promptable() {
  if (!state.project?.video) return false;
  if (!state.project.control) {
    say("warning", "This tab watches. Take control first.");
    return false;
  }
  if (state.playing) {
    pause();
    return false;
  }
  if (shown.exact && shown.frame === state.frame) return true;
  say("info", "The frame is on its way; prompt it when it is shown.");
  return false;
}

/** @param {Point} point */
function inside({ x, y }) {
  const video = state.project?.video;
  return !!video && x >= 0 && y >= 0 && x < video.width && y < video.height;
}

/** @param {Point} point @returns {Point} */
function clamped({ x, y }) {
  const { width, height } = state.project?.video ?? { width: 1, height: 1 };
  return { x: Math.max(0, Math.min(width, x)), y: Math.max(0, Math.min(height, y)) };
}

/** The edit under a point, of the selected object. @param {Edit[]} edits @param {Point} point */
function grabbed(edits, { x, y }) {
  /** @param {number} px @param {number} py */
  const near = (px, py) => Math.hypot(px - x, py - y) * scale() <= GRAB;
  return edits.findLast(
    (edit) =>
      (edit.kind === "point" && near(edit.x, edit.y)) ||
      (edit.kind === "box" && near(edit.box[0], edit.box[1])),
  );
}

/** @param {Point} point @param {boolean} negative */
function click(point, negative) {
  if (!inside(point) || !promptable()) return;
  const object = state.selected ?? newObject();
  const edits = editsOf(object, state.frame);
  const old = grabbed(edits, point);
  if (old) return setEdits(object, state.frame, edits.filter((edit) => edit !== old));
  const [x, y] = [Math.round(point.x * 100) / 100, Math.round(point.y * 100) / 100];
  setEdits(object, state.frame, [...edits, { kind: "point", x, y, label: negative ? 0 : 1 }]);
}

/** @param {Point} from @param {Point} to @returns {[number, number, number, number]} */
function boxOf(from, to) {
  const [a, b] = [clamped(from), clamped(to)];
  const box = [Math.min(a.x, b.x), Math.min(a.y, b.y), Math.max(a.x, b.x), Math.max(a.y, b.y)];
  const [x0, y0, x1, y1] = box.map((value) => Math.round(value * 100) / 100);
  return [x0, y0, x1, y1];
}

/** @param {[number, number, number, number]} box */
function addBox(box) {
  if (box[2] - box[0] < 1 || box[3] - box[1] < 1 || !promptable()) return;
  const object = state.selected ?? newObject();
  const points = editsOf(object, state.frame).filter((edit) => edit.kind === "point");
  setEdits(object, state.frame, [{ kind: "box", box }, ...points]); // a box must come first
}

/** Take all prompts of the selected object from this frame. */
export function clearPrompts() {
  if (state.selected === null || !editsOf(state.selected, state.frame).length) return;
  if (promptable()) setEdits(state.selected, state.frame, []);
}

// The brush ---------------------------------------------------------------------------------------

/** @param {Point} point @param {boolean} add */
function beginStroke(point, add) {
  const video = state.project?.video;
  if (!video || !promptable()) return;
  const object = state.selected ?? newObject();
  const { width, height } = video;
  const frame = state.frame;
  const painted = editsOf(object, frame).find((edit) => edit.kind === "mask");
  const only = painted?.kind === "mask" && editsOf(object, frame).length === 1;
  const cut = only
    ? decode(painted.counts, height, width)
    : masksAt(frame)?.masks.find(({ id }) => id === object)?.cut;
  const mask = new Uint8Array(width * height);
  const image = new ImageData(width, height);
  const color = rgb(colorOf(object));
  const pixels = new Uint32Array(image.data.buffer);
  fill = (color[0] | (color[1] << 8) | (color[2] << 16) | (120 << 24)) >>> 0;
  for (let y = 0; cut && y < cut.height; y++) {
    for (let x = 0; x < cut.width; x++) {
      if (!cut.mask[y * cut.width + x]) continue;
      const i = (y + cut.y) * width + x + cut.x;
      mask[i] = 1;
      pixels[i] = fill;
    }
  }
  const layer = new OffscreenCanvas(width, height);
  layer.getContext("2d")?.putImageData(image, 0, 0);
  overlay.painting = { canvas: layer, object };
  stroke = { mask, image, frame, object, add };
  strokeTo(point, point);
}
let fill = 0;

/** @param {Point} from @param {Point} to */
function strokeTo(from, to) {
  const context = overlay.painting?.canvas.getContext("2d");
  if (!stroke || !context) return;
  const { mask, image, add } = stroke;
  const { width, height } = image;
  const pixels = new Uint32Array(image.data.buffer);
  const r = state.brush / 2;
  const x0 = Math.max(0, Math.floor(Math.min(from.x, to.x) - r));
  const y0 = Math.max(0, Math.floor(Math.min(from.y, to.y) - r));
  const x1 = Math.min(width - 1, Math.ceil(Math.max(from.x, to.x) + r));
  const y1 = Math.min(height - 1, Math.ceil(Math.max(from.y, to.y) + r));
  if (x1 < x0 || y1 < y0) return;
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const length = dx * dx + dy * dy || 1;
  for (let y = y0; y <= y1; y++) {
    for (let x = x0; x <= x1; x++) {
      // How far the pixel's centre is from the segment; the pixel under the pointer always counts.
      const [px, py] = [x + 0.5 - from.x, y + 0.5 - from.y];
      const t = Math.max(0, Math.min(1, (px * dx + py * dy) / length));
      if (Math.hypot(px - t * dx, py - t * dy) > Math.max(r, 0.71)) continue;
      mask[y * width + x] = add ? 1 : 0;
      pixels[y * width + x] = add ? fill : 0;
    }
  }
  context.putImageData(image, 0, 0, x0, y0, x1 - x0 + 1, y1 - y0 + 1);
  redraw();
}

function endStroke() {
  if (!stroke) return;
  const { mask, image, object, frame } = stroke;
  stroke = null;
  overlay.painting = null;
  setEdits(object, frame, [{ kind: "mask", counts: encode(mask, image.height, image.width) }]);
}

// Pointer -----------------------------------------------------------------------------------------

canvas.addEventListener("pointerdown", (event) => {
  canvas.focus();
  if (press || stroke) return; // a second button during a drag
  canvas.setPointerCapture(event.pointerId);
  if (event.button === 1) {
    panning = event;
    event.preventDefault();
    return;
  }
  const point = toVideo(event);
  if (event.button === 0 && (event.ctrlKey || event.metaKey)) {
    const object = objectAt(point);
    if (object !== null) select(object);
  } else if (event.button === 0 && (state.tool === "paint" || state.tool === "erase")) {
    beginStroke(point, (state.tool === "paint") !== event.altKey);
    press = stroke && { start: event, last: point, drag: false };
  } else if (event.button === 0 || event.button === 2) {
    press = { start: event, last: point, drag: false };
  }
});

canvas.addEventListener("pointermove", (event) => {
  if (panning) {
    panBy(event.clientX - panning.clientX, event.clientY - panning.clientY);
    panning = event;
    return;
  }
  const point = toVideo(event);
  const brush = state.tool === "paint" || state.tool === "erase";
  if (brush) overlay.brush = point;
  if (brush || press) redraw();
  if (stroke && press) {
    for (const one of event.getCoalescedEvents?.() ?? []) {
      const next = toVideo(one);
      strokeTo(press.last, next);
      press.last = next;
    }
    strokeTo(press.last, point);
    press.last = point;
  } else if (press && press.start.button === 0) {
    const { clientX, clientY } = press.start;
    press.drag ||= Math.hypot(event.clientX - clientX, event.clientY - clientY) > DRAG;
    if (press.drag) overlay.box = boxOf(toVideo(press.start), point);
  } else {
    canvas.dataset.over = String(objectAt(point) ?? "");
    emit("view", scale());
  }
});

canvas.addEventListener("pointerup", (event) => {
  if (panning) {
    if (event.button === 1) panning = null;
    return;
  }
  if (!press || event.button !== press.start.button) return;
  const { start, drag } = press;
  press = null;
  const box = overlay.box;
  overlay.box = null;
  redraw();
  if (stroke) return endStroke();
  if (drag && box) return addBox(box);
  if (state.tool === "box" && start.button === 0 && !start.altKey) return; // a box has two corners
  click(toVideo(event), start.button === 2 || start.altKey);
});

canvas.addEventListener("pointercancel", () => {
  panning = null;
  cancel();
});
canvas.addEventListener("pointerleave", () => {
  overlay.brush = null;
  canvas.dataset.over = "";
  emit("view", scale());
  redraw();
});
canvas.addEventListener("contextmenu", (event) => event.preventDefault());
canvas.addEventListener("auxclick", (event) => event.preventDefault());
canvas.addEventListener("dblclick", (event) => event.preventDefault());
canvas.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 33 : 1;
    zoomBy(1.0015 ** (-event.deltaY * lines), event);
  },
  { passive: false },
);

// A stroke is for the frame it was begun on.
on(["frame"], () => {
  if (stroke && stroke.frame !== state.frame) cancel();
});

