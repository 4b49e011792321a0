/** Everything around the canvas: lists, fields, banners, badges. */
import * as actions from "./actions.js";
import { masksAt } from "./masks.js";
import * as player from "./player.js";
import { numWaiting, redo, undo } from "./prompts.js";
import * as s from "./state.js";
import { zoomTimeline } from "./timeline.js";
import { clearPrompts, setTool } from "./tools.js";
import { canvas, fit, scale } from "./view.js";
const { state, on, command } = s;
const at = (/** @type {string} */ id) => s.byId(id, HTMLElement);
const field = (/** @type {string} */ id) => s.byId(id, HTMLInputElement);
const choice = (/** @type {string} */ id) => s.byId(id, HTMLSelectElement);
/** Only what is new: a screen reader would say it again. @param {string} id @param {string} text */
const write = (id, text) => at(id).textContent !== text && (at(id).textContent = text);
/** @param {string} id @param {boolean} seen @param {string} [text] */
const show = (id, seen, text) => {
  at(id).hidden = !seen;
  if (text !== undefined) write(id, text);
};
/** @param {string} id @param {boolean} can */
const enable = (id, can) => (s.byId(id, HTMLButtonElement).disabled = !can);
export const showHelp = () => s.byId("help", HTMLDialogElement).showModal();
const hideAll = () => {
  state.allHidden = !state.allHidden;
  s.emit("objects");
};
const step = (/** @type {number} */ by) => () => player.goTo(state.frame + by);

/** @type {Record<string, () => unknown>} */
const BUTTONS = {
  fit, new: s.newObject, clear: clearPrompts, keys: showHelp, "hide-all": hideAll,
  undo: () => undo(player.goTo), redo: () => redo(player.goTo), take: () => command("control", {}),
  track: actions.track, "correction-track": actions.track, pause: actions.pause, stop: actions.stop,
  "correction-keep": () => command("keep", {}), "correction-drop": actions.dropCorrection,
  play: player.togglePlay, back1: step(-1), back10: step(-10), on1: step(1), on10: step(10),
  "prompt-before": () => actions.jumpToPrompt(-1), "prompt-next": () => actions.jumpToPrompt(1),
  "flag-before": () => actions.jumpToFlag(-1), "flag-next": () => actions.jumpToFlag(1),
  review: () => command("review", {}), in: () => zoomTimeline(2), out: () => zoomTimeline(0.5),
};
for (const [id, action] of Object.entries(BUTTONS)) at(id).addEventListener("click", () => action());
for (const button of at("tools").querySelectorAll("button")) {
  button.onclick = () => setTool(/** @type {s.Tool} */ (button.dataset.tool));
}
// After a click the keys are the picture's again: Space plays, it does not click once more.
document.addEventListener("click", ({ target, detail }) => {
  const button = target instanceof Element && target.closest("button");
  if (detail && button && !button.closest("dialog")) canvas.focus();
});
choice("speed").onchange = () => {
  player.setSpeed(Number(choice("speed").value));
  canvas.focus();
};
choice("video").onchange = () => command("open", { video: choice("video").value }).then(videoList);
field("brush").oninput = () => {
  state.brush = Number(field("brush").value);
  s.emit("tool");
};
field("frame").onchange = () => {
  const frame = actions.frameOf(field("frame").value);
  if (frame === null) s.say("error", `"${field("frame").value}" is no frame number.`);
  else player.goTo(frame);
  position();
};
field("time").onchange = () => {
  const match = /^\s*(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?)\s*$/.exec(field("time").value);
  const [h, m, seconds] = (match ?? []).slice(1).map((part) => Number(part ?? 0));
  const rate = state.project?.video?.rate ?? 0;
  // The time that is shown is rounded down to a millisecond.
  if (match) player.goTo(Math.floor((h * 3600 + m * 60 + seconds + 0.001) * rate));
  else s.say("error", `"${field("time").value}" is no time. Write 1:02:03.5, 2:03 or seconds.`);
  position();
};
for (const input of [field("frame"), field("time")]) {
  input.onblur = position;
  input.onkeydown = ({ key }) => key === "Enter" && window.setTimeout(() => canvas.focus());
}

function position() {
  if (document.activeElement !== field("frame")) field("frame").value = String(state.frame);
  if (document.activeElement !== field("time")) field("time").value = s.timeOf(state.frame);
  const { frame } = player.shown;
  const behind = frame >= 0 && !state.playing && !player.arrived();
  show("badge-key", behind, `frame ${frame} is shown; ${state.frame} is loading`);
  show("badge-before", masksAt(frame)?.kind === "before");
  for (const item of at("objects").querySelectorAll("li")) {
    const mask = masksAt(frame)?.masks.find(({ id }) => String(id) === item.dataset.object);
    const small = item.querySelector("small");
    if (small) small.textContent = mask?.score == null ? "" : `score ${mask.score.toFixed(1)}`;
  }
}

