// A job's log as it comes: its streamed text, with what was taken back taken back, and its last events.

import {Feed} from "./feed.js";
import {empty, h, list, panel, say} from "./dom.js";
import {Tape, tapePanel} from "./tape.js";
import {clock, number, progress} from "./words.js";

const KEPT = 200;

/**
 * Follow the log of a job. `hears(type, data)` is told of each event; `show()` draws what came since the last time.
 * The rule for the text is that of `lastcall.streams.TextView`.
 */
export function jobLog(id, hears) {
  const rows = h("ol", {class: "events", tabindex: 0, "aria-label": "Events"}), none = empty("No events", "What a job tells with ctx.progress, ctx.log, ctx.emit and ctx.stream appears here as it is written.");
  const events = panel("Events", rows, none), texts = h("div");
  const streams = new Map(); // tapes, by name
  let kept = [], last = 0, count = 0, news = true, feed = follow();

  function follow() {
    return new Feed(() => `jobs/${id}/events?after=${last}`, {
      open() {},
      event(type, told) {
        const data = JSON.parse(told);
        if (data.seq === undefined || data.seq === null) {
          if (type === "end") feed.close();
          hears(type, data);
        } else if (data.seq > last) {
          last = data.seq;
          take(data);
          hears(type, data);
        }
        news = true;
      },
      lost() {},
      refused(status, problem) {
        if (status === 410 && problem.first) {
          last = problem.first - 1;
          feed.id = String(last);
          return true;
        }
        const final = [204, 403, 404].includes(status);
        if (final) feed.close();
        hears("refused", {status});
        return !final;
      },
    });
  }

  function take(entry) {
    count += 1;
    const told = entry.data && typeof entry.data === "object" ? entry.data : {};
    const stream = typeof told.stream === "string" ? told.stream : null;
    if (entry.type === "stream.text" && stream !== null && typeof told.text === "string") {
      if (!streams.has(stream)) streams.set(stream, new Tape());
      streams.get(stream).add(told.text, entry.step);
    } else if (entry.type === "step.reset") {
      for (const tape of streams.values()) tape.keep(piece => piece.step === null || piece.step !== told.step);
    } else if (entry.type === "stream.reset" && streams.has(stream)) streams.get(stream).keep(() => false);
    else if (entry.type === "stream.end" && streams.has(stream)) streams.get(stream).done = true;

    const before = kept.at(-1);
    if (before && entry.type === "stream.text" && before.type === entry.type && before.data?.stream === stream) {
      before.times = (before.times ?? 1) + 1;
      before.upTo = entry.seq;
    } else kept.push(entry);
    if (kept.length > 2 * KEPT) kept = kept.slice(-KEPT);
  }

  function show() {
    if (!news) return;
    news = false;
    list(rows, kept.slice(-KEPT).reverse(), entry => entry.seq, eventRow);
    none.hidden = kept.length > 0;
    say(events.note, count > KEPT ? `the newest of ${number(count)}` : "");
    list(texts, [...streams], ([name]) => name, ([name]) => {
      const node = tapePanel(name), {show} = node;
      return Object.assign(node, {show: ([, tape]) => show(tape)});
    });
  }
  return {events, texts, show, close: () => feed.close(), resume() { if (feed.closed) feed = follow(); }};
}

function eventRow(entry) {
  const type = h("b"), what = h("span", {class: "what"});
  const row = h("li", null, h("span", {class: "n soft"}, entry.seq), h("time", {class: "n soft"}, clock(entry.at)), type, what);
  row.show = told => {
    say(type, told.times ? `${told.type} ×${number(told.times)}` : told.type);
    say(what, brief(told));
  };
  return row;
}

function brief({type, data, step}) {
  if (data === null || typeof data !== "object") return JSON.stringify(data) ?? "";
  switch (type) {
    case "status": return [data.status, data.reason].filter(Boolean).join(", ");
    case "step": return `${data.key} ${data.status}`;
    case "step.reset": return `${data.step} begins again`;
    case "log": return String(data.message);
    case "progress": return progress(data).words;
    case "stream.text": case "stream.end": case "stream.reset": return [data.stream, step].filter(Boolean).join(", in ");
    default: return JSON.stringify(data).slice(0, 500);
  }
}
