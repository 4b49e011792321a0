/** Everything around the canvas: lists, fields, banners, badges. */

import * as actions from "./actions.js";
import { masksAt } from "./masks.js";
import * as player from "./player.js";
import { numWaiting, redo, undo } from "./prompts.js";
import * as s from "./state.js";
import { clearPrompts, setTool } from "./tools.js";
import { zoomTimeline } from "./timeline.js";
import { canvas, fit, scale } from "./view.js";

const { state, on, command } = s;
/** @param {string} id */
const at = (id) => s.byId(id, HTMLElement);
/** @param {string} id */
const field = (id) => s.byId(id, HTMLInputElement);
/** @param {string} id */
const choice = (id) => s.byId(id, HTMLSelectElement);
/** Only when it is another: the screen reader would say it again. @param {string} id @param {string} text */
const write = (id, text) => at(id).textContent !== text && (at(id).textContent = text);
/** @param {string} id @param {boolean} seen @param {string} [text] */
function show(id, seen, text) {
  at(id).hidden = !seen;
  if (text !== undefined) write(id, text);
}
/** @param {string} id @param {boolean} can */
const enable = (id, can) => (s.byId(id, HTMLButtonElement).disabled = !can);

/** @type {Record<string, () => unknown>} */
const buttons = {
  fit, new: s.newObject, clear: clearPrompts, review: () => command("review", {}),
  undo: () => undo(player.goTo), redo: () => redo(player.goTo),
  take: () => command("control", {}), track: actions.track, "mend-track": actions.track,
  pause: actions.pause, stop: actions.stop, "mend-drop": actions.dropMend,
  "mend-keep": () => command("keep", {}), play: player.togglePlay, keys: showHelp,
  back1: () => player.goTo(state.frame - 1), back10: () => player.goTo(state.frame - 10),
  on1: () => player.goTo(state.frame + 1), on10: () => player.goTo(state.frame + 10),
  "prompt-before": () => actions.jumpToPrompt(-1), "prompt-next": () => actions.jumpToPrompt(1),
  "flag-before": () => actions.jumpToFlag(-1), "flag-next": () => actions.jumpToFlag(1),
  in: () => zoomTimeline(2), out: () => zoomTimeline(0.5),
  "hide-all": () => {
    state.allHidden = !state.allHidden;
    s.emit("objects");
  },
};
for (const [id, action] of Object.entries(buttons)) at(id).addEventListener("click", () => action());
export function showHelp() {
  s.byId("help", HTMLDialogElement).showModal();
}
// After a click the keys are the picture's again: Space plays, it does not click once more.
document.addEventListener("click", (event) => {
  const button = event.target instanceof Element && event.target.closest("button, select");
  if (event.detail && button && !button.closest("dialog") && !(button instanceof HTMLSelectElement)) canvas.focus();
});

choice("speed").onchange = () => {
  player.setSpeed(Number(choice("speed").value));
  canvas.focus();
};
choice("video").onchange = () => command("open", { video: choice("video").value }).then(() => videoList());
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
  const rate = state.project?.video?.rate;
  if (match && rate) {
    const seconds = Number(match[1] ?? 0) * 3600 + Number(match[2] ?? 0) * 60 + Number(match[3]);
    player.goTo(Math.floor(seconds * rate + 0.01));
  } else s.say("error", `"${field("time").value}" is no time. Write 1:02:03.5, 2:03 or seconds.`);
  position();
};
for (const id of ["frame", "time"]) {
  field(id).addEventListener("keydown", (event) => event.key === "Enter" && window.setTimeout(() => canvas.focus()));
}
for (const button of at("tools").querySelectorAll("button")) {
  button.onclick = () => setTool(/** @type {s.Tool} */ (button.dataset.tool));
}

function position() {
  if (document.activeElement !== field("frame")) field("frame").value = String(state.frame);
  if (document.activeElement !== field("time")) field("time").value = s.timeOf(state.frame);
  const behind = state.frame !== player.shown.frame || !player.shown.exact;
  show("badge-key", behind && player.shown.frame >= 0 && !state.playing,
    `key frame ${player.shown.frame}; ${state.frame} is on its way`);
  show("badge-before", masksAt(player.shown.frame)?.kind === "before");
}

function playing() {
  write("play", state.playing ? "Pause" : "Play");
  at("play").ariaLabel = state.playing ? "Pause" : "Play";
  const real = state.playing && !player.onlyKeyFrames() ? player.realSpeed() : null;
  const slow = real !== null && real < state.speed * 0.9 ? `, now ${real.toFixed(1)}×` : "";
  const every = state.speed > 1 ? `, every ${state.speed}th frame`.replace("2th", "2nd") : "";
  const note = player.onlyKeyFrames() ? "key frames only" : `${state.speed}×${every}${slow}`;
  show("badge-play", state.playing, note);
}

