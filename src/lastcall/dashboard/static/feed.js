// Server-sent events, with what EventSource hides: the status of an answer, events of any type, silence.
// It comes back like one: with its Last-Event-ID, when the server said (`retry:`), and stops at 204.

const SILENCE = 35000; // the server says something every 15 s at least; a connection that does not is dead
const SLOWEST = 8000;

/**
 * Follow `address()` until `close()`. `told` hears:
 * `open()`, `event(type, text, id)`, `lost(milliseconds)` before each new attempt, `refused(status, problem)`: an answer
 * that is no stream; it gives true if it is worth coming back for.
 */
export class Feed {
  constructor(address, told) {
    Object.assign(this, {address, told, id: null, retry: 1500, closed: false, failures: 0});
    this.run();
  }

  close() {
    this.closed = true;
    this.abort?.abort();
    this.wake?.();
  }

  /** Try again at once. */
  hurry() {
    this.wake?.();
  }

  async run() {
    while (!this.closed) {
      const again = await this.once();
      if (this.closed || !again) return;
      const backoff = Math.min(SLOWEST, this.retry * 1.6 ** Math.max(0, this.failures - 1));
      const wait = backoff * (0.75 + 0.5 * Math.random());
      this.failures += 1;
      this.told.lost(wait);
      await new Promise(done => {
        this.wake = done;
        setTimeout(done, wait);
      });
    }
  }

  async once() {
    this.abort = new AbortController();
    this.heard();
    try {
      const headers = {Accept: "text/event-stream"};
      if (this.id !== null) headers["Last-Event-ID"] = this.id;
      const response = await fetch(this.address(), {headers, cache: "no-store", signal: this.abort.signal});
      if (response.status !== 200) {
        const problem = await response.json().catch(() => ({}));
        return !this.closed && this.told.refused(response.status, problem);
      }
      await this.read(response.body.pipeThrough(new TextDecoderStream()).getReader());
    } catch (error) {
      if (error instanceof SyntaxError) console.error(error);
    } finally {
      clearTimeout(this.watch);
      this.abort.abort();
    }
    return true;
  }

  async read(reader) {
    let rest = "", opened = false;
    for (;;) {
      const {done, value} = await reader.read();
      if (done || this.closed) return;
      this.heard();
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = this.parse(block);
        if (!event) continue;
        if (!opened) {
          opened = true;
          this.failures = 0;
          this.told.open();
        }
        this.told.event(event.type, event.data, event.id);
        if (this.closed) return;
      }
    }
  }

  parse(block) {
    let type = "message", data = null;
    for (const line of block.split("\n")) {
      const colon = line.indexOf(":");
      if (colon < 1) continue;
      const value = line.slice(colon + 1).replace(/^ /, "");
      switch (line.slice(0, colon)) {
        case "event": type = value; break;
        case "data": data = data === null ? value : `${data}\n${value}`; break;
        case "id": this.id = value; break;
        case "retry": if (/^\d+$/.test(value)) this.retry = Number(value); break;
      }
    }
    return data === null ? null : {type, data, id: this.id};
  }

  heard() {
    clearTimeout(this.watch);
    this.watch = setTimeout(() => this.abort.abort(), SILENCE);
  }
}
