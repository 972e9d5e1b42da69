/** Draws the graph. While it moves and there are many nodes they are squares, which are quicker than round ones. */

import { colour } from "../page/theme.js";

const MANY = 1500; // nodes that are squares while something moves
const GLOW_MS = 4000; // how long a node that came in is shown as new
const LABELS = 40;

/**
 * @typedef {object} Scene
 * @property {Float32Array} places x and y of each node
 * @property {{ x: number, y: number, scale: number }} view what is in the middle, and pixels a unit
 * @property {number} width in pixels of the page; asking the canvas would lay the page out anew
 * @property {number} height
 * @property {number} selected place of a node, −1 for none
 * @property {number} hovered
 */

/** How large a node is drawn, in pixels. @param {import("./store.js").GraphStore} store */
export function radiusOf(store, scale, place) {
  const near = store.near[place]?.length ?? 0;
  return Math.max(1.5, Math.min(12, (3 + Math.sqrt(near)) * Math.min(1.2, Math.max(0.35, scale))));
}

export class Painter {
  #palette = {};
  /** @type {Scene} */ #scene;

  /** @param {HTMLCanvasElement} canvas @param {import("./store.js").GraphStore} store */
  constructor(canvas, store) {
    this.canvas = canvas;
    this.store = store;
    this.paint = canvas.getContext("2d", { alpha: false });
  }

  /** The theme is another one. */
  recolour() {
    this.#palette = {};
  }

  /**
   * All of it.
   * @param {Scene} scene @param {boolean} moving whether the next frame will be another one
   * @param {number} share of the edges that a moving frame has
   * @returns {boolean} whether some node is shown as new
   */
  paintAll(scene, moving, share) {
    this.#scene = scene;
    const { paint, store } = this;
    const { width, height } = scene;
    const ratio = this.canvas.width / width;
    const colours = this.#colours();
    const drawn = Math.min(store.nodes.length, scene.places.length / 2);
    const screen = this.#project(drawn);
    paint.setTransform(ratio, 0, 0, ratio, 0, 0);
    paint.fillStyle = colours.ground;
    paint.fillRect(0, 0, width, height);
    this.#edges(screen, drawn, moving ? Math.max(1, Math.round(1 / share)) : 1, colours);
    const glowing = this.#nodes(screen, drawn, moving, Date.now(), colours);
    this.#labels(screen, drawn, moving, colours);
    return glowing;
  }

  #project(drawn) {
    const { x, y, scale } = this.#scene.view;
    const [dx, dy] = [this.#scene.width / 2 - x * scale, this.#scene.height / 2 - y * scale];
    const screen = new Float32Array(2 * drawn);
    for (let i = 0; i < screen.length; i += 2) {
      screen[i] = this.#scene.places[i] * scale + dx;
      screen[i + 1] = this.#scene.places[i + 1] * scale + dy;
    }
    return screen;
  }

