/**
 * What the server sends and takes (and nothing else: this file holds types only).
 * @typedef {number | string} ObjectId
 * @typedef {{kind: "point", x: number, y: number, label: 0 | 1}} PointEdit  pixels of the video
 * @typedef {[number, number, number, number]} Box  x0, y0, x1, y1
 * @typedef {{kind: "box", box: Box}} BoxEdit
 * @typedef {{kind: "mask", counts: string, file?: string}} MaskEdit  COCO's compressed RLE
 * @typedef {PointEdit | BoxEdit | MaskEdit} Edit
 * @typedef {{object: ObjectId, frame: number, edits: Edit[]}} Prompt
 * @typedef {{id: ObjectId, color: number, removed?: boolean, tracked?: boolean}} Thing
 * @typedef {{id: ObjectId, counts: string, area: number, score: number | null}} MaskAnswer
 * @typedef {{frame: number, size: [number, number], kind: "tracked" | "prompted" | "before" | "none",
 *   objects: MaskAnswer[]}} Answer
 * @typedef {{name: string, num_frames: number, width: number, height: number, rate: number | null}} Video
 * @typedef {{frame: number, start: number, end: number, reverse: boolean, done: number, total: number,
 *   fps: number | null, seconds_left: number | null}} Tracking
 * @typedef {{frame: number, first: number, last: number, reverse: boolean, at: number | null,
 *   rewinding: number | null}} Correction
 * @typedef {{object: ObjectId, first: number, last: number, reasons: string[]}} Span
 * @typedef {[number, number]} Range  first and last frame, inclusive
 * @typedef {{
 *   video: Video | null, videos?: string[] | null, folder: string,
 *   model: {name: string, state: "loading" | "ready" | "failed", error: string | null},
 *   control: boolean, objects: Thing[], prompts: Prompt[], tracked: Range[], tracking: Tracking | null,
 *   unfinished: {next: number, end: number, reverse: boolean} | null, correction: Correction | null,
 *   busy: string | null, spans: Span[] | null,
 *   exports: {name: string, about: string, files: string[] | null}[], log_size: number}} Project
 * @typedef {{tracking: Tracking | null, correction: Correction | null, tracked?: Range, changed?: Range}} Progress
 */
export {};
