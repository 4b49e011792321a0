/** The masks of frames: fetched, decoded, kept for a while, drawn to small pictures. */

import { get } from "./api.js";
import { decode, paint } from "./rle.js";
import { emit, rgb, state } from "./state.js";

/** @typedef {import("./types.js").ObjectId} ObjectId */
/** @typedef {import("./types.js").Answer} Answer */
/**
 * @typedef {{id: ObjectId, counts: string, area: number, score: number | null,
 *   cut: import("./rle.js").Cut | null, picture: OffscreenCanvas | null, look: string}} Mask
 * @typedef {{frame: number, size: [number, number], kind: import("./types.js").Kind,
 *   masks: Mask[], stale: boolean}} FrameMasks
 */

const KEPT = 64; // frames
/** @type {Map<number, FrameMasks>} */
const kept = new Map();
/** @type {Map<number, {stale: boolean, done: Promise<void>}>} */
const coming = new Map();

/** @type {Map<number, number>} When they could not be had. */
const failures = new Map();

/** @param {number} frame */
function failedLately(frame) {
  if (performance.now() - (failures.get(frame) ?? -Infinity) < 2000) return true;
  failures.delete(frame);
  return false;
}

/** Whether there is nothing to wait for. @param {number} frame */
export const settled = (frame) => kept.has(frame) || failedLately(frame);

/** @param {number} frame The last that came; may be from before a change while the new ones come. */
export const masksAt = (frame) => kept.get(frame);

/** @param {Answer} answer @returns {FrameMasks} */
function decoded(answer) {
  const [height, width] = answer.size;
  const old = kept.get(answer.frame);
  const masks = answer.objects.map(({ id, counts, area, score }) => {
    const same = old?.masks.find((mask) => mask.id === id && mask.counts === counts);
    if (same) return { ...same, area, score };
    return { id, counts, area, score, cut: decode(counts, height, width), picture: null, look: "" };
  });
  return { frame: answer.frame, size: answer.size, kind: answer.kind, masks, stale: false };
}

/** @param {Answer} answer @param {boolean} [stale] They have changed since. */
export function put(answer, stale = false) {
  const entry = { ...decoded(answer), stale };
  kept.delete(answer.frame);
  kept.set(answer.frame, entry);
  for (const frame of kept.keys()) {
    if (kept.size <= KEPT) break;
    kept.delete(frame);
  }
  emit("masks", answer.frame);
}

/** Show what was painted before the model has answered.
 * @param {number} frame @param {ObjectId} id @param {string} counts */
export function putPainted(frame, id, counts) {
  const video = state.project?.video;
  if (!video) return;
  const old = kept.get(frame);
  const others = (old?.masks ?? []).filter((mask) => mask.id !== id);
  put({
    frame,
    size: [video.height, video.width],
    kind: old && old.kind !== "none" ? old.kind : "prompted",
    objects: [...others.map((mask) => ({ ...mask, iou: null })), { id, counts, area: 0, score: null, iou: null }],
  });
}

/** Have the masks of a frame come, if they are not here. @param {number} frame
 * @returns {Promise<void>} Settles in any case. */
export function want(frame) {
  const entry = kept.get(frame);
  if ((entry && !entry.stale) || failedLately(frame)) return Promise.resolve();
  const request = coming.get(frame);
  if (request && !request.stale) return request.done;
  const own = { stale: false, done: Promise.resolve() };
  coming.set(frame, own);
  own.done = fetchMasks(frame, own);
  return own.done;
}

/** @param {number} frame @param {{stale: boolean}} own */
async function fetchMasks(frame, own) {
  try {
    const answer = await get(`api/masks/${frame}`);
    put(answer, own.stale);
  } catch {
    failures.set(frame, performance.now()); // the frame itself says what is wrong
  } finally {
    if (coming.get(frame) === own) coming.delete(frame);
  }
}

/** These are not the newest any more. @param {number} first @param {number} last */
export function forget(first, last) {
  for (const [frame, entry] of kept) if (frame >= first && frame <= last) entry.stale = true;
  for (const [frame, own] of coming) if (frame >= first && frame <= last) own.stale = true;
}

/** @param {Mask} mask @param {number} color @param {boolean} hatched @param {number} thick */
export function pictureOf(mask, color, hatched, thick) {
  const look = `${color} ${hatched} ${thick}`;
  if (mask.cut && mask.look !== look) {
    mask.picture = paint(mask.cut, rgb(color), hatched, thick);
    mask.look = look;
  }
  return mask.picture;
}