  /** @param {number} stride 1: every edge is drawn, 2: every second one, and so on */
  #edges(screen, drawn, stride, colours) {
    const { paint, store } = this;
    const { ends } = store;
    const total = ends.length / 2;
    const { width, height } = this.#scene;
    paint.lineWidth = 1;
    paint.strokeStyle = total > 4000 ? colours.faint : colours.edge;
    paint.beginPath();
    for (let i = 0, since = 0; i < total; i += stride) {
      const [a, b] = [2 * ends[2 * i], 2 * ends[2 * i + 1]];
      if (a >= 2 * drawn || b >= 2 * drawn) continue;
      const [ax, ay, bx, by] = [screen[a], screen[a + 1], screen[b], screen[b + 1]];
      if ((ax < 0 && bx < 0) || (ay < 0 && by < 0) || (ax > width && bx > width) || (ay > height && by > height)) continue;
      paint.moveTo(ax, ay);
      paint.lineTo(bx, by);
      if (++since % 1000 === 0) { // one path of all would be slower to fill in
        paint.stroke();
        paint.beginPath();
      }
    }
    paint.stroke();
    const centre = this.#scene.selected >= 0 ? this.#scene.selected : this.#scene.hovered;
    if (centre < 0 || centre >= drawn) return;
    paint.strokeStyle = colours.accent;
    paint.lineWidth = 1.5;
    paint.beginPath();
    for (const other of store.near[centre]) {
      if (other >= drawn) continue;
      paint.moveTo(screen[2 * centre], screen[2 * centre + 1]);
      paint.lineTo(screen[2 * other], screen[2 * other + 1]);
    }
    paint.stroke();
  }

  #nodes(screen, drawn, moving, now, colours) {
    const { paint, store } = this;
    const marked = new Set(this.#scene.selected >= 0 ? store.near[this.#scene.selected] : []);
    const groups = { unread: [], read: [], near: [], fresh: [] };
    for (let i = 0; i < drawn; i++) {
      const [px, py] = [screen[2 * i], screen[2 * i + 1]];
      if (px < -12 || py < -12 || px > this.#scene.width + 12 || py > this.#scene.height + 12) continue;
      const node = store.nodes[i];
      groups[node.born && now - node.born < GLOW_MS ? "fresh" : marked.has(i) ? "near" : node.read ? "read" : "unread"].push(i);
    }
    const square = this.#scene.view.scale < 0.5 || (moving && drawn > MANY); // nobody sees the corners, and it is quicker
    for (const [name, members] of Object.entries(groups)) {
      if (!members.length) continue;
      paint.fillStyle = { unread: colours.edge, read: colours.node, near: colours.accent, fresh: colours.wait }[name];
      if (!square) paint.beginPath();
      for (const i of members) {
        const radius = radiusOf(store, this.#scene.view.scale, i) + (name === "fresh" ? 1.5 : 0);
        const [px, py] = [screen[2 * i], screen[2 * i + 1]];
        if (square) paint.fillRect(px - radius, py - radius, 2 * radius, 2 * radius);
        else {
          paint.moveTo(px + radius, py);
          paint.arc(px, py, radius, 0, 2 * Math.PI);
        }
      }
      if (!square) paint.fill();
    }
    for (const [place, stroke] of [[this.#scene.hovered, colours.accent], [this.#scene.selected, colours.text]]) {
      if (place < 0 || place >= drawn) continue;
      paint.strokeStyle = stroke;
      paint.lineWidth = 2.5;
      paint.beginPath();
      paint.arc(screen[2 * place], screen[2 * place + 1], radiusOf(store, this.#scene.view.scale, place) + 3, 0, 2 * Math.PI);
      paint.stroke();
    }
    return groups.fresh.length > 0;
  }

  /** Titles of what is looked at and of the best linked nodes, as far as they do not cover each other. */
  #labels(screen, drawn, moving, colours) {
    const { paint, store } = this;
    const first = [this.#scene.selected, this.#scene.hovered, ...(this.#scene.selected >= 0 ? store.near[this.#scene.selected] : [])];
    const wanted = first.filter((place) => place >= 0 && place < drawn);
    if (!moving || drawn < 600) wanted.push(...this.#best(screen, drawn));
    paint.font = "12px system-ui, sans-serif";
    paint.textAlign = "center";
    paint.lineJoin = "round";
    const taken = [];
    for (const place of new Set(wanted)) {
      if (taken.length >= LABELS) break;
      const title = store.nodes[place].title;
      const text = title.length > 28 ? `${title.slice(0, 27)}…` : title;
      const half = paint.measureText(text).width / 2 + 3;
      const [nx, ny] = [screen[2 * place], screen[2 * place + 1]];
      if (nx < 0 || ny < 0 || nx > this.#scene.width || ny > this.#scene.height) continue;
      const px = Math.max(half, Math.min(this.#scene.width - half, nx)); // none is cut off at an edge
      const py = Math.max(14, ny - radiusOf(store, this.#scene.view.scale, place) - 6);
      if (taken.some(([x, y, w]) => Math.abs(x - px) < half + w && Math.abs(y - py) < 15)) continue;
      taken.push([px, py, half]);
      paint.lineWidth = 4;
      paint.strokeStyle = colours.ground;
      paint.strokeText(text, px, py);
      paint.fillStyle = colours.text;
      paint.fillText(text, px, py);
    }
  }

  #best(screen, drawn) {
    const seen = [];
    for (let i = 0; i < drawn; i++) {
      const [px, py] = [screen[2 * i], screen[2 * i + 1]];
      if (px > 0 && py > 0 && px < this.#scene.width && py < this.#scene.height) seen.push(i);
    }
    return seen.sort((one, other) => this.store.near[other].length - this.store.near[one].length).slice(0, 2 * LABELS);
  }

  #colours() {
    if (!this.#palette.ground) {
      const names = { ground: "--raised", text: "--text", accent: "--accent", node: "--node", edge: "--edge", faint: "--edge-faint", wait: "--wait" };
      this.#palette = Object.fromEntries(Object.entries(names).map(([name, property]) => [name, colour(property)]));
    }
    return this.#palette;
  }
}
