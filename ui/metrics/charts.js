/** Small charts, as SVG. */

import { draw } from "../page/elements.js";

const [WIDTH, HEIGHT] = [120, 32];

/** A line of values over time. @param {number[]} values @param {string} name */
export function sparkline(values, name) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "spark", role: "img", preserveAspectRatio: "none",
    "aria-label": values.length > 1 ? `${name}: from ${values[0]} to ${values.at(-1)}` : `${name}: one reading so far` });
  const y = (value) => (high > low ? HEIGHT - 3 - ((value - low) / (high - low)) * (HEIGHT - 6) : HEIGHT / 2);
  const step = WIDTH / Math.max(1, values.length - 1);
  const points = (values.length > 1 ? values : [values[0] ?? 0, values[0] ?? 0]).map((value, n) => `${(values.length > 1 ? n * step : n * WIDTH).toFixed(1)},${y(value).toFixed(1)}`);
  const shapes = [
    values.length > 1 && draw("polygon", { points: `0,${HEIGHT} ${points.join(" ")} ${WIDTH},${HEIGHT}`, class: "area" }),
    draw("polyline", { points: points.join(" "), class: "line", "vector-effect": "non-scaling-stroke" }),
  ];
  svg.append(...shapes.filter(Boolean));
  return svg;
}

/** How much of the most this is. @param {number} value @param {number} most */
export function bar(value, most) {
  const width = most > 0 ? Math.max(value > 0 ? 1 : 0, (100 * value) / most) : 0;
  return draw("svg", { viewBox: "0 0 100 8", class: "bar", "aria-hidden": "true", preserveAspectRatio: "none" },
    draw("rect", { width: 100, height: 8, class: "ground" }), draw("rect", { width, height: 8, class: "value" }));
}
