/** Frames as bitmaps: fetched once, kept while they fit, shared by all that ask for the same. */
import { LOSSLESS, WIDTHS, frameUrl, request } from "./api.js";
/** @typedef {{bitmap: ImageBitmap, width: number}} Picture  width: one of WIDTHS, or LOSSLESS */
const BEST_FIRST = [LOSSLESS, ...WIDTHS].sort((a, b) => b - a);

/** Least recently used goes first; what goes is left to the collector. @template T */
class Kept {
  /** @param {number} limit Bytes. @param {(value: T) => number} bytesOf */
  constructor(limit, bytesOf) {
    this.limit = limit;
    this.bytesOf = bytesOf;
    this.bytes = 0;
    /** @type {Map<string, T>} */
    this.map = new Map();
  }
  get(/** @type {string} */ key) {
    const value = this.map.get(key);
    if (value !== undefined && this.map.delete(key)) this.map.set(key, value);
    return value;
  }
  set(/** @type {string} */ key, /** @type {T} */ value) {
    this.map.set(key, value);
    this.bytes += this.bytesOf(value);
    for (const [oldest, old] of this.map) {
      if (this.bytes <= this.limit || oldest === key) break;
      this.map.delete(oldest);
      this.bytes -= this.bytesOf(old);
    }
  }
  clear() {
    this.map.clear();
    this.bytes = 0;
  }
}

/** @type {Kept<Blob>} */
const blobs = new Kept(96e6, (blob) => blob.size);
/** @type {Kept<ImageBitmap>} */
const bitmaps = new Kept(160e6, (bitmap) => bitmap.width * bitmap.height * 4);
/** @type {Map<string, {promise: Promise<Picture>, controller: AbortController, since: number, ahead: boolean}>} */
const coming = new Map();
const key = (/** @type {number} */ frame, /** @type {number} */ width) => `${frame} ${width}`;

/** The best bitmap of a frame that is here already. @param {number} frame @returns {Picture | null} */
export function best(frame) {
  for (const width of BEST_FIRST) {
    const bitmap = bitmaps.get(key(frame, width));
    if (bitmap) return { bitmap, width };
  }
  return null;
}

/** Whether its bytes are here, or on their way. @param {number} frame @param {number} width */
export const has = (frame, width) => [bitmaps.map, blobs.map, coming].some((map) => map.has(key(frame, width)));

/** @param {number} frame @param {number} width @param {boolean} [ahead] Nobody waits for it yet.
 * @returns {Promise<Picture>} AbortError where `abort` met it. */
export function load(frame, width, ahead = false) {
  const at = key(frame, width);
  const bitmap = bitmaps.get(at);
  if (bitmap) return Promise.resolve({ bitmap, width });
  const request = coming.get(at);
  if (request) {
    request.ahead &&= ahead;
    return request.promise;
  }
  const controller = new AbortController();
  const promise = fetchPicture(frame, width, ahead, controller.signal);
  coming.set(at, { promise, controller, since: performance.now(), ahead });
  const gone = () => coming.get(at)?.promise === promise && coming.delete(at);
  promise.then(gone, gone); // the caller gets the error
  return promise;
}

/** @param {number} frame @param {number} width @param {boolean} ahead @param {AbortSignal} signal */
async function fetchPicture(frame, width, ahead, signal) {
  const at = key(frame, width);
  let blob = blobs.get(at);
  if (!blob) {
    blob = await (await request(frameUrl(frame, width, !ahead), { signal, priority: ahead ? "low" : "high" })).blob();
    blobs.set(at, blob);
  }
  const bitmap = await createImageBitmap(blob);
  bitmaps.set(at, bitmap);
  return { bitmap, width };
}

/** Of a key frame nearby, if any. @param {number} frame @param {number} width @returns {Promise<{frame: number, picture: Picture} | null>} */
export async function loadKeyFrame(frame, width) {
  const response = await request(`api/keyframe/${frame}.jpg?width=${width}`);
  if (response.status === 204) return null;
  const near = Number(response.headers.get("X-Frame"));
  const bitmap = await createImageBitmap(await response.blob());
  bitmaps.set(key(near, width), bitmap);
  return { frame: near, picture: best(near) ?? { bitmap, width } };
}
/** Stop what is loading. @param {(frame: number, ahead: boolean, age: number) => boolean} which
 * age: in milliseconds. */
export function abort(which) {
  for (const [at, { controller, since, ahead }] of coming) {
    if (which(parseInt(at), ahead, performance.now() - since) && coming.delete(at)) controller.abort();
  }
}
/** Another video: nothing of this one is of use. */
export function clear() {
  abort(() => true);
  blobs.clear();
  bitmaps.clear();
}
