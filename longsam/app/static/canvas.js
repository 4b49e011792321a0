/** A canvas as sharp as the screen, drawn at most once with each frame of the screen. */
import { byId } from "./state.js";

/** @param {string} id @param {() => void} draw @param {() => void} [resized] Called before it is drawn. */
export function layer(id, draw, resized) {
  const canvas = byId(id, HTMLCanvasElement);
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  let dirty = false;
  const drawNow = () => {
    dirty = false;
    draw();
  };
  const redraw = () => {
    if (!dirty) requestAnimationFrame(drawNow);
    dirty = true;
  };
  new ResizeObserver(() => {
    canvas.width = Math.round(canvas.clientWidth * devicePixelRatio);
    canvas.height = Math.round(canvas.clientHeight * devicePixelRatio);
    resized?.();
    drawNow(); // at once: setting the size has cleared it
  }).observe(canvas);
  return { canvas, context, redraw };
}

/** @param {WheelEvent} event @returns {[number, number]} Pixels, sideways and down. */
export function wheelOf(event) {
  event.preventDefault();
  const unit = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 33 : 1;
  return event.shiftKey && !event.deltaX ? [event.deltaY * unit, 0] : [event.deltaX * unit, event.deltaY * unit];
}
