// #/tasks : the tasks of this process, running and remembered; a row opens to what is known of it.

import {ask, live, now, readOnly} from "./live.js";
import {attr, empty, factList, h, jobOf, list, mark, named, panel, say, table} from "./dom.js";
import {command} from "./dialog.js";
import {clock, number, rough, span} from "./words.js";

export const TASK_COLUMNS = [["Task"], ["Kind", "side"], ["Status"], ["Time", "n"]];
const STATUSES = ["running", "pending", "failed", "cancelled", "completed"];
const PAGE = 100;

/** A row of a table of tasks. */
export function taskRow(task) {
  const status = mark(task.status), time = h("td", {class: "n"}), job = jobOf(task.name);
  const row = h("tr", null, h("td", {class: "wide"}, h("a", {href: job ? `#/jobs/${job}` : `#/tasks/${encodeURIComponent(task.id)}`}, named(task.name)),
    task.group && h("span", {class: "soft"}, ` ${task.group}`)), h("td", {class: "side soft"}, job ? "job" : task.daemon ? `${task.kind}, daemon` : task.kind),
    h("td", null, status), time);
  row.show = told => {
    status.show(told.status);
    say(time, told.ended_at ? span(told.seconds ?? told.ended_at - told.started_at) : rough(now() - (told.started_at ?? now())));
  };
  return row;
}

export function tasks(params, go) {
  const chosen = new Set(params.getAll("status"));
  const body = h("tbody"), note = h("span", {class: "note"});
  const none = empty("No such task", "Tasks are remembered for a while after their end. Start one with manager.create_task(coro, name=…).");
  const more = h("button", {type: "button", onclick: () => { limit = Math.min(1000, 5 * limit); load(); }}, "Show more");
  const chips = STATUSES.map(status => h("button", {type: "button", class: "chip", "aria-pressed": String(chosen.has(status)), onclick() {
    chosen.has(status) ? chosen.delete(status) : chosen.add(status);
    go(`#/tasks?${new URLSearchParams([...chosen].map(one => ["status", one]))}`, {replace: true});
    attr(this, "aria-pressed", String(chosen.has(status)));
    load();
  }}, mark(status)));
  const el = h("div", null, h("div", {class: "title"}, h("h1", {tabindex: -1}, "Tasks in this process"), note),
    h("div", {class: "filter", role: "group", "aria-label": "Status"}, chips),
    h("section", {class: "panel"}, table(TASK_COLUMNS, body), none, more));
  let limit = PAGE, loading = false, loadedAt = 0, shown = [], aborter = new AbortController();

  async function load() {
    loading = true;
    aborter.abort();
    aborter = new AbortController();
    const query = new URLSearchParams([...[...chosen].map(one => ["status", one]), ["limit", limit]]);
    try {
      const told = await ask(`tasks?${query}`, aborter.signal);
      shown = told.tasks;
      say(note, told.total > told.shown ? `${number(told.shown)} of ${number(told.total)}` : number(told.total));
      more.hidden = told.total <= told.shown || limit >= 1000;
      draw();
    } catch (error) {
      if (error.name !== "AbortError") say(note, error.message);
    } finally {
      loading = false;
      loadedAt = Date.now();
    }
  }
  function draw() {
    none.hidden = shown.length > 0;
    list(body, shown, task => task.id, taskRow);
  }
  load();
  return {el, title: "Tasks", leave: () => aborter.abort(), show() {
    // A long list is asked for less often: the page should not cost the service what the work should have.
    if (live.link === "live" && !loading && Date.now() - loadedAt > (limit > PAGE ? 5000 : 2000)) load();
    else draw();
  }};
}

export function task(id) {
  const status = mark(""), facts = factList(), heading = h("h1", {tabindex: -1}, "Task"), tools = h("div", {class: "tools"});
  const below = h("div");
  const el = h("div", null, h("p", {class: "crumb"}, h("a", {href: "#/tasks", "data-back": ""}, "Tasks")),
    h("div", {class: "title"}, heading, status, tools), h("section", {class: "panel"}, facts), below);
  const stop = command("Cancel", {danger: true, question: () => `Cancel the task “${heading.textContent}”?`,
    detail: "It is cancelled once, with the reason “user”, and may clean up.", path: `tasks/${encodeURIComponent(id)}/cancel`, done: load});
  stop.hidden = true;
  tools.append(stop);
  let loadedAt = 0, ended = false;

  async function load() {
    loadedAt = Date.now();
    try {
      const told = await ask(`tasks/${encodeURIComponent(id)}`);
      ended = Boolean(told.ended_at);
      say(heading, told.name);
      status.show(told.status);
      stop.hidden = readOnly() || ended;
      const labels = Object.entries(told.labels ?? {}).map(([name, value]) => `${name}: ${value}`).join(", ");
      const job = jobOf(told.name);
      facts.show([["Id", told.id], ["Job", job, {href: `#/jobs/${job}`, mono: true}], ["Kind", told.daemon ? `${told.kind}, daemon` : told.kind], ["Group", told.group], ["Labels", labels],
        ["Started", clock(told.started_at)], ["Ended", told.ended_at && clock(told.ended_at)], ["Time", span(told.seconds ?? now() - told.started_at)],
        ["Reason", told.reason]]);
      list(below, [["Error", told.error], ["Result", told.result], ["Where it stands", told.stack?.join("\n")]].filter(([, text]) => text),
        ([name]) => name, ([name]) => {
          const pre = h("pre", {tabindex: 0});
          return Object.assign(panel(name, pre), {show: ([, text]) => say(pre, text)});
        });
    } catch (error) {
      if (error.status === undefined) throw error; // a fault of this page
      ended = error.status === 404;
      if (ended) {
        say(heading, "This task is not known (any more)");
        stop.hidden = true;
      }
    }
  }
  load();
  return {el, title: "Task", show: () => { if (!ended && live.link === "live" && Date.now() - loadedAt > 1500) load(); }};
}
