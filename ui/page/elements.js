/** Elements of the page. Text is never taken for markup. */

const SVG = "http://www.w3.org/2000/svg";

/** @param {string} id @returns {any} the element with this id, which index.html has. */
export const by = (id) => document.getElementById(id);

/**
 * An element with attributes and children; null, undefined and false among either are left out.
 * @param {string} tag
 * @param {Record<string, unknown>} [attributes]
 * @param {...(Node | string | null | undefined | false)} children
 * @returns {any}
 */
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for a shape of an SVG picture. */
export function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** A button that does something. @param {string} text @param {(event: MouseEvent) => void} action */
export function button(text, action, attributes = {}) {
  const made = make("button", { type: "button", ...attributes }, text);
  made.addEventListener("click", action);
  return made;
}

/** A link for the web; the address of a page in a file is text, for no browser opens it. @param {string} url */
export function address(url) {
  if (!/^https?:\/\//.test(url)) return make("span", { class: "address" }, url);
  return make("a", { class: "address", href: url, rel: "noopener noreferrer", target: "_blank" }, url);
}

/** How something stands, in the colour of trouble where it is one. @param {any} element @param {string} words */
export function say(element, words, trouble = false) {
  element.textContent = words;
  element.classList.toggle("problem", trouble);
  element.classList.toggle("soft", !trouble);
}

/** Say something to who listens rather than looks. @param {string} words */
export function announce(words) {
  by("announcer").textContent = words;
}

/** The copy of a template's element, and its parts by their data-part. @param {string} id */
export function copy(id) {
  const element = by(id).content.cloneNode(true).firstElementChild;
  const parts = Object.fromEntries([...element.querySelectorAll("[data-part]")].map((one) => [one.dataset.part, one]));
  return { element, parts };
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes))
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}
