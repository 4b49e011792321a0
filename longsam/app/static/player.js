/** Which frame is wanted and which is shown: jumps, steps, scrubbing, playing. */
import { LOSSLESS, Refused, WIDTHS, isAbort, post, reasonOf } from "./api.js";
import * as frames from "./frames.js";
import * as masks from "./masks.js";
import { emit, numFrames, on, say, state } from "./state.js";
/** What is on the canvas. `exact` is false while a key frame stands in for the frame that is wanted.
 * @type {{frame: number, exact: boolean, width: number, bitmap: ImageBitmap | null}} */
export const shown = { frame: -1, exact: false, width: 0, bitmap: null };
/** Whether the frame that is wanted is shown. */
export const arrived = () => shown.exact && shown.frame === state.frame;

const NEAR = 12; // frames; a step of at most this many shows no key frame first
const AHEAD = 3; // frames fetched in the direction of travel
const KEY_FRAMES_FROM = 8; // times the speed: only key frames are shown

let direction = 1;
let stepped = false;
let running = false;
/** Frames: one that cannot be had, one decoded while its key frame is shown, one that has rested. */
let [failed, slow, rested] = [-1, -1, -1];
/** Device pixels for a pixel of the video, told by the view. */
let scale = 0.5;
/** @type {(() => void)[]} */
let wakers = [];
/** @type {number | undefined} */
let restTimer;
/** @type {number | undefined} */
let scaleTimer;

export function setScale(/** @type {number} */ to) {
  window.clearTimeout(scaleTimer);
  scale = to;
  scaleTimer = window.setTimeout(pump, 200);
}

/** @param {number} pixels */
const widthFor = (pixels) => WIDTHS.find((width) => width >= pixels) ?? WIDTHS[WIDTHS.length - 1];
const ownWidth = () => state.project?.video?.width ?? 0;

/** The width to ask for: all pixels that the canvas can show, of a JPEG or without loss. */
function wantedWidth() {
  if (state.scrubbing || shown.frame < 0) return WIDTHS[0];
  if (scale >= 2 && !state.playing) return LOSSLESS;
  return widthFor(Math.min(ownWidth() * Math.min(1, scale), state.playing ? 1280 : Infinity));
}
const jpegWidth = () => (wantedWidth() === LOSSLESS ? widthFor(ownWidth()) : wantedWidth());

/** Show this frame. @param {number} frame */
export function goTo(frame) {
  if (state.playing) pause();
  const to = Math.max(0, Math.min(numFrames() - 1, Math.round(frame)));
  if (to !== state.frame) {
    direction = to > state.frame ? 1 : -1;
    stepped = Math.abs(to - state.frame) <= NEAR;
    state.frame = to;
    failed = -1;
    // What was asked for and is not wanted any more. A step's frame may still come, and so may one of
    // a scrub, or nothing would be seen while keys repeat or the pointer moves.
    frames.abort((one, ahead, age) => {
      if (one === to || (Math.abs(one - to) <= NEAR && age < 400)) return false;
      return ahead || one === slow || !state.scrubbing || age > 1000;
    });
  }
  emit("frame");
  pump();
}
export function setScrubbing(/** @type {boolean} */ scrubbing) {
  state.scrubbing = scrubbing;
  if (!scrubbing && arrived()) rest(shown.frame);
  pump();
}

/** A connection that is back, or another video. @param {boolean} all */
export function reload(all) {
  failed = -1;
  if (all) {
    frames.clear();
    Object.assign(shown, { frame: -1, exact: false, width: 0, bitmap: null });
    [state.frame, rested] = [0, -1];
    emit("frame");
  }
  pump();
}

/** Wait so long, or until another frame is wanted. @param {number} ms @returns {Promise<void>} */
const pauseFor = (ms) => new Promise((resolve) => {
  wakers.push(resolve);
  window.setTimeout(resolve, ms);
});

async function pump() {
  for (const wake of wakers.splice(0)) wake();
  if (running) return;
  running = true;
  while (state.project?.video && !state.playing && (await step()));
  running = false;
}

/** One thing towards the frame that is wanted. @returns {Promise<boolean>} Whether there is more. */
async function step() {
  const { frame } = state;
  const here = arrived() ? shown.width : 0;
  if (frame === failed || here >= wantedWidth() || (here && state.scrubbing)) return false;
  try {
    const found = frames.best(frame);
    if (found && found.width > here) {
      present(frame, true, found);
    } else if (here) {
      await pauseFor(150); // sharper, once the user stays
      if (state.frame === frame) present(frame, true, await frames.load(frame, wantedWidth()));
    } else if (frames.has(frame, jpegWidth()) || Math.abs(frame - shown.frame) <= NEAR) {
      present(frame, true, await frames.load(frame, jpegWidth()));
    } else if (await showKeyFrame(frame)) {
      slow = frame;
      present(frame, true, await frames.load(frame, jpegWidth()));
    }
    return true;
  } catch (error) {
    if (isAbort(error) || state.frame !== frame) return true;
    if (error instanceof Refused && error.status === 409) {
      await pauseFor(30); // dropped for a newer request of this tab
      return true;
    }
    failed = frame;
    if (state.connected) say("error", `Frame ${frame} cannot be shown: ${reasonOf(error)}`);
    return false;
  } finally {
    slow = -1;
  }
}

