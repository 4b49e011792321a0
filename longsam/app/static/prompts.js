/** Prompts: what the user has put on each frame; sent, undone and done again. */
import { post, reasonOf } from "./api.js";
import { putAnswer, putPainted } from "./masks.js";
import { emit, on, say, select, state, watches } from "./state.js";
/** @typedef {import("./types.js").ObjectId} ObjectId @typedef {import("./types.js").Edit} Edit */
/** @typedef {import("./types.js").Prompt} Prompt */
/** @typedef {{object: ObjectId, frame: number, before: Edit[], after: Edit[]}} Step */
/** @type {Map<string, Prompt>} */
let known = new Map();
/** Not yet answered; the newest of each object and frame. @type {Map<string, Prompt>} */
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
/** @param {ObjectId} object @param {number} frame @returns {Edit[]} */
export const editsOf = (object, frame) =>
  (waiting.get(key(object, frame)) ?? known.get(key(object, frame)))?.edits ?? [];
/** Frames with prompts of any object, ascending. */
export const promptFrames = () => frames;
export const allPrompts = () => [...known.values()];
/** Prompts that the model has not answered yet. */
export const numWaiting = () => waiting.size;

function changed() {
  const all = new Map([...known, ...waiting]);
  frames = [...new Set([...all.values()].filter(({ edits }) => edits.length).map(({ frame }) => frame))];
  frames.sort((a, b) => a - b);
  emit("prompts");
}

on(["project"], () => {
  known = new Map((state.project?.prompts ?? []).map((one) => [key(one.object, one.frame), one]));
  changed();
});

/** Make these all prompts of an object on a frame.
 * @param {ObjectId} object @param {number} frame @param {Edit[]} edits */
export function setEdits(object, frame, edits) {
  if (watches()) return;
  done.push({ object, frame, before: editsOf(object, frame), after: edits });
  undone.length = 0;
  send({ object, frame, edits });
}

function send(/** @type {Prompt} */ prompt) {
  const { object, frame, edits } = prompt;
  waiting.delete(key(object, frame)); // to the end of the queue
  waiting.set(key(object, frame), prompt);
  if (edits.length === 1 && edits[0].kind === "mask") putPainted(frame, object, edits[0].counts);
  changed();
  if (!sending) sendAll();
}

/** One request at a time: while one is answered, what comes meanwhile is sent as its last state. */
async function sendAll() {
  sending = true;
  for (let prompt = first(); prompt; prompt = first()) {
    const { object, frame, edits } = prompt;
    const at = key(object, frame);
    try {
      const plain = edits.map((edit) => (edit.kind === "mask" ? { kind: "mask", counts: edit.counts } : edit));
      const answer = await post("api/prompts", { object, frame, edits: plain });
      known.set(at, prompt);
      if (waiting.get(at) === prompt) {
        waiting.delete(at);
        putAnswer(answer);
      }
    } catch (error) {
      if (waiting.get(at) === prompt) waiting.delete(at);
      forgetSteps((step) => step.after === edits || step.before === edits);
      say("error", `The prompt was not taken: ${reasonOf(error)}`);
      emit("masks", -1); // what was painted ahead has to go
    }
    changed();
  }
  sending = false;
}
/** @returns {Prompt | undefined} */
const first = () => waiting.values().next().value;
export const undo = (/** @type {(frame: number) => void} */ goTo) => move(done, undone, "before", goTo);
export const redo = (/** @type {(frame: number) => void} */ goTo) => move(undone, done, "after", goTo);

/** @param {Step[]} from @param {Step[]} to @param {"before" | "after"} side
 * @param {(frame: number) => void} goTo */
function move(from, to, side, goTo) {
  if (watches()) return;
  const step = from.pop();
  if (!step) return say("info", `Nothing to ${from === done ? "undo" : "redo"}.`);
  to.push(step);
  select(step.object);
  goTo(step.frame);
  send({ object: step.object, frame: step.frame, edits: step[side] });
}

export function forgetSteps(/** @type {(step: Step) => boolean} */ which) {
  for (const steps of [done, undone]) steps.splice(0, Infinity, ...steps.filter((step) => !which(step)));
}
