/** Moving about the graph by mouse, touch and keyboard. */

const STEP = 60;
const CLICK_PX = 5; // a pointer that moved less has clicked

/**
 * @param {import("./canvas.js").GraphCanvas} graph
 * @param {{ choose: (place: number) => void, drag: (place: number, x: number, y: number) => void }} told drag: −1 lets go
 */
export function installGestures(graph, { choose, drag }) {
  const { canvas } = graph;
  /** @type {Map<number, { x: number, y: number }>} */
  const pointers = new Map();
  let dragged = -1;
  let travelled = 0;
  const local = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };

  canvas.addEventListener("pointerdown", (event) => {
    const at = local(event);
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, at);
    travelled = 0;
    dragged = pointers.size === 1 ? graph.hit(at.x, at.y, event.pointerType === "touch" ? 18 : 6) : -1;
  });
  canvas.addEventListener("pointermove", (event) => {
    const at = local(event);
    const before = pointers.get(event.pointerId);
    if (!before) return hover(at);
    travelled += Math.hypot(at.x - before.x, at.y - before.y);
    if (pointers.size === 2) pinch(event.pointerId, before, at);
    else if (dragged >= 0 && travelled > CLICK_PX) drag(dragged, ...graph.at(at.x, at.y));
    else if (dragged < 0) graph.pan(at.x - before.x, at.y - before.y);
    pointers.set(event.pointerId, at);
  });
  for (const kind of ["pointerup", "pointercancel"])
    canvas.addEventListener(kind, (event) => {
      const at = pointers.get(event.pointerId);
      pointers.delete(event.pointerId);
      if (dragged >= 0 && travelled > CLICK_PX) drag(-1, 0, 0);
      else if (at && kind === "pointerup" && travelled <= CLICK_PX && !pointers.size) choose(dragged);
      dragged = -1;
    });
  canvas.addEventListener("pointerleave", () => hover({ x: -99, y: -99 }));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const { x, y } = local(event);
    graph.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), x, y);
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const action = {
      ArrowLeft: () => graph.pan(STEP, 0),
      ArrowRight: () => graph.pan(-STEP, 0),
      ArrowUp: () => graph.pan(0, STEP),
      ArrowDown: () => graph.pan(0, -STEP),
      "+": () => graph.zoom(1.3),
      "=": () => graph.zoom(1.3),
      "-": () => graph.zoom(1 / 1.3),
      0: () => graph.fit(),
      Escape: () => choose(-1),
    }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });

  function hover(at) {
    const found = graph.hit(at.x, at.y, 4);
    if (found === graph.hovered) return;
    graph.hovered = found;
    canvas.style.cursor = found >= 0 ? "pointer" : "grab";
    graph.draw();
  }

  function pinch(id, before, at) {
    const [, other] = [...pointers].find(([one]) => one !== id);
    const far = (one) => Math.hypot(one.x - other.x, one.y - other.y) || 1;
    graph.zoom(far(at) / far(before), (at.x + other.x) / 2, (at.y + other.y) / 2);
    graph.pan((at.x - before.x) / 2, (at.y - before.y) / 2);
  }
}
