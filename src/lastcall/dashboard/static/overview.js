// #/ : what runs, waits and failed; how fast; the workers, the schedules, the tasks of this process.

import {attr, empty, h, list, mark, panel, place, say, table} from "./dom.js";
import {command} from "./dialog.js";
import {ask, live, now, readOnly} from "./live.js";
import {plot, rates} from "./plot.js";
import {taskRow, TASK_COLUMNS} from "./tasks.js";
import {ago, clock, fault, number, plural, rough, short, span} from "./words.js";

export const STATUSES = ["running", "queued", "scheduled", "waiting", "failed", "completed", "cancelled"];

export function overview() {
  const figures = figureRow();
  const jobRate = plot("Throughput", [
    {name: "completed", kind: "ok", area: true, of: point => point.completed},
    {name: "failed", kind: "fail", of: point => point.failed},
  ], value => `${value < 10 ? Number(value.toFixed(1)) : number(value)}/s`);
  const times = plot("Latency", [
    {name: "wait p95", kind: "quiet", of: point => point.jobs?.wait_p95_seconds},
    {name: "run p50", kind: "ok", of: point => point.jobs?.p50_seconds},
    {name: "run p95", kind: "accent", of: point => point.jobs?.p95_seconds},
  ], span);
  const taskRate = plot("Tasks ended", [
    {name: "completed", kind: "ok", area: true, of: point => per(point.tasks.completed)},
    {name: "failed", kind: "fail", of: point => per(point.tasks.failed)},
  ], value => `${Number(value.toFixed(1))}/s`);
  const taskTimes = plot("Run time of tasks", [
    {name: "p50", kind: "ok", of: point => point.tasks.p50_seconds},
    {name: "p95", kind: "accent", of: point => point.tasks.p95_seconds},
  ], span);
  const plots = [jobRate, times, taskRate, taskTimes];
  const queues = queuePanel(), workers = workerPanel(), schedules = schedulePanel(), tasks = taskPanel(), failures = failurePanel();
  const noJobs = h("section", {class: "panel"}, empty("No durable jobs here",
    "This app was installed without jobs=. Give it a store, and what must survive a crash is shown on this page:",
    h("pre", null, 'jobs = Jobs("sqlite:///app.db")\ninstall(app, manager, jobs=jobs)')));
  const away = h("p", {class: "warning", role: "status"});
  const el = h("div", {class: "overview"}, h("h1", {class: "hidden", tabindex: -1}, "Overview"), away, figures, h("div", {class: "pair"}, plots),
    h("div", {class: "pair wide"}, h("div", null, queues, tasks, noJobs), h("div", null, workers, failures, schedules)));

  function show() {
    const hasJobs = live.meta?.has_jobs ?? Boolean(live.overview);
    const store = live.overview?.available === false ? null : live.overview;
    for (const node of [jobRate, times, queues, workers, schedules, failures]) node.hidden = !hasJobs;
    for (const node of [taskRate, taskTimes]) node.hidden = hasJobs;
    noJobs.hidden = hasJobs || !live.meta;
    away.hidden = live.overview?.available !== false;
    say(away, `The store of the jobs cannot be asked: ${live.overview?.detail ?? ""} Its figures are those of before.`);
    figures.show(store, hasJobs);
    const points = hasJobs ? rates(live.points) : live.points;
    for (const node of plots) if (!node.hidden) node.show(points, now());
    if (store) {
      queues.show(store);
      workers.show(store);
      failures.show(store);
      schedules.show(store);
    }
    tasks.show();
  }
  return {el, show, title: "Overview"};
}

const per = count => count / 5;

