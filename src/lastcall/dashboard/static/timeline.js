// Attempts and steps of a job over one time axis.

import {attr, empty, h, list, panel, place, say} from "./dom.js";
import {fault, plural, rough, span} from "./words.js";

const MOST = 200;
const ELSEWHERE = "its worker is another process, which alone knows what runs; the name comes with the end";

export function timeline() {
  const ticks = [0, 1, 2, 3, 4].map(n => {
    const tick = h("span");
    place(tick, "left", n / 4);
    return tick;
  });
  const axis = h("div", {class: "ticks", "aria-hidden": "true"}, h("div", null, ticks));
  const rows = h("ol", {class: "lanes", tabindex: 0, "aria-label": "Attempts and steps"}), none = empty("Not begun", "Attempts and steps appear here on one time axis.");
  const node = panel("Timeline", axis, rows, none);

  node.show = (job, now) => {
    const attempts = job.attempts ?? [], recorded = (job.steps ?? []).map(one => endOf(one, attempts));
    const steps = [...recorded, ...inFlight(job, attempts.at(-1), recorded)];
    const begin = attempts[0]?.started_at ?? job.created_at;
    const ends = [...attempts, ...steps].map(one => one.ended_at ?? now);
    const length = Math.max(0.001, ...ends.map(end => end - begin));
    const bars = [
      ...attempts.map(one => ({...one, key: `a${one.attempt}`, kind: "attempt", name: `Attempt ${one.attempt}`, status: one.outcome ?? "running", why: one.reason})),
      ...steps.slice(-MOST).map(one => ({...one, key: `s${one.attempt} ${one.key}`, kind: "step", name: one.key})),
    ];
    list(rows, bars, bar => bar.key, lane);
    for (const bar of bars) {
      const row = rows.nodes.get(bar.key);
      place(row.bar, "left", (bar.started_at - begin) / length);
      place(row.bar, "width", ((bar.ended_at ?? now) - bar.started_at) / length);
      if (!bar.ended_at) say(row.time, rough(now - bar.started_at));
    }
    ticks.forEach((tick, i) => say(tick, i ? span(length * i / 4) : "0"));
    none.hidden = bars.length > 0;
    axis.hidden = !bars.length;
    say(node.note, steps.length > MOST ? `the last ${MOST} of ${plural(steps.length, "step")}` : steps.length ? plural(steps.length, "step") : "");
    node.bars = bars;
  };
  return node;
}

/** A step that was begun and never ended, ended with its attempt. */
function endOf(step, attempts) {
  if (step.status !== "started") return step;
  const ended = attempts.find(one => one.attempt === step.attempt)?.ended_at ?? null;
  return {...step, ended_at: ended, status: ended === null ? "running" : "cut_off"};
}

/**
 * The steps of which nothing is recorded yet. Their process knows them; another one knows since when there is nothing.
 * Two machines' clocks are never quite alike: no step began before its attempt.
 */
function inFlight(job, attempt, recorded) {
  if (job.status !== "running" || !attempt || attempt.ended_at) return [];
  const mine = recorded.filter(one => one.attempt === attempt.attempt);
  const told = job.running_steps?.filter(({key}) => !mine.some(one => one.key === key && one.status === "running"))
    ?? [{key: "named when it ends", started_at: Math.max(0, ...mine.map(one => one.ended_at ?? Infinity)), why: ELSEWHERE}];
  return told.filter(one => one.started_at < Infinity).map(one =>
    ({...one, started_at: Math.max(one.started_at, attempt.started_at), ended_at: null, status: "running", attempt: attempt.attempt}));
}

function lane({kind}) {
  const name = h(kind === "attempt" ? "b" : "span"), why = h("span", {class: "soft"}), time = h("span", {class: "n soft"}), bar = h("i");
  const row = h("li", {class: kind}, h("span", {class: "name"}, name, " ", why), h("span", {class: "track"}, bar), time);
  Object.assign(row, {bar, time});
  row.show = told => {
    const outcome = told.status.replaceAll("_", " ");
    say(name, told.name);
    attr(row, "title", `${told.name}: ${outcome}${told.why ? ` (${told.why})` : ""}${told.error ? `, ${fault(told.error)}` : ""}`);
    attr(bar, "data-status", told.status);
    say(why, kind === "attempt" && told.status !== "completed" ? `${outcome}${told.why ? `, ${told.why}` : ""}` : "");
    if (told.ended_at) say(time, span(told.ended_at - told.started_at));
  };
  return row;
}
