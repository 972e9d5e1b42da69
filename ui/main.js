/** The console: where everything begins. */

import { by } from "./page/elements.js";
import { installShortcuts, shortcut } from "./page/shortcuts.js";
import { installTheme } from "./page/theme.js";
import { NAMES, go, installViews, ready } from "./page/views.js";

const FIRST_FIELD = { chat: "message", plan: "plan-message", graph: "graph-search", tasks: "crawl-titles", events: "events-types" };

for (const [number, name] of NAMES.entries())
  shortcut(String(number + 1), `Go to ${name}`, { action: () => go(name) });
shortcut("/", "Write, or search", {
  action: async () => {
    await ready();
    by(FIRST_FIELD[document.body.dataset.view] ?? "main").focus();
  },
});
shortcut("t", "Change the theme", { action: () => by("theme").click() });
installShortcuts();
installTheme(by("theme"));
document.addEventListener("click", (event) => {
  const target = /** @type {any} */ (event.target);
  if (target.closest("[data-close]")) target.closest("dialog").close("");
  else if (target instanceof HTMLDialogElement) target.close(""); // the ground around it
});
by("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the view
  by("main").focus();
});
installViews();
