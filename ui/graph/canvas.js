/**
 * The graph on a canvas. A frame that moves draws as many edges as fit its time and, where there are many nodes, squares
 * for them; one that rests draws everything: so it stays smooth without a graphics card, too.
 */

import { colour, onTheme } from "../page/theme.js";

const FRAME_MS = 1000 / 60;
const LEAST_SHARE = 0.05; // of the edges, in a frame that moves
const MANY = 1500; // nodes that are squares while something moves
const REST_MS = 140;
const GLOW_MS = 4000; // how long a node that came in is shown as new
const LABELS = 40;
const [MIN_SCALE, MAX_SCALE] = [0.02, 8];

export class GraphCanvas {
  /** What is in the middle, and pixels a unit. */
  view = { x: 0, y: 0, scale: 1 };
  selected = -1;
  hovered = -1;
  /** @type {Float32Array} */ places = new Float32Array(0);
  /** @type {Float32Array} */ #targets = new Float32Array(0);
  #frame = 0;
  #rest = 0;
  #moved = 0;
  /** Of the edges that a frame draws while something moves; begins low, for nobody knows the machine yet. */
  #share = 0.2;
  #width = 0; // asking the element for them would lay the page out anew, thousands of times a frame
  #height = 0;
  #fitting = true;
  #awaited = -1;
  #palette = {};

