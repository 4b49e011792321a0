/** What buttons and keys do alike. */

import { goTo, shown } from "./player.js";
import { forgetSteps, promptFrames } from "./prompts.js";
import { byId, command, emit, objects, say, select, state } from "./state.js";

/** @typedef {import("./types.js").ObjectId} ObjectId */

const dialog = byId("ask", HTMLDialogElement);
const input = byId("ask-input", HTMLInputElement);

/** Ask the user; null where the answer is no.
 * @param {string} question @param {string} yes What the button says.
 * @param {string | null} [text] Where a text is asked for: what is in the field at first.
 * @returns {Promise<string | null>} The text, or "yes". */
export function ask(question, yes, text = null) {
  byId("ask-text", HTMLElement).textContent = question;
  byId("ask-yes", HTMLElement).textContent = yes;
  input.hidden = text === null;
  input.value = text ?? "";
  dialog.returnValue = "no";
  dialog.showModal();
  if (text !== null) input.select();
  return new Promise((resolve) => {
    const answer = () => (text === null ? "yes" : input.value.trim() || null);
    dialog.onclose = () => resolve(dialog.returnValue === "yes" ? answer() : null);
  });
}

/** @param {ObjectId} id */
export async function remove(id) {
  if (state.fresh.some((thing) => thing.id === id)) {
    state.fresh = state.fresh.filter((thing) => thing.id !== id);
  } else if (await ask(`Remove object ${id}, its prompts and its masks?`, "Remove")) {
    if (!(await command("object", { remove: id }))) return;
    forgetSteps((step) => step.object === id);
  }
  if (state.selected === id) select(objects().find((thing) => thing.id !== id)?.id ?? null);
  else select(state.selected);
}

/** @param {ObjectId} id */
export async function rename(id) {
  const name = await ask(`Name of object ${id}`, "Rename", String(id));
  if (name === null || name === String(id)) return;
  const to = /^\d{1,9}$/.test(name) ? Number(name) : name;
  if (objects().some((thing) => thing.id === to)) return say("error", `There is an object ${to} already.`);
  const fresh = state.fresh.find((thing) => thing.id === id);
  if (fresh) fresh.id = to;
  else if (!(await command("object", { rename: id, to }))) return;
  forgetSteps((step) => step.object === id);
  select(to);
}

/** A whole number of a field, or null where there is none. @param {string} text */
export function frameOf(text) {
  return /^\s*\d+\s*$/.test(text) ? Number(text) : null;
}

/** Start the pass that is set up in the panel, go on with a stopped one, or with a mend. */
export function track() {
  const { project } = state;
  if (!project?.video || project.tracking) return;
  if (project.mend || continues()) return command("track", { resume: true });
  const until = byId("until", HTMLInputElement);
  const end = frameOf(until.value);
  if (until.value.trim() && end === null) {
    until.focus();
    return say("error", `"${until.value}" is no frame number. Leave it empty for the end of the video.`);
  }
  return command("track", {
    direction: byId("direction", HTMLSelectElement).value,
    start: byId("from", HTMLSelectElement).value === "here" ? state.frame : null,
    end,
  });
}

export const pause = () => command("stop", {});

/** Whether Track goes on with the pass that was paused. */
export const continues = () => !!state.project?.unfinished && !state.setAside;

export async function stop() {
  if (state.project?.tracking) await pause();
  state.setAside = true;
  emit("progress", {});
}

export async function dropMend() {
  const yes = await ask("Drop the mend and keep the masks from before it?", "Keep the old masks");
  if (yes && state.project?.mend) command("drop", {});
}

/** @param {number[]} frames Ascending. @param {1 | -1} step @param {string} none */
function jump(frames, step, none) {
  const at = state.playing ? shown.frame : state.frame;
  const next = step > 0 ? frames.find((one) => one > at) : frames.findLast((one) => one < at);
  if (next === undefined) say("info", none);
  else goTo(next);
}

/** @param {1 | -1} step */
export function jumpToPrompt(step) {
  jump(promptFrames(), step, `No prompt ${step > 0 ? "after" : "before"} this frame.`);
}

/** @param {1 | -1} step */
export function jumpToFlag(step) {
  const spans = state.project?.spans;
  if (!spans) return say("info", "Press “Find what looks wrong” first.");
  const at = state.frame;
  jump(spans.map(({ first }) => first).sort((a, b) => a - b), step,
    `No flagged moment ${step > 0 ? "after" : "before"} this frame.`);
  const span = spans.find(({ first }) => first === state.frame);
  if (state.frame === at || !span) return;
  if (objects().some(({ id }) => id === span.object)) select(span.object);
  say("info", `Object ${span.object}, frames ${span.first} to ${span.last}: ${span.reasons.join(", ")}`);
}