function playing() {
  write("play", state.playing ? "Pause" : "Play");
  const real = state.playing && !player.onlyKeyFrames() ? player.realSpeed() : null;
  const slow = real !== null && real < state.speed * 0.9 ? `, now ${real.toFixed(1)}×` : "";
  const every = { 2: ", every 2nd frame", 4: ", every 4th frame" }[state.speed] ?? "";
  show("badge-play", state.playing, player.onlyKeyFrames() ? "key frames only" : `${state.speed}×${every}${slow}`);
}

/** @param {string} tag @param {Record<string, any>} properties @param {(string | Element)[]} children */
function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  if (properties.test) element.dataset.testid = properties.test;
  element.append(...children);
  return element;
}

let listed = "";
function objectList() {
  const all = s.objects();
  const now = JSON.stringify([all, state.selected, [...state.hidden], state.allHidden]);
  if (now === listed) return;
  listed = now;
  const focused = document.activeElement instanceof HTMLElement ? document.activeElement.dataset.testid : null;
  at("objects").replaceChildren(...all.map(objectItem));
  for (const button of at("objects").querySelectorAll("button")) if (button.dataset.testid === focused) button.focus();
  if (!all.length) at("objects").append(make("li", {}, "None yet: click on one in the picture."));
  at("objects").querySelector(".selected")?.scrollIntoView({ block: "nearest" });
  write("hide-all", state.allHidden ? "Show all" : "Hide all");
  position();
}

/** @param {s.Thing} thing */
function objectItem({ id, color, removed, tracked }) {
  const [off, own] = [s.isHidden(id), id === state.selected];
  /** @param {string} text @param {string} label @param {() => void} onclick */
  const button = (text, label, onclick) => make("button", {
    textContent: text, title: label, ariaLabel: `${label} object ${id}`, onclick, test: `${label.toLowerCase()}-${id}`,
  });
  const dot = make("i", {});
  dot.style.background = s.css(color);
  const parts = [dot, make("span", {}, removed ? `${id} (removed)` : String(id)), make("small", {})];
  const properties = { className: "name", ariaPressed: String(own), test: `object-${id}`, onclick: () => s.select(id) };
  const buttons = [button(off ? "show" : "hide", off ? "Show" : "Hide", () => s.toggleHidden(id))];
  if (!tracked) buttons.push(button("✎", "Rename", () => actions.rename(id)));
  if (!removed) buttons.push(button("×", "Remove", () => actions.remove(id)));
  const className = `${own ? "selected" : ""} ${off || removed ? "off" : ""}`;
  const item = make("li", { className }, make("button", properties, ...parts), ...buttons);
  item.dataset.object = String(id);
  return item;
}

function videoList() {
  const { video, videos } = state.project ?? {};
  choice("video").hidden = !videos?.length;
  const names = (video ? [] : ["Choose a video…"]).concat(videos ?? []);
  if (names.join("\n") !== [...choice("video").options].map(({ text }) => text).join("\n")) {
    choice("video").replaceChildren(...names.map((text) => new Option(text, text)));
  }
  choice("video").value = video?.name ?? names[0];
}

function projectShown() {
  const { project } = state;
  if (!project) return;
  const { video, model, control, spans } = project;
  videoList();
  document.title = video ? `${video.name} – longsam` : "longsam";
  const rate = video?.rate ? `, ${video.rate.toFixed(2)} frames/s, ${s.timeOf(video.num_frames).slice(0, -4)}` : "";
  write("about", video ? `${video.name}: ${video.num_frames} frames of ${video.width} × ${video.height}${rate}` : "");
  show("empty", !video, project.videos?.length ? "Choose a video at the top." : "No video is open.");
  show("time-label", !!video?.rate);
  show("watching", !control);
  for (const id of ["review", "new"]) enable(id, control && !!video);
  for (const id of ["flag-before", "flag-next"]) enable(id, !!spans?.length);
  const states = { loading: "loading the model…", failed: `the model cannot be loaded: ${model.error}`, ready: "" };
  write("status", [states[model.state], project.busy ? `${project.busy}…` : ""].filter(Boolean).join("  ·  "));
  const found = spans?.length === 1 ? "1 flagged span" : `${spans?.length} flagged spans`;
  write("review-text", !spans ? "" : spans.length ? `${found}. Go there with . and ,` : "Nothing looks wrong.");
  write("folder", `In ${project.folder}`);
  exportList(project);
  passes();
}

