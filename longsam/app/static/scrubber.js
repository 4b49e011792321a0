/** The bar over the whole video: drag to scrub; shows where masks, prompts and flagged spans are. */

import { goTo, setScrubbing, shown } from "./player.js";
import { promptFrames } from "./prompts.js";
import { byId, on, state, timeOf } from "./state.js";

const bar = byId("scrubber", HTMLElement);
const canvas = byId("scrubber-canvas", HTMLCanvasElement);
const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
let dirty = false;
let dragging = false;

const numFrames = () => state.project?.video?.num_frames ?? 1;

/** @param {PointerEvent} event */
function seek(event) {
  const { left, width } = canvas.getBoundingClientRect();
  goTo(Math.floor(((event.clientX - left) / width) * numFrames()));
}

bar.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  bar.setPointerCapture(event.pointerId);
  dragging = true;
  seek(event); // a click is a jump, not yet a scrub
});
bar.addEventListener("pointermove", (event) => {
  if (!dragging) return;
  if (!state.scrubbing) setScrubbing(true);
  seek(event);
});
for (const end of /** @type {const} */ (["pointerup", "pointercancel"])) {
  bar.addEventListener(end, () => {
    dragging = false;
    setScrubbing(false);
  });
}

function redraw() {
  if (dirty) return;
  dirty = true;
  requestAnimationFrame(draw);
}

function draw() {
  dirty = false;
  const { width, height } = canvas;
  const { project } = state;
  const x = (/** @type {number} */ frame) => (frame / numFrames()) * width;
  context.fillStyle = "#0c0e10";
  context.fillRect(0, 0, width, height);
  /** @param {string} color @param {number} first @param {number} last @param {number} y @param {number} h */
  const mark = (color, first, last, y, h) => {
    context.fillStyle = color;
    context.fillRect(x(first), y * height, Math.max(2, x(last + 1) - x(first)), h * height);
  };
  for (const [first, last] of project?.tracked ?? []) mark("#3c6b4c", first, last, 0.3, 0.4);
  const { mend } = project ?? {};
  if (mend) mark("#8a6d2f", mend.first, mend.last, 0.3, 0.4);
  for (const { first, last } of project?.spans ?? []) mark("#ff5d73", first, last, 0, 0.22);
  for (const frame of promptFrames()) mark("#fff", frame, frame, 0.78, 0.22);
  if (project?.tracking) mark("#8fe0a8", project.tracking.frame, project.tracking.frame, 0.2, 0.6);
  if (shown.frame !== state.frame) mark("#8a939c", shown.frame, shown.frame, 0, 1);
  mark("#56b4e9", state.frame, state.frame, 0, 1);
  bar.ariaValueMax = String(numFrames() - 1);
  bar.ariaValueNow = String(state.frame);
  bar.ariaValueText = `frame ${state.frame} ${timeOf(state.frame)}`;
}

new ResizeObserver(() => {
  canvas.width = Math.round(canvas.clientWidth * devicePixelRatio);
  canvas.height = Math.round(canvas.clientHeight * devicePixelRatio);
  draw();
}).observe(canvas);
on(["project", "progress", "prompts", "frame", "shown"], redraw);
