/** Light, dark, or as the system has it. */

const KEPT = "lumina.theme";
const NEXT = { system: "light", light: "dark", dark: "system" };
const dark = matchMedia("(prefers-color-scheme: dark)");
const told = new Set();

/** @returns {"system" | "light" | "dark"} */
export const theme = () => document.documentElement.dataset.theme ?? "system";

/** Call back when colours have changed. @param {() => void} callback */
export const onTheme = (callback) => told.add(callback);

/** @param {any} button that goes from one to the next */
export function installTheme(button) {
  const label = () => {
    button.textContent = { system: "◐", light: "○", dark: "●" }[theme()];
    button.setAttribute("aria-label", `Theme: ${theme()}. Change to ${NEXT[theme()]}`);
    button.title = `Theme: ${theme()}`;
  };
  button.addEventListener("click", () => {
    const next = NEXT[theme()];
    if (next === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    localStorage.setItem(KEPT, next);
    label();
    for (const callback of told) callback();
  });
  dark.addEventListener("change", () => told.forEach((callback) => callback()));
  label();
}

/** What a custom property of the style sheet is just now, as a colour for a canvas. @param {string} name */
export function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
