/** What was read so far, so that a number becomes a line. */

const KEPT = 360; // readings: half an hour of one every five seconds

export class History {
  /** @type {Map<string, number[]>} */
  #lines = new Map();

  /** @param {Record<string, number | null | undefined>} figures */
  add(figures) {
    for (const [name, value] of Object.entries(figures)) {
      if (typeof value !== "number") continue;
      const line = this.#lines.get(name) ?? [];
      line.push(value);
      if (line.length > KEPT) line.shift();
      this.#lines.set(name, line);
    }
  }

  /** @param {string} name */
  line(name) {
    return this.#lines.get(name) ?? [];
  }
}