/** @param {string} tag @param {Record<string, any>} properties @param {(string | Element)[]} children */
function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

let listed = "";
function objectList() {
  const all = s.objects();
  const now = JSON.stringify([all, state.selected, [...state.hidden], state.allHidden, state.project?.control]);
  if (now === listed) return;
  listed = now;
  const focused = document.activeElement instanceof HTMLElement ? document.activeElement.dataset.testid : null;
  at("objects").replaceChildren(...all.map(objectItem));
  if (focused) at("objects").querySelector(/** @type {"button"} */ (`[data-testid="${CSS.escape(focused)}"]`))?.focus();
  if (!all.length) at("objects").append(make("li", {}, "None yet: click on one in the picture."));
  at("objects").querySelector(".selected")?.scrollIntoView({ block: "nearest" });
  write("hide-all", state.allHidden ? "Show all" : "Hide all");
  scores();
}

/** @param {s.Thing} thing */
function objectItem({ id, color }) {
  const off = s.isHidden(id);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  for (const [name, value] of Object.entries({ width: 12, height: 12 })) svg.setAttribute(name, String(value));
  for (const [name, value] of Object.entries({ cx: 6, cy: 6, r: 6, fill: s.css(color) })) dot.setAttribute(name, String(value));
  svg.append(dot);
  /** @param {string} text @param {string} label @param {string} test @param {() => void} onclick */
  const button = (text, label, test, onclick) => {
    const made = make("button", { textContent: text, title: label, ariaLabel: `${label} object ${id}`, onclick });
    made.dataset.testid = `${test}-${id}`;
    return made;
  };
  const name = make("button", { className: "name", onclick: () => s.select(id), ondblclick: () => actions.rename(id) },
    svg, make("span", {}, String(id)), make("small", {}));
  name.dataset.testid = `object-${id}`;
  name.ariaPressed = String(id === state.selected);
  const item = make("li", { className: `${id === state.selected ? "selected" : ""} ${off ? "off" : ""}` }, name,
    button(off ? "show" : "hide", off ? "Show" : "Hide", "hide", () => s.toggleHidden(id)),
    button("✎", "Rename", "rename", () => actions.rename(id)),
    button("×", "Remove", "remove", () => actions.remove(id)));
  item.dataset.object = String(id);
  return item;
}

function scores() {
  const masks = masksAt(player.shown.frame)?.masks ?? [];
  for (const item of at("objects").querySelectorAll("li")) {
    const mask = masks.find(({ id }) => String(id) === item.dataset.object);
    const small = item.querySelector("small");
    if (!small) continue;
    small.textContent = mask?.score == null ? "" : `score ${mask.score.toFixed(1)}`;
    small.title = mask ? `${mask.area} pixels` : "";
  }
}

function videoList() {
  const { project } = state;
  const select = choice("video");
  select.hidden = !project?.videos?.length;
  const names = project?.videos ?? [];
  const options = (project?.video ? [] : ["Choose a video…"]).concat(names);
  if (options.join("\n") !== [...select.options].map(({ text }) => text).join("\n")) {
    select.replaceChildren(...options.map((text) => new Option(text, text)));
  }
  if (project?.video) select.value = project.video.name;
}

function projectShown() {
  const { project } = state;
  if (!project) return;
  const { video, model, control } = project;
  videoList();
  document.title = video ? `${video.name} – longsam` : "longsam";
  const rate = video?.rate ? `, ${video.rate.toFixed(2)} frames/s, ${s.timeOf(video.num_frames).replace(/\.\d+$/, "")}` : "";
  write("about", video ? `${video.name}: ${video.num_frames} frames of ${video.width} × ${video.height}${rate}` : "");
  show("empty", !video, project.videos?.length ? "Choose a video at the top." : "No video is open.");
  at("time-label").hidden = !video?.rate;
  show("watching", !control);
  for (const id of ["review", "new"]) enable(id, control && !!video);
  for (const id of ["flag-before", "flag-next"]) enable(id, !!project.spans?.length);
  const failed = model.state === "failed" ? `the model cannot be loaded: ${model.error}` : "";
  const loading = model.state === "loading" ? "loading the model…" : "";
  write("status", [failed || loading, project.busy ? `${project.busy}…` : ""].filter(Boolean).join("  ·  "));
  const n = project.spans?.length ?? 0;
  write("review-text", project.spans ? (n ? `${n} flagged ${n === 1 ? "span" : "spans"}: . and , go there` : "Nothing looks wrong.") : "");
  write("folder", `In ${project.folder}`);
  exportList();
  passes();
}

