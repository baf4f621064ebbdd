// #/shutdown : the budget, the drain as it happens and who is still at the bar, and the reports of what ended before.

import {attr, empty, h, jobOf, list, mark, named, panel, place, say} from "./dom.js";
import {command} from "./dialog.js";
import {keyOf, live, look, readOnly, recall} from "./live.js";
import {clock, number, plural, rough, span} from "./words.js";

const PHASES = ["notice", "drain", "cancel", "close"];
const OF_CALLS = new Set(["request", "stream", "websocket"]);
const AGAIN = 30000, LOOK = 2000;
const PHASE_OF = {notice: "notice", draining: "drain", cancelling: "cancel", closing: "close"};
const HAPPENS = {
  notice: "Readiness is 503, so that load balancers look away. Work goes on.",
  drain: "No new work. Everyone was told, and may finish.",
  cancel: "Time is up: each was cancelled once, and may clean up.",
  close: "Jobs are given back, buffers flushed, resources closed.",
};

/** Whether a shutdown is under way. */
export const draining = stand => Boolean(stand && PHASE_OF[stand.state]);

export function shutdown() {
  const left = h("b", {class: "left"}), what = h("p"), phase = h("h2", {class: "phase"}), spent = h("i");
  const parts = PHASES.map(name => h("span", {class: "phase-part", "data-phase": name}, h("em", null, name)));
  const budget = h("div", {class: "budget", role: "meter", "aria-label": "what is left of the budget", "aria-valuemin": 0}, parts, spent);
  const begin = command("Drain this process", {danger: true, path: "drain", question: () => "Stop this process?", detail:
    "It stops taking work, lets what runs finish within the budget, and ends. What started it decides whether another one comes."});
  begin.hidden = true; // until it is known that it may be pressed
  const clockwork = h("section", {class: "panel drain"}, h("div", null, phase, what, begin), left, budget);
  const people = h("ul", {class: "rows work"}), none = empty("Nobody", "No request, stream, task or job is under way in this process.");
  const bar = panel("Still at the bar", people, none);
  const past = h("div"), nothing = h("section", {class: "panel"}, empty("No report yet",
    "Every process that ends leaves one, unless it is killed. Leave this page open during a deploy: it comes back by itself to the next process."));
  const el = h("div", null, h("h1", {class: "hidden", tabindex: -1}, "Shutdown"), clockwork, bar, h("h2", {class: "rule"}, "Last shutdowns"), past, nothing);

  let asked = 0, askedAt = 0, lookedAt = 0;

  function show() {
    const stand = live.shutdown;
    if (live.link === "live" && stand?.state === "open" && Date.now() - lookedAt > LOOK) {
      lookedAt = Date.now();
      look();
    }
    if (live.link === "live" && live.meta && (asked !== live.connection || Date.now() - askedAt > AGAIN)) {
      asked = live.connection;
      askedAt = Date.now();
      recall();
    }
    nothing.hidden = live.reports.length > 0;
    list(past, live.reports, keyOf, report);
    if (!stand) return;
    const total = stand.plan.total || 1, going = draining(stand), over = stand.state === "closed";
    const remaining = stand.remaining_seconds;
    const took = over ? stand.report?.seconds ?? null : null;
    say(left, going ? (remaining ?? 0).toFixed(1) : took !== null ? took.toFixed(1) : `${total}`);
    attr(left, "data-unit", going ? "s left" : took !== null ? `s of ${total}` : "s budget");
    attr(clockwork, "data-state", stand.state);
    say(phase, going ? `Last call: ${PHASE_OF[stand.state]}` : over ? "Closed" : "Open");
    say(what, going ? `${HAPPENS[PHASE_OF[stand.state]]} ${span(stand.phase_remaining_seconds)} of this phase are left.`
      : over ? "This process has ended its work. The page waits for the next one."
      : "The bell has not rung. At SIGTERM, everything in this process has this long.");
    parts.forEach((part, i) => {
      place(part, "width", stand.plan[PHASES[i]] / total);
      part.hidden = !stand.plan[PHASES[i]];
      attr(part, "data-now", PHASE_OF[stand.state] === PHASES[i]);
      attr(part, "title", `${PHASES[i]}: ${stand.plan[PHASES[i]]} s`);
    });
    place(spent, "width", going ? (stand.elapsed_seconds ?? 0) / total : over ? (took ?? total) / total : 0);
    attr(budget, "aria-valuemax", total);
    attr(budget, "aria-valuenow", Math.round(remaining ?? total));
    begin.hidden = readOnly() || stand.state !== "open" || live.link !== "live";
    say(bar.head, going || over ? "Still at the bar" : "At the bar");
    say(bar.note, stand.busy ? `${number(stand.busy)} in all${stand.busy > stand.work.length ? `, the first ${stand.work.length}` : ""}` : "");
    none.hidden = stand.work.length > 0;
    list(people, stand.work, one => one.id, guest);
  }
  return {el, show, title: "Shutdown"};
}

