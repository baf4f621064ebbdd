// The frame: which page is shown, the state of the connection, the keys.

import {attr, h, say} from "./dom.js";
import {notice} from "./dialog.js";
import {job} from "./job.js";
import {jobs} from "./jobs.js";
import {connect, disconnect, live, onChange, readOnly} from "./live.js";
import {overview} from "./overview.js";
import {draining, shutdown} from "./shutdown.js";
import {stream, streams} from "./streams.js";
import {task, tasks} from "./tasks.js";
import {number, rough} from "./words.js";

const $ = id => document.getElementById(id);
const main = $("main");
let page = null, trail = 0, heard = "";

/** The page of an address like `#/jobs?status=failed`. */
function open(address) {
  const [path, query] = address.replace(/^#/, "").split("?");
  const [, name, id] = path.split("/").map(word => { try { return decodeURIComponent(word); } catch { return word; } });
  const params = new URLSearchParams(query);
  switch (name) {
    case "jobs": return [name, id ? job(encodeURIComponent(id), go) : jobs(params, go)];
    case "tasks": return [name, id ? task(id) : tasks(params, go)];
    case "streams": return [name, id ? stream(id) : streams(params, go)];
    case "shutdown": return [name, shutdown()];
    default: return ["overview", overview()];
  }
}

function go(address, {replace} = {}) {
  if (replace) history.replaceState(null, "", address);
  else location.hash = address;
}

function route(first) {
  page?.leave?.();
  const [name, opened] = open(location.hash);
  page = opened;
  main.replaceChildren(page.el);
  for (const link of document.querySelectorAll("nav [data-page]")) attr(link, "aria-current", link.dataset.page === name && "page");
  document.title = `${page.title} · ${live.meta?.name ?? "lastcall"}`;
  page.show();
  if (first !== true) {
    trail += 1;
    scrollTo(0, 0);
    (page.el.querySelector("h1") ?? main).focus({preventScroll: true});
  }
}

// --- the state of the connection ---------------------------------------------------------------------------

function frame() {
  const {link, meta, shutdown: stand} = live;
  const going = link === "live" && draining(stand);
  const silent = (Date.now() - live.heardAt) / 1000;
  document.body.dataset.link = link;
  document.body.dataset.drain = going;
  $("link").dataset.link = going ? "drain" : link;
  // A status that is read out says what changed, and not each second of it.
  const words = going ? "Draining" : {connecting: "Connecting", live: "Live", lost: "Reconnecting", refused: "Not let in"}[link];
  say($("link"), words);
  say($("name"), meta?.name ?? "lastcall");
  say($("where"), meta ? `${meta.host} · pid ${meta.pid}${readOnly() ? " · read-only" : ""}` : "");
  $("streams").hidden = !meta?.has_streams;
  say($("version"), meta ? `lastcall ${meta.version}` : "");
  $("level").setAttribute("y", going ? (2 + 17 * (1 - (stand.remaining_seconds ?? 0) / (stand.plan.total || 1))).toFixed(2) : 5);
  const banner = $("banner");
  banner.hidden = link === "live" ? !going || page?.title === "Shutdown" : !live.heardAt && link !== "refused" && !live.why;
  banner.dataset.kind = going ? "drain" : "lost";
  if (going) {
    say(banner, `Last call: ${(stand.remaining_seconds ?? 0).toFixed(1)} s left, ${number(stand.busy)} still at the bar`);
  } else if (link === "refused") say(banner, live.why);
  else if (link !== "live") {
    const wait = Math.max(0, Math.ceil((live.retryAt - Date.now()) / 1000));
    say(banner, `${live.shutdown?.state === "closed" ? "This process has ended" : "The server does not answer"}. What you see is ${live.heardAt ? `${rough(Math.max(1, silent))} old` : "nothing yet"}; ${wait ? `trying again in ${wait} s` : "trying again now"}.`);
  }
  if (heard === "lost" && link === "live" && live.shutdown) notice(`Back: ${meta?.host ?? "the server"}, pid ${meta?.pid ?? "?"}`);
  heard = link === "live" && !live.shutdown ? heard : link;
}

function show() {
  frame();
  if (!document.hidden) page?.show(); // nobody looks: what asks by itself need not ask
}

// --- keys --------------------------------------------------------------------------------------------------

function move(step) {
  const links = [...main.querySelectorAll("tbody a, .rows a")];
  if (!links.length) return;
  const at = links.indexOf(document.activeElement);
  const next = links[Math.min(links.length - 1, Math.max(0, at < 0 ? (step > 0 ? 0 : links.length - 1) : at + step))];
  next.focus();
  next.scrollIntoView({block: "nearest"});
}

addEventListener("keydown", event => {
  const typing = event.target.closest?.("input, textarea, select");
  if (event.ctrlKey || event.metaKey || event.altKey || $("dialog").open) return;
  if (event.key === "Escape") {
    if (typing) typing.blur();
    else if (main.querySelector("[data-back]")) trail ? history.back() : go(main.querySelector("[data-back]").getAttribute("href"));
    else if (location.hash.length > 2) go("#/");
  } else if (typing) return;
  else if (event.key === "/") {
    event.preventDefault();
    if (!page.search) {
      go("#/jobs");
      addEventListener("hashchange", () => page.search?.focus(), {once: true});
    } else page.search.focus();
  } else if (event.key === "j" || event.key === "k") move(event.key === "j" ? 1 : -1);
});

// A row is as large as it looks: a click beside its link is a click on it.
main.addEventListener("click", event => {
  const row = event.target.closest("tbody tr");
  if (row && !event.target.closest("a, button") && !getSelection().toString()) row.querySelector("a")?.click();
});

$("skip").addEventListener("click", event => {
  event.preventDefault();
  main.focus();
});

addEventListener("hashchange", route);
document.addEventListener("visibilitychange", show);
onChange(show);
route(true);
connect();
// A page that is kept to be gone back to would keep its connections too, of which a browser has six for a server.
addEventListener("pagehide", () => { page?.leave?.(); disconnect(); });
addEventListener("pageshow", event => { if (event.persisted) location.reload(); });
setInterval(() => document.hidden || show(), 1000);
