/** The card of a node: what it is, its summary, its neighbours. */

import { get, query } from "../net/api.js";
import { linked, listCitations } from "../chat/cited.js";
import { address, button, make, say } from "../page/elements.js";
import { some } from "../page/wording.js";

const SHOWN = 30;

/**
 * @param {any} card the element that it fills
 * @param {import("./store.js").GraphStore} store
 * @param {number} place
 * @param {(place: number) => void} choose
 */
export async function showCard(card, store, place, choose) {
  const node = store.nodes[place];
  const heading = make("h2", { tabindex: "-1" }, node.title);
  const close = button("✕", () => choose(-1), { class: "quiet icon", "aria-label": "Close the card", title: "Close" });
  const summary = make("div", { class: "summary" });
  card.replaceChildren(
    make("div", { class: "row" }, heading, close),
    node.read
      ? make("p", { class: "soft" }, node.revision ? `Revision ${node.revision}` : "", node.source ? ` of ${node.source}` : "", node.url ? make("br") : "", node.url ? address(node.url) : "")
      : make("p", { class: "soft" }, "Linked to, but not read yet."),
    summary,
    neighbours(store, place, choose),
  );
  card.hidden = false;
  if (!node.read) return;
  const note = summary.appendChild(make("p", { class: "soft" }, "loading …"));
  try {
    const [found] = (await get(`/summaries${query({ topic: node.title })}`)).summaries;
    if (!summary.isConnected) return;
    if (!found) return void (note.textContent = "Not summarised yet.");
    const sources = make("ol", { class: "citations", "aria-label": "Sources of the summary" });
    listCitations(sources, found.citations);
    summary.replaceChildren(make("p", {}, ...linked(found.text, found.citations)), make("details", {}, make("summary", {}, "Sources"), sources));
  } catch (error) {
    say(note, error.message, true);
  }
}

function neighbours(store, place, choose) {
  const near = [...store.near[place]].sort((one, other) => store.near[other].length - store.near[one].length);
  const items = near.slice(0, SHOWN).map((other) => make("li", {}, button(store.nodes[other].title, () => choose(other), { class: "plain" })));
  return make("div", {}, make("h3", {}, some(near.length, "neighbour")), make("ul", { class: "neighbours" }, ...items),
    near.length > SHOWN && make("p", { class: "soft" }, `and ${near.length - SHOWN} more`));
}