let exported = "";
function exportList() {
  const { exports = [], control = false, tracked = [], busy } = state.project ?? {};
  const now = JSON.stringify([exports, control, tracked.length > 0, busy]);
  if (now === exported) return;
  exported = now;
  at("exports").replaceChildren(...exports.map(({ name, about, files }) => {
    const start = make("button", { textContent: name, ariaLabel: `Export as ${name}`,
      disabled: !control || !tracked.length || !!busy?.startsWith("exporting"),
      onclick: () => command("export", { to: name, category: null }) });
    start.dataset.testid = `export-${name}`;
    const links = (files ?? []).map((file) => make("a", { href: `api/download/${encodeURIComponent(file)}`, download: file }, `Download ${file}`));
    return make("li", {}, start, make("small", {}, about), ...links);
  }));
}

/** The pass and the mend: what runs, what can be started. */
function passes() {
  const { project } = state;
  if (!project) return;
  const { tracking, mend, unfinished, control } = project;
  const ready = control && !!project.video && project.model.state === "ready";
  enable("track", ready && !tracking && (project.prompts.length > 0 || !!mend));
  write("track", mend ? "Track on from here" : actions.continues() ? `Continue to frame ${unfinished?.end}` : "Track");
  show("track", !tracking);
  show("pause", !!tracking);
  show("stop", !!tracking || (!mend && actions.continues()));
  for (const id of ["pause", "stop"]) enable(id, control);
  at("track-progress").hidden = !tracking;
  if (tracking) {
    s.byId("track-progress", HTMLProgressElement).value = tracking.done / Math.max(1, tracking.total);
    const fps = tracking.fps ? `, ${tracking.fps.toFixed(tracking.fps < 10 ? 1 : 0)} frames/s` : "";
    const left = tracking.seconds_left == null ? "" : `, ${s.duration(tracking.seconds_left)} left`;
    write("track-text", `${tracking.reverse ? "Backward" : "Forward"}, frame ${tracking.frame}: ${tracking.done} of ${tracking.total}${fps}${left}`);
  } else {
    const frames = project.tracked.reduce((sum, [first, last]) => sum + last - first + 1, 0);
    const stopped = unfinished ? `Stopped before frame ${unfinished.next}. ` : "";
    write("track-text", `${stopped}${frames ? `${frames} frames have masks.` : ""}`);
  }
  at("mend").hidden = !mend;
  if (!mend) return;
  const back = mend.rewinding !== null;
  const progress = s.byId("mend-progress", HTMLProgressElement);
  const total = mend.last - mend.first + 1;
  const done = mend.at === null ? 0 : mend.reverse ? mend.last - mend.at + 1 : mend.at - mend.first + 1;
  progress.value = back ? (mend.rewinding ?? 0) : done / total;
  write("mend-text", back
    ? `Going back to frame ${mend.frame}…`
    : tracking
      ? `Mending: frames ${mend.first} to ${mend.last} are made anew, ${done} of ${total}.`
      : `Frame ${mend.frame} is corrected. Frames ${mend.first} to ${mend.last} have the masks from before.`);
  enable("mend-track", ready && !back && !tracking);
  enable("mend-keep", control && !back);
  enable("mend-drop", control);
}

on(["frame", "shown", "masks"], position);
on(["shown", "masks"], scores);
on(["project"], projectShown);
on(["progress"], passes);
on(["objects"], objectList);
on(["play"], playing);
window.setInterval(() => state.playing && playing(), 500);
on(["prompts"], () => show("badge-wait", numWaiting() > 0));
on(["tool"], () => {
  for (const button of at("tools").querySelectorAll("button")) button.ariaPressed = String(button.dataset.tool === state.tool);
  canvas.dataset.tool = state.tool;
  at("brush-label").hidden = state.tool !== "paint" && state.tool !== "erase";
  field("brush").value = String(state.brush);
  write("brush-size", `${state.brush} px`);
});
on(["view"], () => {
  const over = canvas.dataset.over ?? "";
  for (const item of at("objects").querySelectorAll("li")) item.classList.toggle("over", !!over && item.dataset.object === over);
  write("pointer", `${over ? `object ${over}  ·  ` : ""}${Math.round(scale() * 100)} %`);
});
on(["connection"], (reason) => show("offline", !state.connected, reason));
