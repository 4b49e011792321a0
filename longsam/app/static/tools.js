/** What the pointer does on the canvas: points, boxes, brush, zoom, pan. */
import { wheelOf } from "./canvas.js";
import { masksAt } from "./masks.js";
import { arrived, pause } from "./player.js";
import { editsOf, setEdits } from "./prompts.js";
import { decode, encode } from "./rle.js";
import { colorOf, emit, newObject, on, pixelOf, say, select, state, watches } from "./state.js";
import { canvas, objectAt, overlay, panBy, redraw, scale, toVideo, zoomBy } from "./view.js";
/** @typedef {import("./types.js").Edit} Edit @typedef {import("./types.js").Box} Box */
/** @typedef {import("./view.js").Point} Point */

const DRAG = 5; // CSS pixels from which a click is a box
const GRAB = 9; // CSS pixels around a point that are the point
/** @type {{start: PointerEvent, last: Point, drag: boolean} | null} */
let press = null;
/** @type {PointerEvent | null} */
let panning = null;
/** @type {{mask: Uint8Array, image: ImageData, pixels: Uint32Array, context: OffscreenCanvasRenderingContext2D,
 *   fill: number, frame: number, object: import("./types.js").ObjectId, add: boolean} | null} */
let stroke = null;

export function setTool(/** @type {import("./state.js").Tool} */ tool) {
  cancel();
  state.tool = tool;
  if (!brushing()) overlay.brush = null;
  emit("tool");
}
const brushing = () => state.tool === "paint" || state.tool === "erase";

export function resizeBrush(/** @type {number} */ factor) {
  const size = state.brush * factor;
  state.brush = Math.max(1, Math.min(600, factor > 1 ? Math.ceil(size) : Math.floor(size)));
  emit("tool");
}

/** Leave a drag undone. @returns {boolean} Whether there was one. */
export function cancel() {
  const was = press !== null || stroke !== null;
  press = stroke = panning = overlay.box = overlay.painting = null;
  redraw();
  return was;
}

/** Whether prompts can be given now; if not, the user sees why. */
function promptable() {
  if (!state.project?.video || watches()) return false;
  if (state.playing) pause();
  else if (!arrived()) say("info", "The frame is loading; prompt it when it is shown.");
  else return true;
  return false;
}

/** @param {Point} point @returns {Point} Rounded, and within the frame. */
function clamped({ x, y }) {
  const { width, height } = state.project?.video ?? { width: 1, height: 1 };
  const [cx, cy] = [Math.max(0, Math.min(width, x)), Math.max(0, Math.min(height, y))];
  return { x: Math.round(cx * 100) / 100, y: Math.round(cy * 100) / 100 };
}

/** The edit under a point. @param {Edit[]} edits @param {Point} point */
function grabbed(edits, { x, y }) {
  const near = (/** @type {number} */ px, /** @type {number} */ py) => Math.hypot(px - x, py - y) * scale() <= GRAB;
  return edits.findLast((edit) =>
    edit.kind === "point" ? near(edit.x, edit.y) : edit.kind === "box" && near(edit.box[0], edit.box[1]));
}

