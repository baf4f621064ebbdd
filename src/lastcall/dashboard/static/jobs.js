// #/jobs : the jobs of the store, newest first, filtered, a page at a time.

import {attr, empty, h, list, mark, place, say, table} from "./dom.js";
import {ask, live, now} from "./live.js";
import {STATUSES} from "./overview.js";
import {ago, clock, fault, number, progress, rough, short, span} from "./words.js";

const PAGE = 50, AGAIN = 2500;
const FILTERS = ["task", "task_part", "queue", "key", "label", "parent"];
const ID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** What was typed, as filters: `queue:mail key:k-1 label:team:a`, an id, or a part of a task's name. */
export function parse(text) {
  const given = new URLSearchParams();
  for (const word of text.trim().split(/\s+/).filter(Boolean)) {
    const colon = word.indexOf(":");
    const name = word.slice(0, colon);
    if (colon > 0 && FILTERS.includes(name)) given.set(name, word.slice(colon + 1));
    else if (ID.test(word)) given.set("id", word.toLowerCase());
    else given.set("task_part", [given.get("task_part"), word].filter(Boolean).join(" "));
  }
  return given;
}

const words = params => FILTERS.filter(name => params.has(name))
  .map(name => name === "task_part" && !params.get(name).includes(":") ? params.get(name) : `${name}:${params.get(name)}`).join(" ");

export function jobs(params, go) {
  const chosen = new Set(params.getAll("status").filter(status => STATUSES.includes(status)));
  const search = h("input", {type: "search", id: "search", value: words(params), placeholder: "Part of a task's name, id, queue:, key:, label:name:value",
    "aria-label": "Filter jobs by a part of a task's name, id, queue, key or label", autocomplete: "off", spellcheck: "false", enterkeyhint: "search"});
  const form = h("form", {role: "search", onsubmit(event) {
    event.preventDefault();
    const given = parse(search.value);
    if (given.has("id")) go(`#/jobs/${given.get("id")}`);
    else filter(given);
  }}, search);
  const counts = STATUSES.map(() => h("b"));
  const chips = STATUSES.map((status, i) => h("button", {type: "button", class: "chip", "aria-pressed": String(chosen.has(status)), onclick() {
    chosen.has(status) ? chosen.delete(status) : chosen.add(status);
    attr(this, "aria-pressed", String(chosen.has(status)));
    // What has not been changed is kept to the letter: a value with a space cannot be read back from the words.
    filter(search.value === words(params) ? params : parse(search.value));
  }}, mark(status), counts[i]));
  const body = h("tbody"), note = h("span", {class: "note", role: "status"});
  const wrong = h("p", {class: "warning", role: "alert"});
  const nothing = h("div");
  const newer = h("button", {type: "button", onclick: () => { cursors.pop(); load(); }}, "Newer");
  const older = h("button", {type: "button", onclick: () => { if (next) { cursors.push(next); load(); } }}, "Older");
  const grid = table([["Job"], ["Status"], ["Queue", "side"], ["Attempt", "n side"], ["Submitted", "n"], ["Time", "n side"]], body);
  const el = h("div", null, h("div", {class: "title"}, h("h1", {tabindex: -1}, "Jobs"), note), form,
    h("div", {class: "filter", role: "group", "aria-label": "Status"}, chips), wrong,
    h("section", {class: "panel"}, grid, nothing), h("div", {class: "pager"}, newer, older));
  const cursors = [null];
  let shown = [], next = null, loading = false, loadedAt = 0, aborter = new AbortController();

  function filter(given) {
    given = new URLSearchParams([...given].filter(([name]) => FILTERS.includes(name)));
    params = new URLSearchParams(given);
    for (const status of chosen) given.append("status", status);
    go(given.size ? `#/jobs?${given}` : "#/jobs", {replace: true}); // where this page is, for a reload or a link
    cursors.length = 1;
    load();
  }

  async function load() {
    aborter.abort();
    const mine = aborter = new AbortController();
    loading = true;
    const query = new URLSearchParams([...params].filter(([name]) => FILTERS.includes(name)));
    for (const status of chosen) query.append("status", status);
    query.set("limit", PAGE);
    query.set("args", "no");
    if (cursors.at(-1)) query.set("cursor", cursors.at(-1));
    try {
      const told = await ask(`jobs?${query}`, mine.signal);
      ({jobs: shown, next} = told);
      say(wrong, "");
      draw();
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.status === 410) cursors.length = 1; // its job is gone: begin anew at the next look
      say(wrong, error.message);
    } finally {
      if (mine === aborter) {
        loading = false;
        loadedAt = Date.now();
      }
    }
  }

  function draw() {
    list(body, shown, job => job.id, jobRow);
    grid.hidden = !shown.length;
    newer.disabled = cursors.length < 2;
    older.disabled = !next;
    newer.parentNode.hidden = newer.disabled && older.disabled;
    const first = (cursors.length - 1) * PAGE + 1;
    say(note, shown.length ? `${number(first)} to ${number(first + shown.length - 1)}` : "");
    const filtered = chosen.size || FILTERS.some(name => params.has(name));
    if (!shown.length && nothing.shown !== Boolean(filtered)) {
      nothing.replaceChildren(filtered
        ? empty("No job fits this filter", "A word is a part of a task's name; task: is a whole one. An id, queue:, key: and label:name:value are compared whole, too.",
          h("p", null, h("a", {href: "#/jobs"}, "Show all jobs")))
        : empty("No jobs yet", "A job is here from the moment its submission is committed:", h("pre", null, "job = await task.submit(…)")));
      nothing.shown = Boolean(filtered);
    }
    nothing.hidden = shown.length > 0;
  }

  load();
  return {el, title: "Jobs", search, leave: () => aborter.abort(), show() {
    STATUSES.forEach((status, i) => { if (live.overview?.jobs) say(counts[i], number(live.overview.jobs[status] ?? 0)); });
    // Only the first page moves by itself; who reads further back should find what was there.
    if (cursors.length === 1 && live.link === "live" && !loading && Date.now() - loadedAt > AGAIN) load();
    else for (const job of shown) body.nodes?.get(job.id)?.tick(job);
  }};
}

/** A row of the list: a link to the job, and what is known at a glance. */
function jobRow(job) {
  const status = mark(job.status), what = h("span", {class: "soft what"}), done = h("i"), bar = h("span", {class: "done", "aria-hidden": "true"}, done);
  const attempt = h("td", {class: "n side"}), submitted = h("td", {class: "n soft"}), time = h("td", {class: "n side"});
  const row = h("tr", null,
    h("td", {class: "wide"}, h("a", {href: `#/jobs/${job.id}`}, job.task), " ", h("span", {class: "mono soft"}, short(job.id)), what),
    h("td", null, status, bar), h("td", {class: "side soft"}, job.queue), attempt, submitted, time);
  row.show = told => {
    status.show(told.status);
    say(what, told.error && told.status === "failed" ? fault(told.error).slice(0, 200)
      : told.waits_for?.length ? `waits for ${told.waits_for.join(", ")}` : (told.status === "running" && progress(told.progress).words) || told.key || "");
    const share = told.status === "running" ? progress(told.progress).share : null;
    bar.hidden = share === null;
    place(done, "width", share ?? 0);
    say(attempt, told.attempt || "–");
    attr(submitted, "title", clock(told.created_at));
    row.tick(told);
  };
  row.tick = told => {
    say(submitted, ago(now() - told.created_at));
    say(time, told.started_at === null ? "–" : told.ended_at ? span(told.ended_at - told.started_at) : rough(now() - told.started_at));
  };
  return row;
}
