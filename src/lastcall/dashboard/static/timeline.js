// Attempts and steps of a job over one time axis.

import {attr, empty, h, list, panel, place, say} from "./dom.js";
import {fault, plural, span} from "./words.js";

const MOST = 200;

export function timeline() {
  const ticks = [0, 1, 2, 3, 4].map(n => {
    const tick = h("span");
    place(tick, "left", n / 4);
    return tick;
  });
  const axis = h("div", {class: "ticks", "aria-hidden": "true"}, h("div", null, ticks));
  const rows = h("ol", {class: "lanes"}), none = empty("Not begun", "Attempts and steps appear here on one time axis.");
  const node = panel("Timeline", axis, rows, none);

  node.show = (job, now) => {
    const attempts = job.attempts ?? [], steps = job.steps ?? [];
    const begin = attempts[0]?.started_at ?? job.created_at;
    const ends = [...attempts, ...steps].map(one => one.ended_at ?? now);
    const length = Math.max(0.001, ...ends.map(end => end - begin));
    const bars = [
      ...attempts.map(one => ({...one, key: `a${one.attempt}`, kind: "attempt", name: `Attempt ${one.attempt}`, status: one.outcome ?? "running", why: one.reason})),
      ...steps.slice(-MOST).map(one => ({...one, key: `s${one.key}`, kind: "step", name: one.key, status: one.status === "started" ? "running" : one.status})),
    ];
    list(rows, bars, bar => bar.key, lane);
    for (const bar of bars) {
      const row = rows.nodes.get(bar.key);
      place(row.bar, "left", (bar.started_at - begin) / length);
      place(row.bar, "width", ((bar.ended_at ?? now) - bar.started_at) / length);
    }
    ticks.forEach((tick, i) => say(tick, i ? span(length * i / 4) : "0"));
    none.hidden = bars.length > 0;
    axis.hidden = !bars.length;
    say(node.note, steps.length > MOST ? `the last ${MOST} of ${plural(steps.length, "step")}` : steps.length ? plural(steps.length, "step") : "");
    node.bars = bars;
  };
  return node;
}

function lane({kind}) {
  const name = h(kind === "attempt" ? "b" : "span"), why = h("span", {class: "soft"}), time = h("span", {class: "n soft"}), bar = h("i");
  const row = h("li", {class: kind}, h("span", {class: "name"}, name, " ", why), h("span", {class: "track"}, bar), time);
  row.bar = bar;
  row.show = told => {
    const outcome = told.status.replaceAll("_", " ");
    say(name, told.name);
    attr(row, "title", `${told.name}: ${outcome}${told.why ? ` (${told.why})` : ""}${told.error ? `, ${fault(told.error)}` : ""}`);
    attr(bar, "data-status", told.status);
    say(why, kind === "attempt" && told.status !== "completed" ? `${outcome}${told.why ? `, ${told.why}` : ""}` : "");
    say(time, told.ended_at ? span(told.ended_at - told.started_at) : "…");
  };
  return row;
}