function click(/** @type {Point} */ point, /** @type {boolean} */ negative) {
  const { width = 0, height = 0 } = state.project?.video ?? {};
  const { x, y } = clamped(point);
  const inside = point.x >= 0 && point.y >= 0 && point.x < width && point.y < height;
  if (!inside || !promptable()) return;
  const object = state.selected ?? newObject();
  const edits = editsOf(object, state.frame);
  const old = grabbed(edits, point);
  if (old) return setEdits(object, state.frame, edits.filter((edit) => edit !== old));
  setEdits(object, state.frame, [...edits, { kind: "point", x, y, label: negative ? 0 : 1 }]);
}
/** @param {Point} from @param {Point} to @returns {Box} */
function boxOf(from, to) {
  const [a, b] = [clamped(from), clamped(to)];
  return [Math.min(a.x, b.x), Math.min(a.y, b.y), Math.max(a.x, b.x), Math.max(a.y, b.y)];
}
function addBox(/** @type {Box} */ box) {
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

/** Begin from the mask as it is. @param {boolean} add Paint, or erase. */
function beginStroke(add) {
  const video = state.project?.video;
  if (!video || !promptable()) return;
  const object = state.selected ?? newObject();
  const { frame } = state;
  const { width, height } = video;
  const edits = editsOf(object, frame);
  const painted = edits.length === 1 && edits[0].kind === "mask" ? edits[0].counts : null;
  const shownCut = masksAt(frame)?.masks.find(({ id }) => id === object)?.cut;
  const cut = painted === null ? shownCut : decode(painted, height, width);
  const mask = new Uint8Array(width * height);
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const fill = pixelOf(colorOf(object), 120);
  for (let y = 0; cut && y < cut.height; y++) {
    mask.set(cut.mask.subarray(y * cut.width, (y + 1) * cut.width), (y + cut.y) * width + cut.x);
  }
  for (let i = 0; i < mask.length; i++) if (mask[i]) pixels[i] = fill;
  const layer = new OffscreenCanvas(width, height);
  const context = layer.getContext("2d");
  if (!context) return;
  context.putImageData(image, 0, 0);
  overlay.painting = { canvas: layer, object };
  stroke = { mask, image, pixels, context, fill, frame, object, add };
}

function strokeTo(/** @type {Point} */ from, /** @type {Point} */ to) {
  if (!stroke) return;
  const { mask, image, pixels, context, fill, add } = stroke;
  const { width, height } = image;
  const r = state.brush / 2;
  const x0 = Math.max(0, Math.floor(Math.min(from.x, to.x) - r));
  const y0 = Math.max(0, Math.floor(Math.min(from.y, to.y) - r));
  const x1 = Math.min(width - 1, Math.ceil(Math.max(from.x, to.x) + r));
  const y1 = Math.min(height - 1, Math.ceil(Math.max(from.y, to.y) + r));
  if (x1 < x0 || y1 < y0) return;
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  for (let y = y0; y <= y1; y++) {
    for (let x = x0; x <= x1; x++) {
      // How far the pixel's centre is from the segment; the pixel under the pointer always counts.
      const [px, py] = [x + 0.5 - from.x, y + 0.5 - from.y];
      const t = Math.max(0, Math.min(1, (px * dx + py * dy) / (dx * dx + dy * dy || 1)));
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
  stroke = overlay.painting = null;
  setEdits(object, frame, [{ kind: "mask", counts: encode(mask, image.height, image.width) }]);
}

canvas.addEventListener("pointerdown", (event) => {
  canvas.focus();
  if (press || panning) return; // a second button during a drag
  canvas.setPointerCapture(event.pointerId);
  const point = toVideo(event);
  if (event.button === 1) {
    panning = event;
    event.preventDefault();
  } else if (event.button === 0 && (event.ctrlKey || event.metaKey)) {
    const object = objectAt(point);
    if (object !== null) select(object);
  } else if (event.button === 0 && brushing()) {
    beginStroke((state.tool === "paint") !== event.altKey);
    press = stroke && { start: event, last: point, drag: false };
    strokeTo(point, point);
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
  if (brushing()) overlay.brush = point;
  if (brushing() || press) redraw();
  if (stroke && press) {
    for (const one of [...(event.getCoalescedEvents?.() ?? []), event]) {
      const next = toVideo(one);
      strokeTo(press.last, next);
      press.last = next;
    }
  } else if (press && press.start.button === 0) {
    const { clientX, clientY } = press.start;
    press.drag ||= Math.hypot(event.clientX - clientX, event.clientY - clientY) > DRAG;
    if (press.drag) overlay.box = boxOf(press.last, point);
  } else {
    hover(String(objectAt(point) ?? ""));
  }
});
function hover(/** @type {string} */ object) {
  if (canvas.dataset.over === object) return;
  canvas.dataset.over = object;
  emit("view");
}

canvas.addEventListener("pointerup", (event) => {
  if (panning && event.button === 1) panning = null;
  if (!press || event.button !== press.start.button) return;
  const { start, drag } = press;
  const { box } = overlay;
  press = overlay.box = null;
  redraw();
  if (stroke) return endStroke();
  if (drag && box) return addBox(box);
  if (state.tool === "box" && start.button === 0 && !start.altKey) return; // a box has two corners
  click(toVideo(event), start.button === 2 || start.altKey);
});
canvas.addEventListener("pointercancel", cancel);
canvas.addEventListener("pointerleave", () => {
  overlay.brush = null;
  hover("");
  redraw();
});
canvas.addEventListener("contextmenu", (event) => event.preventDefault());
canvas.addEventListener("auxclick", (event) => event.preventDefault());
canvas.addEventListener("wheel", (event) => zoomBy(1.0015 ** -wheelOf(event)[1], event), { passive: false });

// What is drawn is for the frame it was begun on.
on(["frame"], () => !arrived() && press && cancel());
