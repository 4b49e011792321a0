/** COCO's compressed run lengths: columns first, runs of 0 and 1 in turn. */
/** A mask cut to its bounding box, rows first.
 * @typedef {{x: number, y: number, width: number, height: number, mask: Uint8Array}} Cut */

/** @param {string} counts @returns {number[]} */
export function runs(counts) {
  const lengths = [];
  for (let at = 0; at < counts.length; ) {
    let value = 0;
    let bits = 0;
    for (let more = true; more && at < counts.length; bits += 5) {
      const code = counts.charCodeAt(at++) - 48;
      value |= (code & 31) << bits;
      more = (code & 32) !== 0;
      if (!more && code & 16) value |= -1 << (bits + 5);
    }
    if (lengths.length > 2) value += lengths[lengths.length - 2];
    lengths.push(Math.max(0, value));
  }
  return lengths;
}

/** @param {string} counts @param {number} height @param {number} width @returns {Cut | null} */
export function decode(counts, height, width) {
  const lengths = runs(counts);
  let [x0, y0, x1, y1] = [width, height, -1, -1];
  /** @param {(first: number, last: number) => void} visit Inclusive. */
  const each = (visit) => {
    let at = 0;
    for (let i = 0; i < lengths.length && at < height * width; i++) {
      const end = Math.min(at + lengths[i], height * width);
      if (i % 2 && end > at) visit(at, end - 1);
      at = end;
    }
  };
  each((first, last) => {
    const [left, right] = [Math.floor(first / height), Math.floor(last / height)];
    x0 = Math.min(x0, left);
    x1 = Math.max(x1, right);
    y0 = left === right ? Math.min(y0, first % height) : 0;
    y1 = left === right ? Math.max(y1, last % height) : height - 1;
  });
  if (x1 < 0) return null;
  const [w, h] = [x1 - x0 + 1, y1 - y0 + 1];
  const mask = new Uint8Array(w * h);
  each((first, last) => {
    let [x, y] = [Math.floor(first / height), first % height];
    for (let i = first; i <= last; i++) {
      mask[(y - y0) * w + x - x0] = 1;
      if (++y === height) [x, y] = [x + 1, 0];
    }
  });
  return { x: x0, y: y0, width: w, height: h, mask };
}

/** @param {Uint8Array} mask Rows first. @param {number} height @param {number} width */
export function encode(mask, height, width) {
  /** @type {number[]} */
  const lengths = [];
  let value = 0;
  let length = 0;
  for (let x = 0; x < width; x++) {
    for (let i = x; i < height * width; i += width) {
      if (mask[i] !== value) {
        lengths.push(length);
        value = mask[i];
        length = 0;
      }
      length++;
    }
  }
  lengths.push(length);
  let counts = "";
  lengths.forEach((own, i) => {
    let rest = i > 2 ? own - lengths[i - 2] : own;
    for (let more = true; more; ) {
      const code = rest & 31;
      rest >>= 5;
      more = code & 16 ? rest !== -1 : rest !== 0;
      counts += String.fromCharCode((more ? code | 32 : code) + 48);
    }
  });
  return counts;
}

/** @param {Cut | null} cut @param {number} x @param {number} y Pixels of the video. */
export function hit(cut, x, y) {
  if (!cut) return false;
  const [column, row] = [Math.floor(x) - cut.x, Math.floor(y) - cut.y];
  const inside = column >= 0 && row >= 0 && column < cut.width && row < cut.height;
  return inside && cut.mask[row * cut.width + column] === 1;
}

/** The picture of a mask: filled, with an outline inside of its edge.
 * @param {Cut} cut @param {readonly [number, number, number]} color
 * @param {boolean} hatched Stripes in place of a fill: masks from before a correction.
 * @param {number} thick Of the outline, in pixels of the video. */
export function paint({ x, y, width, height, mask }, [red, green, blue], hatched, thick) {
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer); // little-endian, as all that run browsers
  const rgb = red | (green << 8) | (blue << 16);
  const [edge, fill] = [(rgb | (255 << 24)) >>> 0, (rgb | (92 << 24)) >>> 0];
  const period = thick * 8;
  for (let row = 0, i = 0; row < height; row++) {
    for (let column = 0; column < width; column++, i++) {
      if (!mask[i]) continue;
      const inner =
        column >= thick && mask[i - thick] && column + thick < width && mask[i + thick] &&
        row >= thick && mask[i - thick * width] && row + thick < height && mask[i + thick * width];
      if (!inner) pixels[i] = edge;
      else if (!hatched || (x + column + y + row) % period < period * 0.4) pixels[i] = fill;
    }
  }
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d")?.putImageData(image, 0, 0);
  return canvas;
}
