// #/jobs/ID : one job, with everything that is known of it, as it happens.

import {attr, factList, h, list, mark, panel, place, say} from "./dom.js";
import {command, notice, value} from "./dialog.js";
import {jobLog} from "./log.js";
import {ask, live, now, readOnly} from "./live.js";
import {timeline} from "./timeline.js";
import {ago, clock, fault, number, pretty, progress as howFar, span} from "./words.js";

const FINAL = new Set(["completed", "failed", "cancelled"]);

export function job(id, go) {
  const heading = h("h1", {tabindex: -1}, "Job"), status = mark(""), tools = h("div", {class: "tools"});
  const facts = factList(), about = panel("Job", facts), gone = h("p", {class: "warning", role: "status"});
  const done = h("i"), progress = h("div", {class: "progress", role: "progressbar", "aria-label": "Progress"}, h("span", {class: "done"}, done)), said = h("span", {class: "soft"});
  const lanes = timeline(), values = h("div"), errors = h("div");
  const log = jobLog(id, (type, data) => {
    if (type === "refused" && data.status === 404) missing();
    if (["status", "step", "step.reset", "progress", "snapshot", "end"].includes(type)) wanted = true;
  });
  const later = h("p", {class: "warning", role: "status"});
  const whole = h("div", {class: "job", hidden: true}, h("div", {class: "aside"}, about, values), h("div", {class: "body"}, h("div", {class: "along"}, progress, said), errors, log.texts, lanes, log.events));
  const el = h("div", null, h("p", {class: "crumb"}, h("a", {href: "#/jobs", "data-back": ""}, "Jobs")),
    h("div", {class: "title"}, heading, status, tools), gone, later, whole);
  let told = null, wanted = true, loading = false, loadedAt = 0, shownFor = "";

  async function load() {
    loading = true;
    wanted = false;
    try {
      told = await ask(`jobs/${id}`);
      if (!FINAL.has(told.status)) log.resume(); // it may have been tried again after its log had ended
      draw();
    } catch (error) {
      if (error.status === undefined) throw error; // a fault of this page
      if (error.status === 404 || error.status === 400) missing(error.message);
      else if (!told) say(later, error.message);
    } finally {
      loading = false;
      loadedAt = Date.now();
    }
  }

  function missing(words = "The job is not here (any more): it was purged, or its retention is over.") {
    log.close();
    tools.replaceChildren();
    say(gone, words);
  }

  function draw() {
    say(heading, told.task);
    say(later, "");
    whole.hidden = false;
    document.title = `${told.task} · ${told.status}`;
    status.show(told.status);
    offer();
    facts.show(factsOf(told));
    const {share, words} = howFar(told.progress);
    const final = FINAL.has(told.status);
    progress.hidden = share === null || final;
    place(done, "width", share ?? 0);
    attr(progress, "aria-valuenow", share === null ? null : Math.round(100 * share));
    say(said, final ? "" : words);
    const parts = [["Arguments", told.args, true], ["Result", told.result, told.status === "completed"]];
    list(values, parts.filter(([,, there]) => there), ([name]) => name, text);
    list(errors, told.error ? [["Error", told.error]] : [], ([name]) => name, failure);
    lanes.show(told, now());
  }

  /** The buttons that make sense now; made anew only when that changes, so that focus stays. */
  function offer() {
    const final = FINAL.has(told.status), undecided = told.undecided_steps ?? [];
    const key = [told.status, undecided, readOnly()].join();
    if (key === shownFor) return;
    shownFor = key;
    const path = `jobs/${id}`, again = () => load();
    tools.replaceChildren(...readOnly() ? [] : [
      ...undecided.map(step => decide(step, path, again)),
      !final && command("Send", {question: () => `Send a message to this job`, detail: "It is kept until the job waits for it: ctx.wait_for(name).", path: `${path}/send`, done: again,
        fields: [{name: "name", label: "Name", value: waitedName(told)}, {name: "data", label: "Data, as JSON or text", rows: 4}],
        body: given => ({name: given.name, data: value(given.data)})}),
      !final && command("Cancel", {danger: true, question: () => `Cancel this job?`, detail: `${told.task} is ${told.status}. A running attempt is cancelled once and may clean up; a job that was cancelled can be retried.`, path: `${path}/cancel`, done: again}),
      final && told.status !== "completed" && command("Retry", {path: `${path}/retry`, done: again}),
      final && command("Purge", {danger: true, question: () => "Purge this job?", detail: "Its row, steps, events and result are deleted. This cannot be undone.", method: "DELETE", path, done: () => go("#/jobs")}),
    ].filter(Boolean));
  }

  const state = {el, title: "Job", leave: () => log.close(), show() {
    log.show();
    const every = told && FINAL.has(told.status) ? 15000 : 3000;
    const since = Date.now() - loadedAt;
    if (live.link !== "lost" && !loading && !gone.said && ((wanted && since > 700) || since > every)) load();
    else if (told && !FINAL.has(told.status)) lanes.show(told, now());
  }};
  return state;
}

