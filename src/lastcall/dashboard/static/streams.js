// #/streams : the free-standing streams, by name; #/streams/NAME : one of them, with what is written as it comes.

import {empty, factList, h, list, mark, panel, plain, say, table} from "./dom.js";
import {Feed} from "./feed.js";
import {ask, live, now} from "./live.js";
import {Tape, tapePanel} from "./tape.js";
import {ago, bytes, clock, number, plural, rough} from "./words.js";

const PAGE = 50, AGAIN = 3000;
const READ_WHOLE = 1 << 20; // of a longer stream the end alone is followed, unless somebody wants all of it

const pathOf = name => `streams/${name.split("/").map(encodeURIComponent).join("/")}`;
const pageOf = name => `#/streams/${encodeURIComponent(name)}`;

const none = () => empty("No free-standing streams here", "This app serves none. Give it some, and clients can write and read them below the prefix:",
  h("pre", null, "install(app, manager, jobs=jobs, streams=jobs.streams)"));

export function streams(params, go) {
  const search = h("input", {type: "search", id: "search", value: params.get("prefix") ?? "", placeholder: "Beginning of a name", "aria-label": "Streams whose name begins with",
    autocomplete: "off", spellcheck: "false", enterkeyhint: "search"});
  const form = h("form", {role: "search", onsubmit(event) {
    event.preventDefault();
    go(search.value ? `#/streams?${new URLSearchParams({prefix: search.value})}` : "#/streams", {replace: true});
    cursors.length = 1;
    load();
  }}, search);
  const body = h("tbody"), note = h("span", {class: "note", role: "status"}), wrong = h("p", {class: "warning", role: "alert"});
  const nothing = empty("No stream", "A stream is here from the moment it was created, by PUT below the prefix or by the store: ", h("pre", null, "await jobs.streams.create(name)"));
  const unserved = none(), grid = table([["Stream"], ["State"], ["Entries", "n"], ["Size", "n side"], ["Last written", "n"]], body);
  const back = h("button", {type: "button", onclick: () => { cursors.pop(); load(); }}, "Back");
  const on = h("button", {type: "button", onclick: () => { if (next) { cursors.push(next); load(); } }}, "On");
  const el = h("div", null, h("div", {class: "title"}, h("h1", {tabindex: -1}, "Streams"), note), form, wrong,
    h("section", {class: "panel"}, grid, nothing, unserved), h("div", {class: "pager"}, back, on));
  const cursors = [null];
  let shown = [], next = null, loading = false, loadedAt = 0, aborter = new AbortController();

  async function load() {
    aborter.abort();
    const mine = aborter = new AbortController();
    loading = true;
    const query = new URLSearchParams({limit: PAGE});
    if (search.value) query.set("prefix", search.value);
    if (cursors.at(-1)) query.set("cursor", cursors.at(-1));
    try {
      ({items: shown, next} = await ask(`streams?${query}`, mine.signal));
      say(wrong, "");
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.status !== 404) say(wrong, error.message);
    }
    loading = false;
    loadedAt = Date.now();
    draw();
  }

  function draw() {
    const served = live.meta?.has_streams !== false;
    list(body, shown, stream => stream.name, streamRow);
    form.hidden = !served;
    unserved.hidden = served;
    grid.hidden = !shown.length;
    nothing.hidden = !served || shown.length > 0 || !loadedAt;
    back.disabled = cursors.length < 2;
    on.disabled = !next;
    on.parentNode.hidden = back.disabled && on.disabled;
    say(note, shown.length ? plural(shown.length, "stream") + (next ? " of more" : "") : "");
  }

  return {el, title: "Streams", search, leave: () => aborter.abort(), show() {
    if (live.meta?.has_streams && live.link === "live" && !loading && Date.now() - loadedAt > AGAIN) load();
    else draw();
  }};
}

function streamRow({name}) {
  const state = mark(""), entries = h("td", {class: "n"}), size = h("td", {class: "n side"}), written = h("td", {class: "n soft"}), type = h("span", {class: "soft what"});
  const row = h("tr", null, h("td", {class: "wide"}, h("a", {href: pageOf(name)}, name), type), h("td", null, state), entries, size, written);
  row.show = told => {
    state.show(told.closed ? "closed" : "open");
    say(type, told.content_type);
    say(entries, number(told.entries));
    say(size, bytes(told.bytes));
    say(written, ago(now() - told.updated_at));
  };
  return row;
}

