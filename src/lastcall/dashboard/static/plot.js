// Small plots of the last minutes: SVG paths over a fixed time axis, drawn anew when a point has come.

import {h, panel, say, svg} from "./dom.js";
import {clock} from "./words.js";

const WIDTH = 600, STEP = 5, HEIGHT = 100;
// How much is shown: no more than there is, so that a new page is no empty plot.
const WINDOWS = [120, 300, 600];

/**
 * A panel with one plot. `lines`: [{name, kind, of(point), area}], `of` null where nothing was measured.
 * `format` writes a value. `show(points, now)` draws.
 */
export function plot(title, lines, format) {
  const paths = lines.map(line => svg("path", {class: `line ${line.kind}`}));
  const areas = lines.map(line => line.area && svg("path", {class: `area ${line.kind}`}));
  const cursor = svg("line", {class: "cursor", y1: 0, y2: HEIGHT, x1: -9, x2: -9});
  const grid = [0.5, 1].map(y => svg("line", {class: "grid", x1: 0, x2: WIDTH, y1: HEIGHT * (1 - y), y2: HEIGHT * (1 - y)}));
  const canvas = svg("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true"},
    grid, areas, paths, cursor);
  const values = lines.map(() => h("b"));
  const legend = h("p", {class: "legend"}, lines.map((line, i) => h("span", {class: line.kind}, h("i"), `${line.name} `, values[i])));
  const top = h("span", {class: "top"}), when = h("span", null, "now"), since = h("span");
  const node = panel(title, legend, h("div", {class: "plot"}, canvas, top),
    h("p", {class: "axis"}, since, when));
  node.classList.add("plotted");
  let shown = [], begin = 0, seconds = WINDOWS[0], over = null;

  const read = () => {
    const at = over === null ? null : begin + over * seconds;
    const point = at === null ? shown.at(-1)
      : shown.reduce((a, b) => a && Math.abs(a.at - at) < Math.abs(b.at - at) ? a : b, null);
    lines.forEach((line, i) => {
      const value = point && line.of(point);
      say(values[i], value === null || value === undefined ? "–" : format(value));
    });
    const x = over === null || !point ? -9 : (point.at - begin) * WIDTH / seconds;
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    say(when, over === null || !point ? "now" : clock(point.at));
  };
  canvas.addEventListener("pointermove", event => {
    const box = canvas.getBoundingClientRect();
    over = (event.clientX - box.left) / box.width;
    read();
  });
  canvas.addEventListener("pointerleave", () => { over = null; read(); });

  node.show = (points, now) => {
    shown = points;
    const end = Math.max(now, points.at(-1)?.at ?? 0);
    seconds = WINDOWS.find(window => end - (points[0]?.at ?? end) <= window + STEP) ?? WINDOWS.at(-1);
    begin = end - seconds;
    say(since, `${seconds / 60} min ago`);
    const most = ceiling(Math.max(0, ...points.flatMap(point => lines.map(line => line.of(point) ?? 0))));
    lines.forEach((line, i) => {
      const drawn = draw(points, line.of, at => (at - begin) * WIDTH / seconds, most);
      paths[i].setAttribute("d", drawn.map(run => `M${run.join("L")}`).join(""));
      areas[i]?.setAttribute("d", drawn.map(run =>
        `M${run[0].split(" ")[0]} ${HEIGHT}L${run.join("L")}L${run.at(-1).split(" ")[0]} ${HEIGHT}Z`).join(""));
    });
    say(top, most ? format(most) : "");
    read();
  };
  return node;
}

/** Runs of points that follow each other; a gap (a restart, nothing measured) is a gap. */
function draw(points, of, x, most) {
  const runs = [];
  let before = -Infinity;
  for (const point of points) {
    const value = of(point);
    if (value === null || value === undefined) continue;
    if (point.at - before > 2.5 * STEP) runs.push([]);
    before = point.at;
    runs.at(-1).push(`${x(point.at).toFixed(1)} ${(HEIGHT - 94 * value / (most || 1)).toFixed(1)}`);
  }
  return runs.map(run => run.length > 1 ? run : [run[0], run[0].replace(/^\S+/, x => (Number(x) + 2).toFixed(1))]);
}

/** The next 1, 2 or 5 above, so that the scale does not tremble. */
function ceiling(value) {
  if (value <= 0) return 0;
  const unit = 10 ** Math.floor(Math.log10(value));
  return unit * [1, 2, 5, 10].find(step => step * unit >= value);
}

/** How many jobs of the whole store ended in each second, as it went on from point to point; null for the first. */
export function rates(points) {
  return points.map((point, i) => {
    const before = points[i - 1];
    const seconds = before ? point.at - before.at : 0;
    if (!before?.store || !point.store || seconds > 3 * STEP) return {...point, completed: null, failed: null};
    const rate = status => Math.max(0, (point.store[status] ?? 0) - (before.store[status] ?? 0)) / seconds;
    return {...point, completed: rate("completed"), failed: rate("failed")};
  });
}