function guest(work) {
  const time = h("span", {class: "n soft"}), status = mark(work.status), id = jobOf(work.name);
  const href = id ? `#/jobs/${id}` : OF_CALLS.has(work.kind) ? null : `#/tasks/${encodeURIComponent(work.id)}`;
  const row = h("li", null, h("span", {class: "name"}, href ? h("a", {href}, named(work.name)) : named(work.name), work.group && h("span", {class: "soft"}, ` ${work.group}`)),
    h("span", {class: "soft"}, id ? "job" : work.kind), status, time);
  row.show = told => {
    status.show(told.status);
    say(time, rough(told.seconds));
  };
  return row;
}

function report(one) {
  const bad = [
    ...(one.tasks ?? []).filter(task => ["refused", "thread_left", "failed"].includes(task.outcome) || (task.outcome === "cancelled" && task.cut_off)),
    ...(one.resources ?? []).filter(resource => resource.outcome !== "finished").map(resource => ({...resource, kind: "resource"})),
  ];
  const counts = Object.entries(one.counts ?? {}).filter(([, count]) => count).map(([outcome, count]) => `${number(count)} ${outcome.replaceAll("_", " ")}`).join(", ");
  const where = [one.host, one.pid && `pid ${one.pid}`].filter(Boolean).join(", ");
  const node = panel(`${one.name}, ${clock(one.started_at)}`,
    h("p", {class: "verdict", "data-clean": String(one.clean)}, h("b", null, one.clean ? "Clean" : "Not clean"),
      ` in ${span(one.seconds)} of ${span(one.budget_seconds)}${one.forced ? ", forced" : ""}. ${counts || "Nothing was running"}.`,
      one.late_births_refused ? ` ${plural(one.late_births_refused, "new task")} refused meanwhile.` : "",
      one.tasks_left_out ? ` ${plural(one.tasks_left_out, "task")} more than the store keeps.` : ""),
    h("ul", {class: "phases"}, (one.phases ?? []).map(phase => {
      const used = h("i");
      place(used, "width", phase.budget_seconds ? phase.seconds / phase.budget_seconds : 0);
      return h("li", null, h("span", {class: "name"}, phase.phase), h("span", {class: "lease", "aria-hidden": "true"}, used), h("span", {class: "n soft"}, `${span(phase.seconds)} of ${span(phase.budget_seconds)}`));
    }), one.is_complete ? null : h("li", null, h("span", {class: "name"}, "close"), h("span", {class: "soft"}, "this was written before it"))),
    bad.slice(0, 50).map(task => h("details", null, h("summary", null, mark(task.outcome), " ", named(task.name), " ", h("span", {class: "soft"}, [task.kind, task.error].filter(Boolean).join(", "))),
      h("pre", {tabindex: 0}, task.stack?.length ? task.stack.join("\n") : task.error ?? "no stack was taken"))));
  say(node.note, [`${one.reason}`, where].filter(Boolean).join(" · "));
  return node;
}
