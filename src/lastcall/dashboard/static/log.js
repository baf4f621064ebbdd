// A job's log as it comes: its streamed text, with what was taken back taken back, and its last events.

import {Feed} from "./feed.js";
import {empty, h, list, panel, say} from "./dom.js";
import {clock, number, progress} from "./words.js";

const KEPT = 200, MOST = 400000;

/**
 * Follow the log of a job. `hears(type, data)` is told of each event; `show()` draws what came since the last time.
 * The rule for the text is that of `lastcall.streams.TextView`.
 */
export function jobLog(id, hears) {
  const rows = h("ol", {class: "events"}), none = empty("No events yet", "What the job tells with ctx.progress, ctx.log, ctx.emit and ctx.stream appears here as it is written.");
  const events = panel("Events", rows, none), texts = h("div");
  const streams = new Map(); // name -> {pieces: [{step, text}], done, fresh: text not drawn yet, redraw}
  let kept = [], last = 0, count = 0, news = true, feed = follow();

  function follow() {
    return new Feed(() => `jobs/${id}/events?after=${last}`, {
      open() {},
      event(type, data) {
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
      const text = streams.get(stream) ?? streams.set(stream, {pieces: [], fresh: "", size: 0}).get(stream);
      text.done = false;
      text.pieces.push({step: entry.step, text: told.text});
      text.fresh += told.text;
      text.size += told.text.length;
      while (text.size > MOST && text.pieces.length > 1) {
        text.size -= text.pieces.shift().text.length;
        text.cut = text.redraw = true;
      }
    } else if (entry.type === "step.reset") {
      for (const text of streams.values()) {
        text.pieces = text.pieces.filter(piece => piece.step === null || piece.step !== told.step);
        text.redraw = true;
      }
    } else if (entry.type === "stream.reset" && streams.has(stream)) Object.assign(streams.get(stream), {pieces: [], size: 0, redraw: true});
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
    list(texts, [...streams], ([name]) => name, textPanel);
  }
  return {events, texts, show, close: () => feed.close(), resume() { if (feed.closed) feed = follow(); }};
}

function textPanel([name]) {
  const text = document.createTextNode("");
  const pre = h("pre", {class: "stream", tabindex: 0}, text);
  const node = panel(name, pre);
  node.classList.add("streamed");
  node.show = ([, told]) => {
    const atEnd = pre.scrollTop + pre.clientHeight > pre.scrollHeight - 30;
    if (told.redraw || !text.length) {
      text.data = (told.cut ? "… " : "") + told.pieces.map(piece => piece.text).join("");
      told.size = text.length;
    } else if (told.fresh) text.appendData(told.fresh);
    told.fresh = "";
    told.redraw = false;
    node.dataset.open = !told.done;
    say(node.note, told.done ? "" : "being written");
    if (atEnd) pre.scrollTop = pre.scrollHeight;
  };
  return node;
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
