// Elements, and lists that change in place. Text becomes text nodes and nothing else: there is no innerHTML in this page.

const SVG = "http://www.w3.org/2000/svg";

// What turns the direction of writing can make a name look like another one: it is shown as what it is.
const TURNS = /[\u202a-\u202e\u2066-\u2069]/g;
export const plain = words => String(words).replace(TURNS, mark => `\\u${mark.charCodeAt().toString(16)}`);

/** An element: `h("a", {href, class, onclick}, "text", child, [more])`. Null and false children are left out. */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function svg(tag, props, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  const there = children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== false);
  node.append(...there.map(child => child instanceof Node ? child : plain(child)));
  return node;
}

/** Set the text of a node, if it is another one: an untouched node costs the browser nothing. */
export function say(node, text) {
  const words = plain(text ?? "");
  if (node.said !== words) {
    node.said = words;
    node.textContent = words;
  }
}

export function attr(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** A length in percent, through the object model: the page's policy allows no style attributes. */
export function place(node, property, share) {
  const value = `${(100 * Math.min(1, Math.max(0, share || 0))).toFixed(2)}%`;
  if (node.style[property] !== value) node.style[property] = value;
}

/**
 * Make the children of `parent` those of `items`: by key, so that what stays keeps its focus and its selection.
 * `make(item)` gives a node with a method `show(item)`.
 */
export function list(parent, items, key, make) {
  const nodes = parent.nodes ??= new Map();
  const wanted = new Set(items.map(key));
  for (const [id, node] of nodes) {
    if (!wanted.has(id)) {
      node.remove();
      nodes.delete(id);
    }
  }
  let next = parent.firstElementChild;
  for (const item of items) {
    const id = key(item);
    let node = nodes.get(id);
    if (!node) nodes.set(id, node = make(item));
    node.show?.(item);
    if (node === next) next = next.nextElementSibling;
    else parent.insertBefore(node, next);
  }
}

/** What is known of one thing: `show([[name, words, {href, mono}]])`; where there are no words, there is no row. */
export function factList() {
  const node = h("dl", {class: "facts"});
  const make = ([name,, kind]) => {
    const words = kind?.href ? h("a", {href: kind.href}) : h("span");
    return Object.assign(h("div", null, h("dt", null, name), h("dd", {class: kind?.mono && "mono"}, words)), {show: ([, said]) => say(words, said)});
  };
  node.show = rows => list(node, rows.filter(([, words]) => words), ([name]) => name, make);
  return node;
}

/** A panel: a section with its heading, perhaps a note beside it, and what it holds. */
export function panel(title, ...children) {
  const note = h("span", {class: "note"});
  const head = h("h2", null, title);
  const node = h("section", {class: "panel"}, h("header", null, head, note), children);
  return Object.assign(node, {note, head});
}

/** What stands where there is nothing yet: says what is missing, and what to do about it. */
export function empty(title, ...words) {
  return h("div", {class: "empty"}, h("p", null, h("strong", null, title)), words.map(word =>
    word instanceof Node ? word : h("p", null, word)));
}

export function table(names, body) {
  return h("div", {class: "scroll"}, h("table", null,
    h("thead", null, h("tr", null, names.map(([name, kind]) => h("th", {scope: "col", class: kind}, name)))), body));
}

const OF_JOB = /^(.+) ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/s;

/** The id of the job that a task runs: such a task is called by the job's task and its id. */
export const jobOf = name => OF_JOB.exec(name)?.[2] ?? null;

/** The name of a task; of a job's id the end is enough. */
export function named(name) {
  const [, task, id] = OF_JOB.exec(name) ?? [null, name, null];
  return [h("bdi", null, task), id && h("span", {class: "mono soft"}, ` ${id.slice(-8)}`)];
}

/** A status in words and a mark of its own shape, so that colour is never the only sign. */
export function mark(status) {
  const word = h("span");
  const node = h("span", {class: "mark"}, h("i", {"aria-hidden": "true"}), word);
  node.show = now => {
    attr(node, "data-status", now);
    say(word, String(now ?? "").replaceAll("_", " "));
  };
  node.show(status);
  return node;
}