export function stream(name) {
  const state = mark(""), facts = factList(), gone = h("p", {class: "warning", role: "status"}), said = h("p", {class: "soft"});
  const tape = new Tape(), texts = tapePanel("Content", "live", "content"), all = h("button", {type: "button", hidden: true, onclick() { follow("-1"); }}, "Read it from the beginning");
  const el = h("div", null, h("p", {class: "crumb"}, h("a", {href: "#/streams", "data-back": ""}, "Streams")),
    h("div", {class: "title"}, h("h1", {tabindex: -1}, name), state), gone,
    h("div", {class: "job"}, h("div", {class: "aside"}, panel("Stream", facts)), h("div", {class: "body"}, h("div", {class: "along"}, said, all), texts)));
  let feed = null, offset = "-1", loading = false, loadedAt = 0, size = 0;

  function follow(from) {
    feed?.close();
    offset = from;
    tape.keep(() => false);
    tape.cut = false;
    size = 0;
    all.hidden = from === "-1";
    say(said, all.hidden ? "" : "It is long: only what is written from now on is shown.");
    feed = new Feed(() => `${pathOf(name)}?offset=${encodeURIComponent(offset)}&live=sse`, {
      open() {},
      event(type, text) {
        if (type === "control") {
          const told = JSON.parse(text);
          offset = told.streamNextOffset;
          tape.done = Boolean(told.streamClosed);
          if (tape.done) {
            state.show("closed");
            feed.close();
          }
        } else take(text);
      },
      lost() {},
      refused(status, problem) {
        const final = [400, 403, 404, 410].includes(status);
        if (final && status !== 404) say(gone, problem.detail ?? `the server answered ${status}`);
        return !final;
      },
    });
  }

  /** JSON comes as an array of entries, text as it is, anything else as base64, of which the length is enough. */
  function take(text) {
    if (facts.json) for (const entry of JSON.parse(text)) tape.add(`${plain(JSON.stringify(entry))}\n`);
    else if (facts.text) tape.add(text);
    else {
      size += Math.floor(text.length * 3 / 4);
      tape.keep(() => false);
      tape.add(`${bytes(size)} of ${facts.type}`);
    }
  }

  async function load() {
    loading = true;
    try {
      const [told] = (await ask(`streams?${new URLSearchParams({prefix: name, limit: 1})}`)).items;
      if (told?.name !== name) throw Object.assign(new Error("There is no such stream (any more)."), {status: 404});
      draw(told);
      if (!feed && told.url) follow(told.bytes > READ_WHOLE ? "now" : "-1");
    } catch (error) {
      if (error.status === undefined) throw error; // a fault of this page
      if (error.status === 404 || error.status === 422) {
        feed?.close();
        say(gone, error.message);
      }
    }
    loading = false;
    loadedAt = Date.now();
  }

  function draw(told) {
    const type = told.content_type.split(";")[0].trim().toLowerCase();
    Object.assign(facts, {type, json: type === "application/json", text: type.startsWith("text/")});
    state.show(told.closed ? "closed" : "open");
    if (!told.url) say(said, "Its name cannot be reached by a URL; its content is not shown here.");
    facts.show([
      ["Type", told.content_type], ["Entries", `${number(told.entries)}${told.first > 1 ? `, from ${number(told.first)} on` : ""}`], ["Written", bytes(told.bytes)],
      ["Created", `${clock(told.created_at)}, ${ago(now() - told.created_at)}`], ["Last written", `${clock(told.updated_at)}, ${ago(now() - told.updated_at)}`],
      ["Goes", told.expires_at && `in ${rough(Math.max(0, told.expires_at - now()))}, if nobody uses it`],
      ["Fork of", told.forked_from, {href: pageOf(told.forked_from ?? "")}], ["Of the fork", told.forked_from && plural(told.inherited, "first entry").replace("entrys", "entries")],
      ["Next offset", told.next_offset, {mono: true}],
    ]);
  }

  return {el, title: name, leave: () => feed?.close(), show() {
    texts.hidden = !feed;
    texts.show(tape);
    if (live.link === "live" && live.meta?.has_streams !== false && !loading && !gone.said && Date.now() - loadedAt > AGAIN) load();
    else if (live.meta?.has_streams === false) say(gone, "This app serves no free-standing streams.");
  }};
}
