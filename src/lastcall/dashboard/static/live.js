// What the page knows of its process, kept up to date by PREFIX/live; and the one way to ask and to act.

import {Feed} from "./feed.js";

/**
 * `link`: connecting, live, lost (it comes back by itself), refused; `connection` counts. `heardAt`: when something last came.
 * The rest are the newest words of the server, each null until it has come.
 */
export const live = {
  link: "connecting", connection: 0, heardAt: 0, retryAt: 0, why: "",
  meta: null, overview: null, tasks: null, shutdown: null, points: [], reports: [],
};

const RING = 120, REPORTS = 20;
const listeners = new Set();
let skew = 0, planned = false, feed = null;

/** Call `listener` after each change, at most once a frame; gives what ends it. */
export function onChange(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** The server's clock. */
export const now = () => Date.now() / 1000 + skew;

export const readOnly = () => live.meta?.read_only !== false;

function changed() {
  if (planned) return;
  planned = true;
  const tell = () => {
    if (!planned) return;
    planned = false;
    for (const listener of listeners) listener();
  };
  requestAnimationFrame(tell);
  setTimeout(tell, 250); // a tab in the background is given no frames
}

const TOLD = {
  meta(data) {
    if (live.meta && live.meta.pid !== data.pid) live.points = [];
    live.meta = data;
    skew = data.now - Date.now() / 1000;
  },
  overview(data) {
    live.overview = data;
    if (data.now) skew = data.now - Date.now() / 1000;
  },
  tasks(data) { live.tasks = data; },
  shutdown(data) { live.shutdown = data; },
  history(data) {
    const points = new Map([...live.points, ...data.points].map(point => [point.at, point]));
    live.points = [...points.values()].sort((a, b) => a.at - b.at).slice(-RING);
  },
  report(data) {
    live.shutdown = data;
    if (data.report) keep([{...data.report, host: data.host, pid: data.pid}]);
  },
};

export const keyOf = report => report.name + report.started_at;

/** Reports of what this page has seen end, of what the process itself knows, and of what stands in the store; newest first. */
function keep(reports, stored = false) {
  const known = new Map(live.reports.map(report => [keyOf(report), report]));
  for (const report of reports) {
    const before = known.get(keyOf(report));
    // One in the store was written before everything was closed: the one of the process itself is whole.
    known.set(keyOf(report), stored ? {...report, ...before} : {...before, ...report, is_complete: true});
  }
  live.reports = [...known.values()].sort((a, b) => b.started_at - a.started_at).slice(0, REPORTS);
  changed();
}

/** Ask who is at the bar: while the process is open, nothing tells that by itself. */
export function look() {
  ask("shutdown").then(told => {
    keep(told.reports ?? []);
    if (live.shutdown?.state === "open" && told.state === "open") live.shutdown = told;
  }, () => {});
}

/** Ask for the last shutdowns of all processes on the store. */
export function recall() {
  if (live.meta?.has_jobs) ask(`shutdowns?limit=${REPORTS}`).then(told => keep(told.shutdowns.map(({report, ...past}) => ({...report, ...past})), true), () => {});
}

export function connect() {
  feed = new Feed(() => "live", {
    open() {
      Object.assign(live, {link: "live", heardAt: Date.now(), why: "", connection: live.connection + 1});
      changed();
    },
    event(type, data) {
      live.heardAt = Date.now();
      TOLD[type]?.(JSON.parse(data));
      changed();
    },
    lost(milliseconds) {
      Object.assign(live, {link: "lost", retryAt: Date.now() + milliseconds});
      changed();
    },
    refused(status, problem) {
      const final = status === 401 || status === 403 || status === 404;
      Object.assign(live, {link: final ? "refused" : "lost", why: problem.detail ?? `the server answered ${status}`});
      changed();
      return !final;
    },
  });
  addEventListener("online", () => feed.hurry());
  document.addEventListener("visibilitychange", () => document.hidden || feed.hurry());
}

export const disconnect = () => feed?.close();

/** GET below the prefix, as JSON. Throws a `Refused` with the server's own words. */
export const ask = (path, signal) => call("GET", path, undefined, signal);

/** Any other method. A body makes the request one that no foreign page can send. */
export const act = (method, path, body) => call(method, path, JSON.stringify(body ?? {}));

class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

// The last answer that had a tag: a job that has not changed, with a result of megabytes perhaps, is not sent again.
let tagged = {};

async function call(method, path, body, signal) {
  let response;
  try {
    const headers = body === undefined ? {} : {"Content-Type": "application/json"};
    if (method === "GET" && tagged.path === path) headers["If-None-Match"] = tagged.tag;
    response = await fetch(path, {method, body, signal, headers, cache: "no-store"});
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const doubt = method === "GET" ? "" : " Whether it still did this is not known.";
    const closing = live.link === "live" && live.shutdown && live.shutdown.state !== "open";
    throw new Refused(0, `${closing ? "The process is on its way out, and its server takes no new connections." : "The server cannot be reached."}${doubt}`);
  }
  if (response.status === 304) return tagged.content;
  const content = await response.json().catch(() => ({}));
  if (response.ok && response.headers.has("ETag")) tagged = {path, tag: response.headers.get("ETag"), content};
  if (!response.ok) throw new Refused(response.status, content.detail ?? `the server answered ${response.status}`);
  return content;
}
