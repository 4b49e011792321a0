/** The keyboard. */
import * as actions from "./actions.js";
import { showHelp } from "./panel.js";
import { goTo, togglePlay } from "./player.js";
import { redo, undo } from "./prompts.js";
import { byId, newObject, selectNext, state, toggleHidden } from "./state.js";
import { cancel, clearPrompts, resizeBrush, setTool } from "./tools.js";
import { canvas, fit, zoomBy } from "./view.js";

const step = (/** @type {number} */ by) => () => goTo(state.frame + by);

/** Keys, what they are called in the help, what they do. @type {[string[], string, string, () => unknown][]} */
const KEYS = [
  [["d", "ArrowLeft"], "D, ←", "one frame back", step(-1)],
  [["f", "ArrowRight"], "F, →", "one frame on", step(1)],
  [["c"], "C", "ten frames back", step(-10)],
  [["v"], "V", "ten frames on", step(10)],
  [["Home"], "Home", "first frame", () => goTo(0)],
  [["End"], "End", "last frame", () => goTo(Infinity)],
  [[" "], "Space", "play, pause", togglePlay],
  [["n"], "N", "new object", () => state.project?.video && newObject()],
  [["Tab"], "Tab", "next object (in the picture)", selectNext],
  [["h"], "H", "hide or show the object", () => toggleHidden(state.selected)],
  [["e"], "E", "previous prompt", () => actions.jumpToPrompt(-1)],
  [["r"], "R", "next prompt", () => actions.jumpToPrompt(1)],
  [["Ctrl+z"], "Ctrl+Z", "undo", () => undo(goTo)],
  [["Ctrl+Shift+z", "Ctrl+y"], "Ctrl+Shift+Z", "redo", () => redo(goTo)],
  [["Delete", "Backspace"], "Delete", "take the object’s prompts from this frame", clearPrompts],
  [["b"], "B", "box", () => setTool("box")],
  [["2"], "2", "paint", () => setTool("paint")],
  [["1"], "1", "erase", () => setTool("erase")],
  [["["], "[", "smaller brush", () => resizeBrush(1 / 1.25)],
  [["]"], "]", "larger brush", () => resizeBrush(1.25)],
  [["t"], "T", "track, continue, track on from here", actions.track],
  [["Escape"], "Esc", "stop tracking; leave the tool; drop the correction", escape],
  [["."], ".", "next flagged moment", () => actions.jumpToFlag(1)],
  [[","], ",", "previous flagged moment", () => actions.jumpToFlag(-1)],
  [["0"], "0", "the whole frame", fit],
  [["+", "="], "+", "zoom in", () => zoomBy(1.5)],
  [["-"], "−", "zoom out", () => zoomBy(1 / 1.5)],
  [["F6"], "F6", "between the picture and the controls", switchFocus],
  [["F1", "?"], "F1", "this help", showHelp],
];
const POINTER = [
  ["Click", "on the object; on a point: take it away"], ["Right click, Alt-click", "not on the object"],
  ["Drag", "a box around the object"], ["Ctrl-click", "choose the object under the pointer"],
  ["Wheel", "zoom at the pointer"], ["Middle button", "pan"],
  ["Timeline", "click jumps, wheel zooms, drag pans"],
];
const AGAIN = new Set(["d", "f", "c", "v", "ArrowLeft", "ArrowRight", "[", "]", "+", "=", "-", "Tab", "e", "r"]);

function escape() {
  const { project } = state;
  if (cancel()) return;
  if (project?.tracking && project.control) return actions.pause();
  if (state.tool !== "point") return setTool("point");
  if (project?.correction && project.control) return actions.dropCorrection();
}
function switchFocus() {
  if (document.activeElement === canvas || document.activeElement === document.body) byId("new", HTMLElement).focus();
  else canvas.focus();
}

/** @type {Map<string, () => unknown>} */
const actionOf = new Map(KEYS.flatMap(([keys, , , action]) => keys.map((key) => [key, action])));
byId("help-keys", HTMLElement).append(...[...KEYS.map(([, name, does]) => [name, does]), ...POINTER].map(([name, does]) => {
  const row = document.createElement("div");
  row.append(Object.assign(document.createElement("kbd"), { textContent: name }), does);
  return row;
}));

document.addEventListener("keydown", (event) => {
  const { target } = event;
  if (document.querySelector("dialog[open]")) return; // Esc and Enter are the dialog's
  const typing = target instanceof HTMLSelectElement || target instanceof HTMLInputElement;
  if (typing && event.key === "Escape") return canvas.focus();
  if (typing && !/^F\d/.test(event.key)) return;
  // With the focus on a control these are the browser's, so that the keyboard alone reaches all.
  if (target !== document.body && target !== canvas && ["Tab", "Enter", " "].includes(event.key)) return;
  if (event.key === "Tab" && event.shiftKey) return;
  const command = event.ctrlKey || event.metaKey;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const action = actionOf.get(command ? `Ctrl+${event.shiftKey ? "Shift+" : ""}${key}` : key);
  if (!action || (event.altKey && !command)) return;
  event.preventDefault();
  if (!event.repeat || AGAIN.has(key)) action();
});
