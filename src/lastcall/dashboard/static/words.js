// Numbers, times and ids as people read them. Pure.

const whole = new Intl.NumberFormat("en", {maximumFractionDigits: 0});

/** 12 345, with thin spaces. */
export const number = value => whole.format(value ?? 0).replaceAll(",", "\u2009");

/** 3.4 kB. */
export function bytes(count) {
  const power = Math.min(4, Math.max(0, Math.floor(Math.log10(Math.max(1, count)) / 3)));
  const value = count / 1000 ** power;
  return `${value < 9.95 && power ? value.toFixed(1) : Math.round(value)} ${["B", "kB", "MB", "GB", "TB"][power]}`;
}

/** A duration: 3 ms, 4.2 s, 3 m 05 s, 2 h 10 m, 4 d. */
export function span(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  const s = Math.max(0, seconds);
  if (s < 0.00005) return "0 ms";
  if (s < 0.9995) return `${s < 0.00995 ? (1000 * s).toFixed(1) : Math.round(1000 * s)} ms`;
  if (s < 59.95) return `${s.toFixed(1)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} m ${pad(Math.floor(s % 60))} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${pad(Math.floor(s / 60) % 60)} m`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
}

/** The same in steps that do not flicker in a list. */
export const rough = seconds => seconds >= 1 && seconds < 60 ? `${Math.floor(seconds)} s` : span(seconds);

export const ago = seconds => seconds < 1 ? "now" : `${rough(seconds)} ago`;

/** A point in time: the clock, and the day where it is another one. */
export function clock(at) {
  if (!at) return "–";
  const when = new Date(1000 * at);
  const time = `${pad(when.getHours())}:${pad(when.getMinutes())}:${pad(when.getSeconds())}`;
  const today = when.toDateString() === new Date().toDateString();
  return today ? time : `${when.getFullYear()}-${pad(when.getMonth() + 1)}-${pad(when.getDate())} ${time}`;
}

/** The end of an id: ids of one moment begin alike. */
export const short = id => id ? String(id).slice(-8) : "–";

export const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;

/** JSON to be read; what is enormous is cut, and says so. */
export function pretty(value, most = 40000) {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2) ?? "–";
  return text.length <= most ? text : `${text.slice(0, most)}\n… ${number(text.length - most)} characters more`;
}

/** An error in one line. A hook of the app's may have put anything in its place. */
export const fault = error => error && typeof error === "object" && "type" in error ? `${error.type}: ${error.message}` : pretty(error, 500);

/** How far a job is: a share where it told one, and words. A job may tell anything. */
export function progress(told) {
  if (told === null || told === undefined) return {share: null, words: ""};
  if (typeof told !== "object" || typeof told.done !== "number") return {share: null, words: pretty(told, 200)};
  const share = typeof told.of === "number" && told.of > 0 ? told.done / told.of : null;
  return {share, words: `${number(told.done)}${share === null ? "" : ` of ${number(told.of)}`} ${told.message ?? ""}`.trim()};
}

const pad = value => String(value).padStart(2, "0");