function figureRow() {
  const figure = (name, href, status) => {
    const value = h("b");
    const node = h("a", {href, class: "figure", "data-status": status}, h("span", null, status ? mark(status) : name), value);
    return Object.assign(node, {value});
  };
  const jobs = STATUSES.map(status => figure(status, `#/jobs?status=${status}`, status));
  const tasks = figure("tasks here", "#/tasks"), calls = figure("requests here", "#/shutdown");
  const el = h("nav", {class: "figures", "aria-label": "Counts"}, jobs, tasks, calls);
  el.show = (store, hasJobs) => {
    jobs.forEach((node, i) => {
      const count = store?.jobs[STATUSES[i]] ?? 0;
      node.hidden = !hasJobs;
      if (store) say(node.value, number(count));
      attr(node, "data-zero", count === 0);
    });
    const stats = live.tasks?.stats;
    if (stats) {
      say(tasks.value, number(stats.running + stats.pending));
      say(calls.value, number(stats.calls));
    }
  };
  return el;
}

function queuePanel() {
  const body = h("tbody");
  const none = empty("Nothing was submitted yet", "A job appears here with its first submission:", h("pre", null, 'await task.submit(…)'));
  const grid = table([["Queue"], [h("span", {class: "hidden"}, "Shares"), "bar"], ["Running", "n"], ["Waiting", "n"], ["Failed", "n"]], body);
  const node = panel("Queues", grid, none);
  const make = ([name]) => {
    const parts = ["running", "queued", "failed"].map(kind => h("i", {class: kind}));
    const cells = [0, 1, 2].map(() => h("td", {class: "n"}));
    const row = h("tr", null, h("td", null, h("a", {href: `#/jobs?queue=${encodeURIComponent(name)}`}, name)),
      h("td", {class: "bar"}, h("span", {class: "share", "aria-hidden": "true"}, parts)), cells);
    row.show = ([, counts]) => {
      const sums = [counts.running ?? 0, (counts.queued ?? 0) + (counts.scheduled ?? 0) + (counts.waiting ?? 0), counts.failed ?? 0];
      const all = sums[0] + sums[1] + sums[2];
      sums.forEach((sum, i) => {
        say(cells[i], number(sum));
        attr(cells[i], "data-zero", sum === 0);
        place(parts[i], "width", all ? sum / all : 0);
      });
      attr(cells[2], "data-status", sums[2] > 0 && "failed");
    };
    return row;
  };
  node.show = store => {
    const queues = Object.entries(store.queues).sort(([a], [b]) => a < b ? -1 : 1);
    none.hidden = queues.length > 0;
    grid.hidden = !queues.length;
    list(body, queues.slice(0, 50), ([name]) => name, make);
    say(node.note, queues.length > 50 ? `the first 50 of ${queues.length}` : "");
  };
  return node;
}

function workerPanel() {
  const body = h("ul", {class: "rows"});
  const none = empty("No worker", "Jobs wait until one is there. In this process: async with jobs.worker(); beside it:",
    h("pre", null, "lastcall worker app:jobs"));
  const node = panel("Workers", body, none);
  const make = worker => {
    const busy = h("span", {class: "n"}), age = h("span", {class: "n soft"}), lease = h("i");
    const bar = h("span", {class: "lease", role: "meter", "aria-label": "what is left of the lease", "aria-valuemin": 0, "aria-valuemax": worker.lease_seconds}, lease);
    const row = h("li", {title: worker.id}, h("span", {class: "name"}, `${worker.host} `, h("span", {class: "soft"}, `pid ${worker.pid}`),
      worker.is_here && h("em", null, "this process")), busy, bar, age);
    row.show = ({renewed_at, lease_seconds, running, concurrency}) => {
      const left = lease_seconds - (now() - renewed_at);
      say(busy, `${number(running)} of ${number(concurrency)} busy`);
      say(age, left < 0 ? `lease over for ${rough(-left)}` : `lease ${rough(left)}`);
      place(lease, "width", left / lease_seconds);
      attr(bar, "aria-valuenow", Math.max(0, Math.round(left)));
      attr(row, "data-health", left < 0 ? "lost" : left < lease_seconds / 3 ? "late" : "good");
    };
    return row;
  };
  node.show = store => {
    none.hidden = store.workers.length > 0;
    list(body, store.workers.slice(0, 30), worker => worker.id, make);
    say(node.note, store.workers.length ? plural(store.workers.length, "worker") : "");
  };
  return node;
}