let exported = "";
/** @param {import("./types.js").Project} project */
function exportList({ exports, control, tracked, busy }) {
  const disabled = !control || !tracked.length || !!busy?.startsWith("exporting");
  const now = JSON.stringify([exports, disabled]);
  if (now === exported) return;
  exported = now;
  at("exports").replaceChildren(...exports.map(({ name, about, files }) => {
    const onclick = () => command("export", { to: name, category: null });
    const label = `Export as ${name}`;
    const start = make("button", { textContent: name, ariaLabel: label, disabled, onclick, test: `export-${name}` });
    const links = (files ?? []).map((file) =>
      make("a", { href: `api/download/${encodeURIComponent(file)}`, download: file }, `Download ${file}`));
    return make("li", {}, start, make("small", {}, about), ...links);
  }));
}

/** The pass and the correction: what runs, what can be started. */
function passes() {
  const { project } = state;
  if (!project) return;
  const { tracking, correction, unfinished, control, tracked } = project;
  const ready = control && !!project.video && project.model.state === "ready";
  const goesOn = actions.continues();
  show("track", !tracking, correction ? "Track on from here" : goesOn ? `Continue to frame ${unfinished?.end}` : "Track");
  enable("track", ready && (project.prompts.length > 0 || !!correction));
  show("pause", !!tracking);
  show("stop", !!tracking || (!correction && goesOn));
  for (const id of ["pause", "stop"]) enable(id, control);
  show("track-progress", !!tracking);
  if (tracking) {
    const { done, total, fps, seconds_left: left, reverse, frame } = tracking;
    s.byId("track-progress", HTMLProgressElement).value = done / Math.max(1, total);
    const speed = fps ? `, ${fps.toFixed(fps < 10 ? 1 : 0)} frames/s` : "";
    const time = left == null ? "" : `, ${s.duration(left)} left`;
    write("track-text", `${reverse ? "Backward" : "Forward"}, frame ${frame}: ${done} of ${total}${speed}${time}`);
  } else {
    const frames = tracked.reduce((sum, [first, last]) => sum + last - first + 1, 0);
    const paused = unfinished ? `The pass stopped before frame ${unfinished.next}. ` : "";
    write("track-text", `${paused}${frames ? `${frames} frames have masks.` : ""}`);
  }
  show("correction", !!correction);
  if (!correction) return;
  const { frame, first, last, reverse, at: made, rewinding } = correction;
  const [done, total] = [made === null ? 0 : reverse ? last - made + 1 : made - first + 1, last - first + 1];
  const bar = s.byId("correction-progress", HTMLProgressElement);
  bar.value = rewinding ?? done / total;
  if (rewinding === 0) bar.removeAttribute("value"); // it moves, but does not say how far it is
  const again = `Frames ${first} to ${last} are tracked again, ${done} of ${total}.`;
  const [from, to] = reverse ? [first, (made ?? frame) - 1] : [(made ?? frame) + 1, last];
  const corrected = `Frame ${frame} is corrected. Frames ${from} to ${to} have the masks from before.`;
  write("correction-text", rewinding !== null ? `Going back to frame ${frame}…` : tracking ? again : corrected);
  enable("correction-track", ready && rewinding === null && !tracking);
  enable("correction-keep", control && rewinding === null);
  enable("correction-drop", control);
}

on(["frame", "shown", "masks"], position);
on(["project"], projectShown);
on(["progress"], passes);
on(["objects"], objectList);
on(["play"], playing);
window.setInterval(() => state.playing && playing(), 500);
on(["prompts"], () => {
  const back = state.project?.tracked.some(([first, last]) => first <= state.frame && state.frame <= last);
  show("badge-wait", numWaiting() > 0, back ? "going back to this frame…" : "the model is at work…");
});
on(["connection"], (reason) => show("offline", !state.connected, reason));
on(["tool"], () => {
  for (const button of at("tools").querySelectorAll("button")) {
    button.ariaPressed = String(button.dataset.tool === state.tool);
  }
  canvas.dataset.tool = state.tool;
  show("brush-label", state.tool === "paint" || state.tool === "erase");
  field("brush").value = String(state.brush);
  write("brush-size", `${state.brush} px`);
});
on(["view"], () => {
  const over = canvas.dataset.over ?? "";
  for (const { dataset, classList } of at("objects").querySelectorAll("li")) {
    classList.toggle("over", !!over && dataset.object === over);
  }
  write("pointer", `${over ? `object ${over}  ·  ` : ""}${state.project?.video ? Math.round(scale() * 100) : 100} %`);
});
