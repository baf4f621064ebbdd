// Text that grows: the newest of it is kept, and the view stays at its end as long as the reader does.

import {h, panel, say} from "./dom.js";

const MOST = 400000;

/** `piece`s are {text, step}. What is taken back or cut is drawn anew, everything else is added. */
export class Tape {
  pieces = [];
  fresh = "";
  size = 0;
  done = false;
  cut = false;
  redraw = false;

  add(text, step = null) {
    this.done = false;
    this.pieces.push({text, step});
    this.fresh += text;
    this.size += text.length;
    while (this.size > MOST && this.pieces.length > 1) {
      this.size -= this.pieces.shift().text.length;
      this.cut = this.redraw = true;
    }
  }

  /** Keep those of which this is true. */
  keep(fits) {
    this.pieces = this.pieces.filter(fits);
    this.size = this.pieces.reduce((sum, piece) => sum + piece.text.length, 0);
    this.redraw = true;
  }
}

/** `open`: what is said while it may still grow. */
export function tapePanel(title, open = "being written", kind = "stream") {
  const text = document.createTextNode("");
  const pre = h("pre", {class: kind, tabindex: 0, role: "group", "aria-label": title}, text);
  const node = panel(title, pre);
  node.classList.add("streamed");
  node.show = tape => {
    const atEnd = pre.scrollTop + pre.clientHeight > pre.scrollHeight - 30;
    if (tape.redraw || !text.length) text.data = (tape.cut ? "… " : "") + tape.pieces.map(piece => piece.text).join("");
    else if (tape.fresh) text.appendData(tape.fresh);
    if (text.length > 2 * MOST) text.data = `… ${text.data.slice(-MOST)}`; // one piece alone may be longer than all
    tape.fresh = "";
    tape.redraw = false;
    node.dataset.open = !tape.done;
    say(node.note, tape.done ? "" : open);
    if (atEnd) pre.scrollTop = pre.scrollHeight;
  };
  return node;
}
