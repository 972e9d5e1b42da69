/** Citations: the numbers in a text, the list under it, and the passage that one opens. */

import { get } from "../net/api.js";
import { address, by, make } from "../page/elements.js";

/** @typedef {{ number: number, title: string, url: string, revision: string, section?: string[], passage_id: string, quote: string }} Citation */

const WORD = /[\p{L}\p{N}]+/gu;

/** Text whose [1] open the sources that are there. @param {string} text @param {Citation[]} citations */
export function linked(text, citations) {
  const known = new Map(citations.map((cited) => [`[${cited.number}]`, cited]));
  return text.split(/(\[\d+\])/).map((piece) => {
    const cited = known.get(piece);
    if (!cited) return piece;
    const mark = make("button", { type: "button", class: "cite", "aria-label": `Source ${cited.number}: ${cited.title}` }, piece);
    mark.addEventListener("click", () => openPassage(cited));
    return mark;
  });
}

/** The sources as a list. @param {any} list @param {Citation[]} citations */
export function listCitations(list, citations) {
  list.hidden = !citations.length;
  list.replaceChildren(
    ...citations.map((cited) => {
      const open = make("button", { type: "button", class: "plain" }, where(cited));
      open.addEventListener("click", () => openPassage(cited));
      return make("li", {},
        make("span", { class: "number", "aria-hidden": "true" }, `${cited.number}`),
        make("div", {}, open, " ", make("span", { class: "soft" }, `revision ${cited.revision}`)));
    }),
  );
}

/** Show the passage with the words that were cited marked in it. @param {Citation} cited */
export async function openPassage(cited) {
  by("passage-title").textContent = cited.title;
  by("passage-section").textContent = (cited.section ?? []).join(" › ");
  by("passage-source").replaceChildren(`Revision ${cited.revision}: `, address(cited.url));
  const body = by("passage-text");
  const note = by("passage-note");
  body.replaceChildren(make("mark", {}, cited.quote));
  note.textContent = "Looking for the words around it …";
  by("passage").showModal();
  try {
    const passage = await get(`/passages/${encodeURIComponent(cited.passage_id)}`);
    if (by("passage-title").textContent !== cited.title) return;
    body.replaceChildren(...marked(passage.text, cited.quote));
    note.textContent = "";
  } catch (error) {
    note.textContent = `Only the cited words are shown: ${error.message}`;
  }
}

/** A text in which a quote is marked; white space and punctuation between its words may differ. */
export function marked(text, quote) {
  const words = [...text.matchAll(WORD)];
  const wanted = [...quote.matchAll(WORD)].map(([word]) => word.toLowerCase());
  const at = words.findIndex((_, start) => wanted.every((word, n) => words[start + n]?.[0].toLowerCase() === word));
  if (at < 0 || !wanted.length) return [text];
  const from = words[at].index;
  const last = words[at + wanted.length - 1];
  let to = last.index + last[0].length;
  while (/[.!?)\]»"”]/.test(text[to] ?? "")) to++;
  return [text.slice(0, from), make("mark", {}, text.slice(from, to)), text.slice(to)];
}

const where = (cited) => [cited.title, ...(cited.section ?? [])].join(" › ");
