/**
 * Places for the nodes: springs along edges, repulsion between all nodes by the quadtree of Barnes and Hut (Nature 324,
 * 1986), a pull to the middle, cooled as in simulated annealing. Runs in a worker, so that the page stays quick.
 *
 * Takes { ends: number[], count } with what is new, { fixed, x, y } for a node that is dragged, { clear: true };
 * gives { places: Float32Array, calm }.
 */

const SPREAD = 90; // repulsion of two nodes at distance 1, falling with the distance
const LENGTH = 55; // of an edge at rest
const THETA2 = 0.9 ** 2; // a cell is one body when its size over its distance is less than 0.9
const PULL = 0.03;
const FRICTION = 0.62;
const COOLING = 0.985;
const CALM = 0.02;
const GOLDEN = Math.PI * (3 - Math.sqrt(5));

let count = 0;
let x = new Float32Array(256);
let y = new Float32Array(256);
let vx = new Float32Array(256);
let vy = new Float32Array(256);
let degree = new Uint16Array(256);
let ends = [];
let heat = 0;
let timer = 0;
let fixed = -1;

self.addEventListener("message", ({ data }) => {
  if (data.clear) {
    count = 0;
    ends = [];
    degree.fill(0);
    fixed = -1;
    return;
  }
  if (data.fixed !== undefined) {
    fixed = data.fixed;
    if (fixed >= 0 && fixed < count) [x[fixed], y[fixed]] = [data.x, data.y];
    heat = Math.max(heat, fixed >= 0 ? 0.3 : 0.1);
  }
  if (data.ends) {
    grow(data.count, data.ends);
    heat = Math.max(heat, count - data.known > 50 || data.known === 0 ? 1 : 0.35);
  }
  timer ||= setTimeout(step);
});

/** New nodes begin beside a neighbour that has a place, else on a spiral. */
function grow(to, added) {
  if (to > x.length) {
    const size = Math.max(to, 2 * x.length);
    [x, y, vx, vy] = [x, y, vx, vy].map((old) => enlarged(old, new Float32Array(size)));
    degree = enlarged(degree, new Uint16Array(size));
  }
  const beside = new Map();
  for (let i = 0; i < added.length; i += 2) {
    const [a, b] = [added[i], added[i + 1]];
    degree[a]++;
    degree[b]++;
    if (a >= count && b < a) beside.set(a, b);
    if (b >= count && a < b) beside.set(b, a);
  }
  for (let i = count; i < to; i++) {
    const near = beside.get(i);
    const radius = near === undefined ? 14 * Math.sqrt(i + 1) : 18;
    x[i] = (near === undefined ? 0 : x[near]) + radius * Math.cos(i * GOLDEN);
    y[i] = (near === undefined ? 0 : y[near]) + radius * Math.sin(i * GOLDEN);
    vx[i] = vy[i] = 0;
  }
  for (const end of added) ends.push(end);
  count = to;
}

function enlarged(old, fresh) {
  fresh.set(old);
  return fresh;
}

function step() {
  timer = 0;
  const begun = performance.now();
  do {
    repel();
    attract();
    move();
    heat *= COOLING;
  } while (heat > CALM && performance.now() - begun < 12); // several steps of a small graph a message
  const places = new Float32Array(2 * count);
  for (let i = 0; i < count; i++) {
    places[2 * i] = x[i];
    places[2 * i + 1] = y[i];
  }
  const calm = heat <= CALM;
  self.postMessage({ places, calm }, [places.buffer]);
  if (!calm && count) timer = setTimeout(step, 4);
}

// The quadtree. Cell c has four children from child[4 c], 0 for none, −1 − i for node i.
let child = new Int32Array(4096);
let mass = new Float32Array(1024);
let mx = new Float32Array(1024);
let my = new Float32Array(1024);
let cells = 0;
let stack = new Int32Array(4096);
let sizes = new Float32Array(4096);

