/** Starts the page: connects, and tells each part what has changed. */

import { listen } from "./api.js";
import { forget, masksAt, want } from "./masks.js";
import "./panel.js";
import "./keys.js";
import "./scrubber.js";
import { reload, shown } from "./player.js";
import { numWaiting } from "./prompts.js";
import { emit, say, setProgress, setProject, state } from "./state.js";
import { drawTimes } from "./timeline.js";
import { setTool } from "./tools.js";
import { fit, toWindow } from "./view.js";

let before = "";
/** @param {any} event */
function onEvent(event) {
  state.events++;
  if (event.type === "message") say(event.level, event.text);
  if (event.type === "progress") {
    if (event.changed) forget(event.changed[0], event.changed[1]);
    setProgress(event);
    want(shown.frame);
  }
  if (event.type !== "project") return;
  const other = event.video?.name !== state.project?.video?.name;
  const { log_size, objects, mend, tracked } = event;
  const now = JSON.stringify([log_size, objects, mend && [mend.frame, mend.at], tracked]);
  if (now !== before || other) forget(0, Infinity);
  before = now;
  setProject(event);
  if (other) fit();
  reload(other);
  if (shown.frame >= 0) want(shown.frame);
}

listen(onEvent, (connected, reason) => {
  state.connected = connected;
  emit("connection", reason);
});
setTool("point");

/** For tests, read only: what is shown, and where a pixel of the video is in the window. */
Object.defineProperty(window, "longsam", {
  value: Object.freeze({
    /** masksOf: ids with a mask on the frame shown; kind: as in api/masks; fresh: not to be replaced. */
    shown: () => {
      const entry = masksAt(shown.frame);
      return {
        frame: shown.frame,
        exact: shown.exact && shown.frame === state.frame,
        width: shown.width,
        masksOf: entry?.masks.filter(({ cut }) => cut).map(({ id }) => id) ?? null,
        counts: Object.fromEntries(entry?.masks.map(({ id, counts }) => [id, counts]) ?? []),
        kind: entry?.kind ?? null,
        fresh: !!entry && !entry.stale,
        waiting: numWaiting(),
        events: state.events,
      };
    },
    /** @param {number} x @param {number} y Pixels of the video. */
    toWindow: (x, y) => toWindow({ x, y }),
    /** Milliseconds of the timeline's last draws. */
    drawTimes: () => [...drawTimes],
    project: () => structuredClone(state.project),
  }),
});
