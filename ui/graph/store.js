/** The graph in the page: nodes and edges by number, so that drawing and laying out run over plain arrays. */

/** @typedef {{ id: string, title: string, url: string, revision: string, source: string, data: Record<string, unknown>, read: boolean, born: number }} Node */

export class GraphStore {
  /** @type {Node[]} */ nodes = [];
  /** @type {Map<string, number>} */ place = new Map();
  /** Ends of edge number i are ends[2 i] and ends[2 i + 1]. @type {number[]} */ ends = [];
  /** @type {number[][]} neighbours of each node, in either direction */ near = [];
  #edges = new Set();

  clear() {
    this.nodes = [];
    this.ends = [];
    this.near = [];
    this.place.clear();
    this.#edges.clear();
  }

  get edges() {
    return this.ends.length / 2;
  }

  /** Add or replace a node. @returns {number} */
  addNode(node, born = 0) {
    const place = this.#placeOf(node.id, born);
    const old = this.nodes[place];
    this.nodes[place] = { ...old, ...node, data: node.data ?? {}, read: true, born: old.read ? old.born : born };
    return place;
  }

  /** Add an edge; an end that was never read is a node without anything but its id. @returns {boolean} whether it is new */
  addEdge({ source, target, type = "" }, born = 0) {
    const key = `${source}\n${target}\n${type}`;
    if (this.#edges.has(key) || source === target) return false;
    this.#edges.add(key);
    const [from, to] = [this.#placeOf(source, born), this.#placeOf(target, born)];
    this.ends.push(from, to);
    if (!this.near[from].includes(to)) {
      this.near[from].push(to);
      this.near[to].push(from);
    }
    return true;
  }

  /** Nodes whose title has the words in it, those that begin with them first. @param {string} text @param {number} most */
  search(text, most) {
    const wanted = text.toLowerCase();
    if (!wanted) return [];
    const found = [];
    for (const [place, node] of this.nodes.entries()) {
      const at = node.title.toLowerCase().indexOf(wanted);
      if (at >= 0) found.push({ place, order: (at ? 1e6 : 0) - this.near[place].length });
    }
    return found.sort((one, other) => one.order - other.order).slice(0, most).map(({ place }) => place);
  }

  #placeOf(id, born) {
    let place = this.place.get(id);
    if (place === undefined) {
      place = this.nodes.length;
      this.place.set(id, place);
      this.nodes.push({ id, title: id.replaceAll("_", " "), url: "", revision: "", source: "", data: {}, read: false, born });
      this.near.push([]);
    }
    return place;
  }
}