function cell() {
  if (cells === mass.length) {
    child = enlarged(child, new Int32Array(8 * cells));
    [mass, mx, my] = [mass, mx, my].map((old) => enlarged(old, new Float32Array(2 * cells)));
  }
  child.fill(0, 4 * cells, 4 * cells + 4);
  mass[cells] = mx[cells] = my[cells] = 0;
  return cells++;
}

function repel() {
  let [low, high] = [Infinity, -Infinity];
  for (let i = 0; i < count; i++) {
    low = Math.min(low, x[i], y[i]);
    high = Math.max(high, x[i], y[i]);
  }
  const half = Math.max(1, (high - low) / 2);
  const middle = (low + high) / 2;
  cells = 0;
  cell();
  for (let i = 0; i < count; i++) insert(i, middle, middle, half);
  for (let i = 0; i < count; i++) push(i, 2 * half);
}

function insert(i, cx, cy, half) {
  let at = 0;
  for (let depth = 0; ; depth++) {
    const total = mass[at] + 1;
    mx[at] += (x[i] - mx[at]) / total;
    my[at] += (y[i] - my[at]) / total;
    mass[at] = total;
    half /= 2;
    const quarter = (x[i] > cx ? 1 : 0) + (y[i] > cy ? 2 : 0);
    cx += x[i] > cx ? half : -half;
    cy += y[i] > cy ? half : -half;
    const slot = 4 * at + quarter;
    const there = child[slot];
    if (there === 0) {
      child[slot] = -1 - i;
      return;
    }
    if (there > 0) {
      at = there;
      continue;
    }
    if (depth > 24) return; // two nodes in one place: the one that is there stands for both
    const fresh = cell();
    child[4 * at + quarter] = fresh;
    const other = -1 - there;
    mass[fresh] = 1;
    [mx[fresh], my[fresh]] = [x[other], y[other]];
    child[4 * fresh + (x[other] > cx ? 1 : 0) + (y[other] > cy ? 2 : 0)] = there;
    at = fresh;
  }
}

function push(i, whole) {
  let top = 0;
  stack[0] = 0;
  sizes[0] = whole;
  let [fx, fy] = [0, 0];
  while (top >= 0) {
    const at = stack[top];
    const size = sizes[top--];
    for (let q = 0; q < 4; q++) {
      const there = child[4 * at + q];
      if (there === 0) continue;
      const leaf = there < 0;
      const node = -1 - there;
      if (leaf && node === i) continue;
      let dx = x[i] - (leaf ? x[node] : mx[there]);
      let dy = y[i] - (leaf ? y[node] : my[there]);
      let far = dx * dx + dy * dy;
      if (leaf || (size * size) / 4 < THETA2 * far) {
        if (far < 1) {
          dx = Math.cos(i);
          dy = Math.sin(i);
          far = 1;
        }
        const force = (SPREAD * (leaf ? 1 : mass[there])) / far;
        fx += dx * force;
        fy += dy * force;
        continue;
      }
      top++;
      stack[top] = there;
      sizes[top] = size / 2;
    }
  }
  vx[i] += fx * heat;
  vy[i] += fy * heat;
}

function attract() {
  for (let i = 0; i < ends.length; i += 2) {
    const [a, b] = [ends[i], ends[i + 1]];
    const dx = x[b] + vx[b] - x[a] - vx[a];
    const dy = y[b] + vy[b] - y[a] - vy[a];
    const far = Math.sqrt(dx * dx + dy * dy) || 1;
    const force = (((far - LENGTH) / far) * heat) / Math.min(degree[a], degree[b]);
    const share = degree[a] / (degree[a] + degree[b]);
    vx[b] -= dx * force * share;
    vy[b] -= dy * force * share;
    vx[a] += dx * force * (1 - share);
    vy[a] += dy * force * (1 - share);
  }
}

function move() {
  for (let i = 0; i < count; i++) {
    vx[i] = FRICTION * (vx[i] - x[i] * PULL * heat);
    vy[i] = FRICTION * (vy[i] - y[i] * PULL * heat);
    if (i === fixed) continue;
    x[i] += vx[i];
    y[i] += vy[i];
  }
}
