/** Prompts: what the user has put on each frame; sent, undone and done again. */

import { post } from "./api.js";
import { put, putPainted } from "./masks.js";
import { emit, on, say, select, state } from "./state.js";

/** @typedef {import("./types.js").ObjectId} ObjectId */
/** @typedef {import("./types.js").Edit} Edit */
/** @typedef {{object: ObjectId, frame: number, before: Edit[], after: Edit[]}} Step */

/** @type {Map<string, import("./types.js").Prompt>} */
let known = new Map();
/** Not yet answered; the newest of each object and frame. @type {Map<string, import("./types.js").Prompt>} */
const waiting = new Map();
/** @type {number[]} */
let frames = [];
/** @type {Step[]} */
const done = [];
/** @type {Step[]} */
const undone = [];
let sending = false;

/** @param {ObjectId} object @param {number} frame */
const key = (object, frame) => `${frame} ${typeof object} ${object}`;

function changed() {
  const all = new Set();
  for (const { frame } of known.values()) all.add(frame);
  for (const { frame, edits } of waiting.values()) if (edits.length) all.add(frame);
  frames = [...all].sort((a, b) => a - b);
  emit("prompts");
}

on(["project"], () => {
  known = new Map((state.project?.prompts ?? []).map((one) => [key(one.object, one.frame), one]));
  changed();
});

/** @param {ObjectId} object @param {number} frame @returns {Edit[]} */
export function editsOf(object, frame) {
  const at = key(object, frame);
  return (waiting.get(at) ?? known.get(at))?.edits ?? [];
}

/** Frames with prompts of any object, ascending. */
export const promptFrames = () => frames;

export const allPrompts = () => [...known.values()];

/** Prompts that the model has not answered yet. */
export const numWaiting = () => waiting.size;

/**
 * Make these all prompts of an object on a frame.
 * @param {ObjectId} object @param {number} frame @param {Edit[]} edits
 */
export function setEdits(object, frame, edits) {
  if (!mayEdit()) return;
  done.push({ object, frame, before: editsOf(object, frame), after: edits });
  undone.length = 0;
  send(object, frame, edits);
}

function mayEdit() {
  if (state.project?.control) return true;
  say("warning", "This tab watches. Take control first.");
  return false;
}

/** @param {ObjectId} object @param {number} frame @param {Edit[]} edits */
function send(object, frame, edits) {
  const at = key(object, frame);
  waiting.delete(at);
  waiting.set(at, { object, frame, edits });
  const mask = edits.length === 1 ? edits[0] : null;
  if (mask?.kind === "mask") putPainted(frame, object, mask.counts);
  changed();
  if (!sending) sendAll();
}

/** One request at a time: while one is answered, what comes meanwhile is sent as its last state. */
async function sendAll() {
  sending = true;
  for (let next = first(); next; next = first()) {
    const [at, prompt] = next;
    const { object, frame, edits } = prompt;
    try {
      const body = edits.map((edit) =>
        edit.kind === "mask" ? { kind: edit.kind, counts: edit.counts } : edit,
      );
      const answer = await post("api/prompts", { object, frame, edits: body });
      if (edits.length) known.set(at, prompt);
      else known.delete(at);
      if (waiting.get(at) === prompt) {
        waiting.delete(at);
        put(answer);
      }
    } catch (error) {
      if (waiting.get(at) === prompt) waiting.delete(at);
      for (const steps of [done, undone]) {
        const last = steps.findIndex((step) => step.after === edits || step.before === edits);
        if (last >= 0) steps.splice(last, 1);
      }
      const reason = error instanceof Error ? error.message : String(error);
      say("error", `The prompt was not taken: ${reason}`);
      emit("masks", -1); // what was painted ahead has to go
    }
    changed();
  }
  sending = false;
}

const first = () => waiting.entries().next().value;

/** @param {(frame: number) => void} goTo */
export function undo(goTo) {
  move(done, undone, (step) => step.before, goTo);
}

/** @param {(frame: number) => void} goTo */
export function redo(goTo) {
  move(undone, done, (step) => step.after, goTo);
}

/**
 * @param {Step[]} from @param {Step[]} to @param {(step: Step) => Edit[]} edits
 * @param {(frame: number) => void} goTo
 */
function move(from, to, edits, goTo) {
  if (!from.length) return say("info", from === done ? "Nothing to undo." : "Nothing to redo.");
  if (!mayEdit()) return;
  const step = /** @type {Step} */ (from.pop());
  to.push(step);
  select(step.object);
  goTo(step.frame);
  send(step.object, step.frame, edits(step));
}

/** An object is gone: so are its steps. @param {ObjectId} object */
export function forgetSteps(object) {
  for (const steps of [done, undone]) {
    for (let i = steps.length - 1; i >= 0; i--) if (steps[i].object === object) steps.splice(i, 1);
  }
}