/** @param {number} frame @returns {Promise<boolean>} Whether the exact frame is still wanted. */
async function showKeyFrame(frame) {
  const near = await frames.loadKeyFrame(frame, WIDTHS[0]); // small: it is seen for less than a second
  if (near && near.frame !== frame && !state.playing && (state.frame === frame || state.scrubbing)) {
    present(near.frame, false, near.picture);
    if (state.scrubbing && state.frame === frame) await pauseFor(120);
  }
  return state.frame === frame && !state.playing;
}

/** @param {number} frame @param {boolean} exact @param {frames.Picture} picture */
function present(frame, exact, picture) {
  Object.assign(shown, { frame, exact, width: picture.width, bitmap: picture.bitmap });
  masks.want(frame);
  emit("shown");
  window.clearTimeout(restTimer);
  if (!exact || state.playing || state.scrubbing) return;
  prefetch(frame);
  rest(frame);
}
/** The server may compute ahead what a prompt on this frame needs. @param {number} frame */
function rest(frame) {
  window.clearTimeout(restTimer);
  restTimer = window.setTimeout(() => {
    if (frame === rested || !state.project?.control || state.frame !== frame) return;
    rested = frame;
    post("api/rest", { frame }).catch(() => {});
  }, 300);
}

/** The next ones in the direction of travel; after a jump only one. @param {number} frame */
async function prefetch(frame) {
  const width = jpegWidth();
  for (let i = 1; i <= (stepped ? AHEAD : 1); i++) {
    const next = frame + i * direction;
    if (next < 0 || next >= numFrames() || state.frame !== frame) return;
    masks.want(next);
    if (!frames.best(next)) await frames.load(next, width, true).catch(() => {}); // nobody waits for it
  }
}

on(["masks"], (frame) => {
  if (frame === -1) masks.forget(0, Infinity);
  if (frame === -1 || masks.masksAt(shown.frame)?.stale) masks.want(shown.frame);
});

// Playing ---------------------------------------------------------------------------------------

let clock = { frame: 0, since: 0, stride: 1, interval: 40 };
let played = { since: 0, from: 0 };
const rate = () => state.project?.video?.rate ?? 25;

/** How fast it really goes, in times the video's speed, once that is known. */
export function realSpeed() {
  const seconds = (performance.now() - played.since) / 1000;
  return seconds < 1 ? null : (shown.frame - played.from) / rate() / seconds;
}
export const onlyKeyFrames = () => state.speed >= KEY_FRAMES_FROM;
export function togglePlay() {
  if (state.playing) return pause();
  if (!state.project?.video) return;
  if (state.frame >= numFrames() - 1) goTo(0);
  state.playing = true;
  [direction, stepped] = [1, true];
  window.clearTimeout(restTimer);
  frames.abort((_, ahead) => !ahead);
  setSpeed(state.speed);
}
export function pause() {
  if (!state.playing) return;
  state.playing = false;
  state.frame = shown.frame;
  emit("play");
  emit("frame");
  pump();
}

export function setSpeed(/** @type {number} */ speed) {
  state.speed = speed;
  const stride = onlyKeyFrames() ? 1 : speed;
  const since = performance.now();
  clock = { frame: state.frame, since, stride, interval: (1000 * stride) / (rate() * speed) };
  played = { since, from: state.frame };
  emit("play");
  const own = clock;
  if (state.playing && onlyKeyFrames()) playKeyFrames(own).catch((error) => playFailed(error, own));
  else if (state.playing) tick(clock);
}

const stopped = (/** @type {typeof clock} */ own) => !state.playing || clock !== own;

function presentPlayed(/** @type {number} */ frame, /** @type {frames.Picture} */ picture) {
  state.frame = frame;
  present(frame, true, picture);
  emit("frame");
}

function tick(/** @type {typeof clock} */ own) {
  if (stopped(own)) return;
  const now = performance.now();
  const at = (/** @type {number} */ i) => own.frame + i * own.stride;
  const next = Math.floor((state.frame - own.frame) / own.stride) + 1;
  if (at(next) >= numFrames()) return pause();
  let newest = next - 1;
  for (let i = next; now >= own.since + i * own.interval; i++) {
    if (at(i) >= numFrames() || !frames.best(at(i)) || !masks.settled(at(i))) break;
    newest = i;
  }
  const picture = newest >= next ? frames.best(at(newest)) : null;
  if (picture) presentPlayed(at(newest), picture);
  // Where the server is slower than the video, the clock waits.
  own.since = Math.max(own.since, now - (newest + 2) * own.interval);
  for (let i = newest + 1; i <= newest + 5 && at(i) < numFrames(); i++) {
    masks.want(at(i));
    frames.load(at(i), jpegWidth(), true).catch((error) => playFailed(error, own));
  }
  requestAnimationFrame(() => tick(own));
}

function playFailed(/** @type {unknown} */ error, /** @type {typeof clock} */ own) {
  if (isAbort(error) || stopped(own)) return;
  pause();
  say("error", `Playing stopped: ${reasonOf(error)}`);
}
async function playKeyFrames(/** @type {typeof clock} */ own) {
  while (!stopped(own)) {
    const due = own.frame + Math.floor((performance.now() - own.since) / own.interval);
    if (due >= numFrames()) return pause();
    const width = jpegWidth();
    const near = (await frames.loadKeyFrame(due, width)) ?? { frame: due, picture: await frames.load(due, width) };
    if (near.frame > state.frame || shown.frame < 0) {
      await masks.want(near.frame);
      if (!stopped(own)) presentPlayed(near.frame, near.picture);
    }
    await pauseFor(60);
  }
}
