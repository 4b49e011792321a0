/** The bar over the whole video: drag to scrub; shows where masks, prompts and flagged spans are. */
import { layer } from "./canvas.js";
import { goTo, setScrubbing, shown } from "./player.js";
import { promptFrames } from "./prompts.js";
import { byId, numFrames, on, state, timeOf } from "./state.js";
const bar = byId("scrubber", HTMLElement);
const { canvas, context, redraw } = layer("scrubber-canvas", draw);
let dragging = false;
/** @param {PointerEvent} event */
const seek = ({ offsetX }) => goTo(Math.floor((offsetX / canvas.clientWidth) * numFrames()));

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
function end() {
  dragging = false;
  setScrubbing(false);
}
bar.addEventListener("pointerup", end);
bar.addEventListener("pointercancel", end);

function draw() {
  const { width, height } = canvas;
  const { project } = state;
  const x = (/** @type {number} */ frame) => (frame / numFrames()) * width;
  /** @param {string} color @param {number} first @param {number} last @param {number} y @param {number} h */
  const mark = (color, first, last, y, h) => {
    context.fillStyle = color;
    context.fillRect(x(first), y * height, Math.max(2, x(last + 1) - x(first)), h * height);
  };
  mark("#0c0e10", 0, numFrames(), 0, 1);
  for (const [first, last] of project?.tracked ?? []) mark("#3c6b4c", first, last, 0.3, 0.4);
  if (project?.correction) mark("#8a6d2f", project.correction.first, project.correction.last, 0.3, 0.4);
  for (const { first, last } of project?.spans ?? []) mark("#ff5d73", first, last, 0, 0.22);
  for (const frame of promptFrames()) mark("#fff", frame, frame, 0.78, 0.22);
  if (project?.tracking) mark("#8fe0a8", project.tracking.frame, project.tracking.frame, 0.2, 0.6);
  if (shown.frame >= 0 && shown.frame !== state.frame) mark("#8a939c", shown.frame, shown.frame, 0, 1);
  if (project?.video) mark("#56b4e9", state.frame, state.frame, 0, 1);
  bar.ariaValueMax = String(numFrames() - 1);
  bar.ariaValueNow = String(state.frame);
  bar.ariaValueText = `frame ${state.frame} ${timeOf(state.frame)}`;
}

on(["project", "progress", "prompts", "frame", "shown"], redraw);