/** The newest jobs that failed, asked for when there is another one. */
function failurePanel() {
  const body = h("ul", {class: "rows short"});
  const none = empty("Nothing has failed", "A job that fails for good is listed here with its error, and can be retried from its page.");
  const node = panel("Failed last", body, none);
  let known = null, askedAt = 0;
  const make = job => h("li", null, h("span", {class: "name"}, h("a", {href: `#/jobs/${job.id}`}, job.task), h("span", {class: "mono soft"}, ` ${short(job.id)}`)),
    h("span", {class: "n soft"}, clock(job.ended_at)), h("span", {class: "what name"}, job.error ? fault(job.error).slice(0, 160) : ""));
  node.show = async store => {
    const count = store.jobs.failed ?? 0;
    none.hidden = count > 0;
    say(node.note, count > 5 ? `5 of ${number(count)}` : "");
    if (count === known || Date.now() - askedAt < 1000) return;
    known = count;
    askedAt = Date.now();
    // In a drain a server may take no new connections: what was there stays, and it is asked again.
    const told = count ? await ask("jobs?status=failed&limit=5&args=no").catch(() => null) : {jobs: []};
    if (told) list(body, told.jobs, job => job.id, make);
    else known = null;
  };
  return node;
}

// Of the last look at the schedules: it stays for the pages that are opened when nobody can be asked.
let known = "", told = [];

function schedulePanel() {
  const body = h("ul", {class: "rows"});
  const none = empty("No schedule", 'One is declared with its task: @jobs.task(cron="*/5 * * * *")');
  const node = panel("Schedules", body, none);
  const make = ({name}) => {
    const when = h("span", {class: "n soft"}), cron = h("span", {class: "mono soft"});
    const run = command("Run now", {path: `schedules/${encodeURIComponent(name)}/run`, question: () => `Run ${name} now?`,
      detail: "One job more, at once. The schedule stays as it is."});
    const row = h("li", null, h("span", {class: "name"}, name, " ", cron), when, run);
    row.show = ({cron: line, last_tick, next_tick, declared}) => {
      say(cron, line ?? "");
      say(when, next_tick ? `next in ${span(next_tick - now())}` : last_tick ? `last ${ago(now() - last_tick)}` : "");
      run.hidden = readOnly() || !declared;
    };
    return row;
  };
  node.show = async store => {
    // Its cron line and its next time are known where it is declared; they change with a tick.
    const ticks = JSON.stringify(store.schedules) + live.meta?.pid;
    if (ticks !== known) {
      known = ticks;
      if (!told.length) told = store.schedules;
      told = (await ask("schedules").catch(() => ({schedules: told}))).schedules;
    }
    none.hidden = told.length > 0;
    list(body, told.slice(0, 30), schedule => schedule.name, make);
  };
  return node;
}

function taskPanel() {
  const body = h("tbody");
  const none = empty("No task runs here", "Work of this process appears with its name: manager.create_task(coro, name=…)");
  const grid = table(TASK_COLUMNS, body);
  const more = h("a", {href: "#/tasks", class: "more"}, "All tasks");
  const node = panel("Tasks in this process", grid, none, more);
  node.show = () => {
    const tasks = (live.tasks?.tasks ?? []).slice(0, 8);
    none.hidden = tasks.length > 0;
    grid.hidden = !tasks.length;
    list(body, tasks, task => task.id, taskRow);
    const stats = live.tasks?.stats;
    say(node.note, stats ? `${number(stats.running + stats.pending)} now, ${number(stats.completed)} completed, ${number(stats.failed)} failed` : "");
  };
  return node;
}
