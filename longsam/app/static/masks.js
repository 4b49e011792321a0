/** The masks of frames: fetched, decoded, kept for a while, drawn to small pictures. */
import { get } from "./api.js";
import { decode, paint } from "./rle.js";
import { emit, rgb, state } from "./state.js";
/** @typedef {import("./types.js").MaskAnswer & {cut: import("./rle.js").Cut | null,
 *   picture: OffscreenCanvas | null, look: string}} Mask */
/** @typedef {{kind: import("./types.js").Answer["kind"], masks: Mask[], stale: boolean}} FrameMasks */

const KEPT = 64; // frames
/** @type {Map<number, FrameMasks>} */
const kept = new Map();
/** @type {Map<number, {stale: boolean, done: Promise<void>}>} */
const coming = new Map();
/** @type {Map<number, number>} When they could not be had. */
const failures = new Map();
/** @param {number} frame */
const failedLately = (frame) => performance.now() - (failures.get(frame) ?? -Infinity) < 2000;
/** Whether there is nothing to wait for. @param {number} frame */
export const settled = (frame) => kept.has(frame) || failedLately(frame);
/** The last that came; from before a change while the new ones come. @param {number} frame */
export const masksAt = (frame) => kept.get(frame);

/** @param {import("./types.js").Answer} answer @param {boolean} [stale] They have changed since. */
function put({ frame, size: [height, width], kind, objects }, stale = false) {
  const old = kept.get(frame);
  const masks = objects.map((answer) => {
    const same = old?.masks.find(({ id, counts }) => id === answer.id && counts === answer.counts);
    return { picture: null, look: "", cut: same ? same.cut : decode(answer.counts, height, width), ...answer };
  });
  kept.delete(frame);
  kept.set(frame, { kind, masks, stale });
  for (const oldest of kept.keys()) {
    if (kept.size <= KEPT) break;
    kept.delete(oldest);
  }
  emit("masks", frame);
}

/** The answer to a prompt: newer than what was asked for before. */
export function putAnswer(/** @type {import("./types.js").Answer} */ answer) {
  const request = coming.get(answer.frame);
  if (request) request.stale = true;
  put(answer);
}

/** Show what was painted before the model has answered.
 * @param {number} frame @param {import("./types.js").ObjectId} id @param {string} counts */
export function putPainted(frame, id, counts) {
  const video = state.project?.video;
  if (!video) return;
  const old = kept.get(frame);
  const others = (old?.masks ?? []).filter((mask) => mask.id !== id);
  const kind = old && old.kind !== "none" ? old.kind : "prompted";
  putAnswer({ frame, size: [video.height, video.width], kind, objects: [...others, { id, counts, area: 0, score: null }] });
}

/** Have the masks of a frame come, if they are not here. @param {number} frame
 * @returns {Promise<void>} Settles in any case. */
export function want(frame) {
  if (kept.get(frame)?.stale === false || failedLately(frame)) return Promise.resolve();
  const request = coming.get(frame);
  if (request && !request.stale) return request.done;
  const own = { stale: false, done: Promise.resolve() };
  coming.set(frame, own);
  return (own.done = fetchMasks(frame, own));
}
async function fetchMasks(/** @type {number} */ frame, /** @type {{stale: boolean}} */ own) {
  try {
    const answer = await get(`api/masks/${frame}`);
    // What came meanwhile, with the answer to a prompt, is newer.
    if (!own.stale || kept.get(frame)?.stale !== false) put(answer, own.stale);
  } catch {
    failures.set(frame, performance.now()); // the frame itself says what is wrong
  }
  if (coming.get(frame) === own) coming.delete(frame);
}

/** These are not the newest any more. @param {number} first @param {number} last */
export function forget(first, last) {
  for (const all of [kept, coming]) {
    for (const [frame, entry] of all) if (frame >= first && frame <= last) entry.stale = true;
  }
}

/** @param {Mask} mask @param {number} color @param {boolean} hatched @param {number} thick */
export function pictureOf(mask, color, hatched, thick) {
  const look = `${color} ${hatched} ${thick}`;
  if (mask.cut && mask.look !== look) mask.picture = paint(mask.cut, rgb(color), hatched, thick);
  mask.look = look;
  return mask.picture;
}