  /** @param {HTMLCanvasElement} canvas @param {import("./store.js").GraphStore} store */
  constructor(canvas, store) {
    this.canvas = canvas;
    this.store = store;
    this.paint = canvas.getContext("2d", { alpha: false });
    onTheme(() => {
      this.#palette = {};
      this.draw();
    });
    new ResizeObserver(() => this.#resize()).observe(canvas);
  }

  /** Places from the layout; the picture glides there. @param {Float32Array} targets */
  move(targets) {
    const known = this.places.length;
    this.#targets = targets;
    if (known !== targets.length) {
      const grown = new Float32Array(targets.length);
      grown.set(this.places.subarray(0, Math.min(known, targets.length)));
      if (targets.length > known) grown.set(targets.subarray(known), known);
      this.places = grown;
    }
    if (this.#awaited >= 0) this.centre(this.#awaited);
    this.#touch();
  }

  draw() {
    this.#frame ||= requestAnimationFrame((now) => this.#paintFrame(now));
  }

  /** Where a point of the canvas lies in the graph. */
  at(px, py) {
    const { x, y, scale } = this.view;
    return [(px - this.#width / 2) / scale + x, (py - this.#height / 2) / scale + y];
  }

  pan(dx, dy) {
    this.#fitting = false;
    this.view.x -= dx / this.view.scale;
    this.view.y -= dy / this.view.scale;
    this.#touch();
  }

  /** Larger by a factor, with a point of the canvas staying where it is. */
  zoom(factor, px = this.#width / 2, py = this.#height / 2) {
    this.#fitting = false;
    const [gx, gy] = this.at(px, py);
    this.view.scale = Math.min(MAX_SCALE, Math.max(MIN_SCALE, this.view.scale * factor));
    const [nx, ny] = this.at(px, py);
    this.view.x += gx - nx;
    this.view.y += gy - ny;
    this.#touch();
  }

  /** All of it, and from now on as it grows. */
  fit() {
    this.#fitting = true;
    this.#touch();
  }

  /** A node in the middle. @param {number} place */
  centre(place) {
    this.#awaited = 2 * place < this.places.length ? -1 : place; // the layout has not placed it yet
    if (this.#awaited >= 0) return;
    this.#fitting = false;
    this.view.x = this.places[2 * place];
    this.view.y = this.places[2 * place + 1];
    this.view.scale = Math.max(this.view.scale, 0.9);
    if (this.#width < 700) this.view.y += (0.22 * this.#height) / this.view.scale; // the card covers the lower half
    this.#touch();
  }

  /** The node at a point of the canvas, −1 for none. */
  hit(px, py, reach = 8) {
    const [gx, gy] = this.at(px, py);
    let best = -1;
    let least = Infinity;
    for (let i = 0; i < this.places.length / 2; i++) {
      const far = Math.hypot(this.places[2 * i] - gx, this.places[2 * i + 1] - gy) * this.view.scale - this.#radius(i);
      if (far < reach && far < least) [best, least] = [i, far];
    }
    return best;
  }

  #touch() {
    this.#moved = performance.now();
    this.draw();
  }

  #resize() {
    const { clientWidth, clientHeight } = this.canvas;
    if (!clientWidth) return; // hidden: it will have the size again that it had
    const ratio = Math.min(devicePixelRatio || 1, 2);
    [this.#width, this.#height] = [clientWidth, clientHeight];
    this.canvas.width = Math.max(1, Math.round(this.#width * ratio));
    this.canvas.height = Math.max(1, Math.round(this.#height * ratio));
    this.draw();
  }

  #radius(place) {
    const near = this.store.near[place]?.length ?? 0;
    return Math.max(1.5, Math.min(12, (3 + Math.sqrt(near)) * Math.min(1.2, Math.max(0.35, this.view.scale))));
  }

  /** @param {number} now when the frame began */
  #paintFrame(now) {
    this.#frame = 0;
    if (!this.#width || !this.canvas.clientWidth) return;
    const gliding = this.#glide();
    if (this.#fitting) this.#fit();
    const moving = gliding || performance.now() - this.#moved < REST_MS;
    const glowing = this.#paintAll(moving, Date.now());
    // Only the next frame tells what this one cost: the browser fills the lines in after this function has ended.
    if (moving) requestAnimationFrame((next) => this.#pace(next - now));
    clearTimeout(this.#rest);
    if (gliding) this.draw();
    else if (moving) this.#rest = setTimeout(() => this.draw(), REST_MS);
    else if (glowing) this.#rest = setTimeout(() => this.draw(), 250);
  }

  /** More edges after a frame that was in time, fewer after one that was not. */
  #pace(took) {
    const change = took < 1.5 * FRAME_MS ? 1.04 : Math.max(0.4, FRAME_MS / took);
    this.#share = Math.min(1, Math.max(LEAST_SHARE, this.#share * change));
  }

  /** A step towards the places of the layout. */
  #glide() {
    const [places, targets] = [this.places, this.#targets];
    let far = 0;
    for (let i = 0; i < places.length; i++) {
      const step = targets[i] - places[i];
      places[i] += step * 0.35;
      far = Math.max(far, Math.abs(step));
    }
    return far * this.view.scale > 0.3;
  }

  #fit() {
    let [left, right, top, bottom] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let i = 0; i < this.places.length; i += 2) {
      left = Math.min(left, this.places[i]);
      right = Math.max(right, this.places[i]);
      top = Math.min(top, this.places[i + 1]);
      bottom = Math.max(bottom, this.places[i + 1]);
    }
    if (left > right) return;
    const margin = 60;
    const scale = Math.min((this.#width - margin) / (right - left + 40), (this.#height - margin) / (bottom - top + 40));
    this.view = { x: (left + right) / 2, y: (top + bottom) / 2, scale: Math.min(2.2, Math.max(MIN_SCALE, scale)) };
  }

  #paintAll(moving, now) {
    const { paint, store } = this;
    const ratio = this.canvas.width / this.#width;
    const colours = this.#colours();
    const drawn = Math.min(store.nodes.length, this.places.length / 2);
    const screen = this.#project(drawn);
    paint.setTransform(ratio, 0, 0, ratio, 0, 0);
    paint.fillStyle = colours.ground;
    paint.fillRect(0, 0, this.#width, this.#height);
    this.#edges(screen, drawn, moving, colours);
    const glowing = this.#nodes(screen, drawn, moving, now, colours);
    this.#labels(screen, drawn, moving, colours);
    return glowing;
  }

  #project(drawn) {
    const { x, y, scale } = this.view;
    const [dx, dy] = [this.#width / 2 - x * scale, this.#height / 2 - y * scale];
    const screen = new Float32Array(2 * drawn);
    for (let i = 0; i < screen.length; i += 2) {
      screen[i] = this.places[i] * scale + dx;
      screen[i + 1] = this.places[i + 1] * scale + dy;
    }
    return screen;
  }

  #edges(screen, drawn, moving, colours) {
    const { paint, store } = this;
    const { ends } = store;
    const total = ends.length / 2;
    const stride = moving ? Math.max(1, Math.round(1 / this.#share)) : 1;
    const [width, height] = [this.#width, this.#height];
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
    const centre = this.selected >= 0 ? this.selected : this.hovered;
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
    const marked = new Set(this.selected >= 0 ? store.near[this.selected] : []);
    const groups = { unread: [], read: [], near: [], fresh: [] };
    for (let i = 0; i < drawn; i++) {
      const [px, py] = [screen[2 * i], screen[2 * i + 1]];
      if (px < -12 || py < -12 || px > this.#width + 12 || py > this.#height + 12) continue;
      const node = store.nodes[i];
      groups[node.born && now - node.born < GLOW_MS ? "fresh" : marked.has(i) ? "near" : node.read ? "read" : "unread"].push(i);
    }
    const square = this.view.scale < 0.5 || (moving && drawn > MANY); // nobody sees the corners, and it is quicker
    for (const [name, members] of Object.entries(groups)) {
      if (!members.length) continue;
      paint.fillStyle = { unread: colours.edge, read: colours.node, near: colours.accent, fresh: colours.wait }[name];
      if (!square) paint.beginPath();
      for (const i of members) {
        const radius = this.#radius(i) + (name === "fresh" ? 1.5 : 0);
        const [px, py] = [screen[2 * i], screen[2 * i + 1]];
        if (square) paint.fillRect(px - radius, py - radius, 2 * radius, 2 * radius);
        else {
          paint.moveTo(px + radius, py);
          paint.arc(px, py, radius, 0, 2 * Math.PI);
        }
      }
      if (!square) paint.fill();
    }
    for (const [place, stroke] of [[this.hovered, colours.accent], [this.selected, colours.text]]) {
      if (place < 0 || place >= drawn) continue;
      paint.strokeStyle = stroke;
      paint.lineWidth = 2.5;
      paint.beginPath();
      paint.arc(screen[2 * place], screen[2 * place + 1], this.#radius(place) + 3, 0, 2 * Math.PI);
      paint.stroke();
    }
    return groups.fresh.length > 0;
  }

  /** Titles of what is looked at and of the best linked nodes, as far as they do not cover each other. */
  #labels(screen, drawn, moving, colours) {
    const { paint, store } = this;
    const first = [this.selected, this.hovered, ...(this.selected >= 0 ? store.near[this.selected] : [])];
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
      if (nx < 0 || ny < 0 || nx > this.#width || ny > this.#height) continue;
      const px = Math.max(half, Math.min(this.#width - half, nx)); // none is cut off at an edge
      const py = Math.max(14, ny - this.#radius(place) - 6);
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
      if (px > 0 && py > 0 && px < this.#width && py < this.#height) seen.push(i);
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
