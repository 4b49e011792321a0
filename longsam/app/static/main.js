/** Starts the page: connects, and tells each part what has changed. */
import { listen } from "./api.js";
import { forget, masksAt, want } from "./masks.js";
import "./panel.js";
import "./keys.js";
import "./scrubber.js";
import { arrived, reload, shown } from "./player.js";
import { forgetSteps, numWaiting } from "./prompts.js";
import { emit, say, setProgress, setProject, state } from "./state.js";
import { drawTimes } from "./timeline.js";
import { setTool } from "./tools.js";
import { fit, toWindow } from "./view.js";

let before = "";
function onEvent(/** @type {any} */ event) {
  state.events++;
  if (event.type === "message") say(event.level, event.text);
  if (event.type === "progress") {
    if (event.changed) forget(event.changed[0], event.changed[1]);
    setProgress(event);
  }
  if (event.type === "project") {
    const other = event.video?.name !== state.project?.video?.name;
    const { log_size, objects, correction, tracked } = event;
    const now = JSON.stringify([log_size, objects, correction && [correction.frame, correction.at], tracked]);
    if (now !== before || other) forget(0, Infinity);
    before = now;
    if (other) Object.assign(state, { fresh: [], selected: null, setAside: false });
    if (other) forgetSteps(() => true);
    setProject(event);
    if (other) fit();
    reload(other);
  }
  if (shown.frame >= 0) want(shown.frame);
}

listen(onEvent, (connected, reason) => {
  state.connected = connected;
  emit("connection", reason);
});
setTool("point");

/** For tests, read only. shown: what is on the canvas; `counts` are its masks by id, `fresh` says that they
 * are not about to be replaced, `waiting` how many prompts have no answer yet. toWindow: where a pixel of the
 * video is. drawTimes: milliseconds of the timeline's last draws. */
const longsam = Object.freeze({
  shown: () => {
    const { kind = null, masks = [], stale = true } = masksAt(shown.frame) ?? {};
    const masksOf = masks.filter(({ cut }) => cut).map(({ id }) => id);
    const counts = Object.fromEntries(masks.map(({ id, counts }) => [id, counts]));
    const { frame, width } = shown;
    const waiting = numWaiting();
    return { frame, exact: arrived(), width, masksOf, counts, kind, fresh: !stale, waiting, events: state.events };
  },
  toWindow: (/** @type {number} */ x, /** @type {number} */ y) => toWindow({ x, y }),
  drawTimes: () => [...drawTimes],
  project: () => structuredClone(state.project),
});
Object.defineProperty(window, "longsam", { value: longsam });
