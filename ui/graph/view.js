/** The knowledge graph: what is there, and what comes in while a crawl runs. */

import { againMs, get, query } from "../net/api.js";
import { listen, told } from "../net/mux.js";
import { announce, by, button, make, say } from "../page/elements.js";
import { shortcut } from "../page/shortcuts.js";
import { rename } from "../page/views.js";
import { count, some } from "../page/wording.js";
import { GraphCanvas } from "./canvas.js";
import { showCard } from "./card.js";
import { installGestures } from "./gestures.js";
import { GraphStore } from "./store.js";

const MOST = 5_000; // nodes that are asked for at the start
const FOUND = 8;
const AGAIN_MS = 5_000;

/** @returns {import("../page/views.js").View} */
export function open() {
  return new GraphView();
}

class GraphView {
  store = new GraphStore();
  wanted = "";
  #worker = new Worker(new URL("./layout_worker.js", import.meta.url), { type: "module" });
  #known = 0;
  #sent = 0;
  #waiting = 0;
  #loading = null;
  #again = 0;
  /** What the note says when nothing is searched for. */
  #said = ["", false];

  constructor() {
    this.canvas = new GraphCanvas(by("graph-canvas"), this.store);
    this.#worker.addEventListener("message", ({ data }) => {
      if (data.places.length / 2 <= this.store.nodes.length) this.canvas.move(data.places);
      by("graph-canvas").dataset.calm = String(data.calm);
    });
    installGestures(this.canvas, {
      choose: (place) => this.choose(place),
      drag: (place, x, y) => this.#worker.postMessage({ fixed: place, x, y }),
    });
    by("graph-in").addEventListener("click", () => this.canvas.zoom(1.4));
    by("graph-out").addEventListener("click", () => this.canvas.zoom(1 / 1.4));
    by("graph-fit").addEventListener("click", () => this.canvas.fit());
    this.#search();
    listen("node.add", ({ data }) => this.#grow(() => this.store.addNode(data, Date.now())));
    listen("edge.add", ({ data }) => this.#grow(() => this.store.addEdge(data, Date.now())));
    listen("gap", () => this.load());
    for (const [key, what] of [["← ↑ → ↓", "Move about, on the picture"], ["+ −", "Zoom, on the picture"], ["0", "Show all of it, on the picture"]])
      shortcut(key, what, { view: "graph" });
  }

  show(id) {
    this.wanted = id;
    this.#loading ??= this.load();
    this.#chooseWanted();
    this.canvas.draw();
  }

  /** The graph as the server has it; what came meanwhile stays. */
  async load() {
    clearTimeout(this.#again);
    this.#say("loading …");
    try {
      await told();
      const graph = await get(`/graph${query({ format: "json", limit: MOST })}`);
      for (const node of graph.nodes) this.store.addNode(node);
      for (const edge of graph.edges) this.store.addEdge(edge);
      this.#say(graph.truncated ? `only the first ${count(MOST)} nodes are shown` : "");
      this.#changed();
      this.#chooseWanted();
      if (this.wanted) say(by("graph-note"), `there is no node «${this.wanted}» here`);
    } catch (error) {
      this.#say(error.message, true);
      const ms = againMs(error, AGAIN_MS);
      if (ms === null) this.#loading = null; // it is asked for when the view is opened again
      else this.#again = setTimeout(() => this.load(), ms);
    }
  }

  #say(words, trouble = false) {
    this.#said = [words, trouble];
    say(by("graph-note"), words, trouble);
  }

  #grow(change) {
    change();
    this.#waiting ||= setTimeout(() => {
      this.#waiting = 0;
      this.#changed();
    }, 100);
  }

  #changed() {
    const { store } = this;
    by("graph-size").textContent = `${some(store.nodes.length, "node")}, ${some(store.edges, "edge")}`;
    by("graph-empty").hidden = store.nodes.length > 0;
    by("graph-canvas").setAttribute("aria-label", `The knowledge graph: ${by("graph-size").textContent}. Search to go to a node.`);
    this.#worker.postMessage({ count: store.nodes.length, known: this.#known, ends: store.ends.slice(this.#sent) });
    this.#known = store.nodes.length;
    this.#sent = store.ends.length;
    this.canvas.draw();
  }

  #chooseWanted() {
    const place = this.store.place.get(this.wanted);
    if (place === undefined) return;
    this.wanted = "";
    this.choose(place, true);
  }

  /** @param {number} place −1 for none */
  choose(place, centred = false) {
    this.canvas.selected = place;
    if (place < 0) {
      const within = by("graph-card").contains(document.activeElement);
      by("graph-card").hidden = true;
      rename("graph");
      if (within) by("graph-search").focus();
    } else {
      rename("graph", this.store.nodes[place].id);
      const within = by("graph-card").contains(document.activeElement);
      showCard(by("graph-card"), this.store, place, (other) => this.choose(other, true));
      if (within) by("graph-card").querySelector("h2").focus();
      announce(`${this.store.nodes[place].title}, ${some(this.store.near[place].length, "neighbour")}`);
      if (centred) this.canvas.centre(place);
    }
    this.canvas.draw();
  }

  #search() {
    const box = by("graph-search");
    const list = by("graph-found");
    const find = () => {
      const found = this.store.search(box.value.trim(), FOUND);
      list.replaceChildren(...found.map((place) => make("li", {}, button(this.store.nodes[place].title, () => pick(place)))));
      list.hidden = !found.length;
      if (box.value.trim() && !found.length && this.store.nodes.length) say(by("graph-note"), "nothing found");
      else this.#say(...this.#said);
    };
    const pick = (place) => {
      list.hidden = true;
      this.choose(place, true);
      by("graph-card").querySelector("h2").focus();
    };
    box.addEventListener("input", find);
    box.addEventListener("focus", () => box.value && find());
    box.closest("form").addEventListener("submit", (event) => {
      event.preventDefault();
      list.querySelector("button")?.click();
    });
    box.closest("form").addEventListener("focusout", (event) => {
      if (!box.closest("form").contains(event.relatedTarget)) list.hidden = true;
    });
    box.closest("form").addEventListener("keydown", (event) => {
      if (event.key === "Escape") list.hidden = true;
    });
  }
}
