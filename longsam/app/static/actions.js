/** What buttons and keys do alike. */
import { goTo } from "./player.js";
import { forgetSteps, promptFrames } from "./prompts.js";
import { byId, command, emit, objects, present, say, select, state } from "./state.js";
/** @typedef {import("./types.js").ObjectId} ObjectId */
const dialog = byId("ask", HTMLDialogElement);
const input = byId("ask-input", HTMLInputElement);

/** Ask the user; null where the answer is no. @param {string} question @param {string} yes On the button.
 * @param {string | null} [text] Where a text is asked for: what is in the field at first.
 * @returns {Promise<string | null>} The text, or "yes". */
export function ask(question, yes, text = null) {
  byId("ask-text", HTMLElement).textContent = question;
  byId("ask-yes", HTMLElement).textContent = yes;
  input.hidden = text === null;
  input.value = text ?? "yes";
  dialog.returnValue = "no";
  dialog.showModal();
  if (text !== null) input.select();
  return new Promise((resolve) => {
    dialog.onclose = () => resolve((dialog.returnValue === "yes" && input.value.trim()) || null);
  });
}

export async function remove(/** @type {ObjectId} */ id) {
  const fresh = state.fresh.some((thing) => thing.id === id);
  if (!fresh && !(await ask(`Remove object ${id}, its prompts and its masks?`, "Remove"))) return;
  if (state.selected === id) select(present().find((thing) => thing.id !== id)?.id ?? null);
  if (!fresh && !(await command("object", { remove: id }))) return;
  state.fresh = state.fresh.filter((thing) => thing.id !== id);
  forgetSteps((step) => step.object === id);
  emit("objects");
}

export async function rename(/** @type {ObjectId} */ id) {
  const name = await ask(`Name of object ${id}`, "Rename", String(id));
  if (name === null || name === String(id)) return;
  const to = /^\d{1,9}$/.test(name) ? Number(name) : name;
  if (objects().some((thing) => thing.id === to)) return say("error", `There is an object ${to} already.`);
  const fresh = state.fresh.find((thing) => thing.id === id);
  if (fresh) fresh.id = to;
  else if (!(await command("object", { rename: id, to }))) return;
  state.fresh = state.fresh.filter((thing) => thing.id !== id);
  forgetSteps((step) => step.object === id);
  select(to);
}

/** The whole number in a field, or null. @param {string} text */
export const frameOf = (text) => (/^\s*\d+\s*$/.test(text) ? Number(text) : null);
/** Whether Track continues the pass that was paused. */
export const continues = () => !!state.project?.unfinished && !state.setAside;

/** Continue a correction or a paused pass, or start the pass that is set up in the panel. */
export function track() {
  const { project } = state;
  if (!project?.video || project.tracking) return;
  if (project.correction || continues()) return command("track", { resume: true });
  const until = byId("until", HTMLInputElement).value;
  const end = frameOf(until);
  if (until.trim() && end === null) return say("error", `"${until}" is no frame number. Leave it empty for the end.`);
  const start = byId("from", HTMLSelectElement).value === "here" ? state.frame : null;
  return command("track", { direction: byId("direction", HTMLSelectElement).value, start, end });
}
export const pause = () => command("stop", {});
/** Pause, and let Track begin a new pass. */
export async function stop() {
  if (state.project?.tracking) await pause();
  state.setAside = true;
  emit("progress", {});
}
export async function dropCorrection() {
  const yes = await ask("Drop the correction and keep the masks from before it?", "Keep the old masks");
  if (yes && state.project?.correction) command("drop", {});
}

/** @param {number[]} frames Ascending. @param {1 | -1} step @param {string} what */
function jump(frames, step, what) {
  const at = state.frame;
  const next = step > 0 ? frames.find((one) => one > at) : frames.findLast((one) => one < at);
  if (next === undefined) say("info", `No ${what} ${step > 0 ? "after" : "before"} this frame.`);
  else goTo(next);
  return next;
}
export const jumpToPrompt = (/** @type {1 | -1} */ step) => jump(promptFrames(), step, "prompt");

export function jumpToFlag(/** @type {1 | -1} */ step) {
  const { spans } = state.project ?? {};
  if (!spans) return say("info", "Press “Find what looks wrong” first.");
  const next = jump(spans.map(({ first }) => first).sort((a, b) => a - b), step, "flagged moment");
  const span = spans.find(({ first }) => first === next);
  if (!span) return;
  if (objects().some(({ id }) => id === span.object)) select(span.object);
  say("info", `Object ${span.object}, frames ${span.first} to ${span.last}: ${span.reasons.join(", ")}`);
}
