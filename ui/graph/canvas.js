/**
 * The graph on a canvas: what is looked at, and when it is drawn. A frame that moves draws as many edges as fit its time,
 * one that rests draws everything: so it stays smooth without a graphics card, too.
 */

import { onTheme } from "../page/theme.js";
import { Painter, radiusOf } from "./painter.js";

const FRAME_MS = 1000 / 60;
const LEAST_SHARE = 0.05; // of the edges, in a frame that moves
const REST_MS = 140;
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
  #painter;

  /** @param {HTMLCanvasElement} canvas @param {import("./store.js").GraphStore} store */
  constructor(canvas, store) {
    this.canvas = canvas;
    this.store = store;
    this.#painter = new Painter(canvas, store);
    onTheme(() => {
      this.#painter.recolour();
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
      const far = Math.hypot(this.places[2 * i] - gx, this.places[2 * i + 1] - gy) * this.view.scale - radiusOf(this.store, this.view.scale, i);
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

  /** @param {number} now when the frame began */
  #paintFrame(now) {
    this.#frame = 0;
    if (!this.#width || !this.canvas.clientWidth) return;
    const gliding = this.#glide();
    if (this.#fitting) this.#fit();
    const moving = gliding || performance.now() - this.#moved < REST_MS;
    const scene = { places: this.places, view: this.view, width: this.#width, height: this.#height, selected: this.selected, hovered: this.hovered };
    const glowing = this.#painter.paintAll(scene, moving, this.#share);
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
}