function decide(step, path, done) {
  return command("Decide", {question: () => `Did “${step}” happen?`, path: `${path}/resolve`, done,
    detail: "Its process died while it ran, and it must not run twice. Look at the other side, then say what became of it.",
    fields: [{name: "what", label: "It", choices: [["yes", "happened, with this value"], ["no", "did not happen: run it"], ["error", "failed, with this message"]]}, {name: "value", label: "Value (JSON) or message", rows: 3}],
    body: given => given.what === "error" ? {step, error: given.value || "failed"}
      : given.what === "no" ? {step, happened: false} : {step, happened: true, value: value(given.value)}});
}

const waitedName = told => told.waits_for?.find(words => /^(message|signal|event) /.test(words))?.replace(/^\S+ /, "") ?? "";

function factsOf(told) {
  const labels = Object.entries(told.labels ?? {}).map(([name, words]) => `${name}:${words}`).join(" ");
  return [
    ["Id", told.id, {mono: true}],
    ["Queue", told.queue, {href: `#/jobs?queue=${encodeURIComponent(told.queue)}`}],
    ["Key", told.key],
    ["Labels", labels],
    ["Parent", told.parent_id, {href: `#/jobs/${told.parent_id}`, mono: true}],
    ["Version", told.version],
    ["Priority", told.priority || null],
    ["Attempt", `${told.attempt}${told.failures ? `, ${number(told.failures)} failed` : ""}${told.lost ? `, ${number(told.lost)} lost` : ""}`],
    ["Waits for", told.waits_for?.join(", ")],
    ["Cancelled by", told.cancel_reason],
    ["Submitted", `${clock(told.created_at)}, ${ago(now() - told.created_at)}`],
    ["Due", told.status === "scheduled" && clock(told.due_at)],
    ["Waited", told.started_at && span(told.started_at - told.created_at)],
    ["Started", told.started_at && clock(told.started_at)],
    ["Ended", told.ended_at && clock(told.ended_at)],
    ["Took", told.started_at && told.ended_at && span(told.ended_at - told.started_at)],
    ["Worker", told.worker_id, {mono: true}],
  ];
}

function text([name]) {
  const pre = h("pre", {tabindex: 0}), copy = h("button", {type: "button", class: "quiet", onclick: () =>
    navigator.clipboard?.writeText(pretty(node.shown, Infinity)).then(() => notice(`${name} copied`), () => notice("The browser did not let it be copied", true))}, "Copy");
  const node = panel(name, pre);
  node.querySelector("header").append(copy);
  node.show = ([, said]) => {
    if (node.shown !== (node.shown = said)) say(pre, pretty(said));
  };
  return node;
}

function failure([name]) {
  const what = h("p", {class: "wrong"}), trace = h("pre", {tabindex: 0});
  const node = panel(name, what, trace);
  node.classList.add("failed");
  node.show = ([, error]) => {
    say(what, fault(error));
    say(trace, error.traceback ?? "");
    trace.hidden = !error.traceback;
  };
  return node;
}
