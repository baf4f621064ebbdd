// Buttons that act: asked once more where something is destroyed, answered in words either way.

import {h, say} from "./dom.js";
import {act} from "./live.js";

let fading = 0;

/** Tell the person what became of it; also read out. */
export function notice(words, bad = false) {
  const node = document.getElementById("notice");
  node.hidden = false;
  node.dataset.bad = bad;
  say(node, words);
  clearTimeout(fading);
  fading = setTimeout(() => { node.hidden = true; }, bad ? 12000 : 5000);
}

/**
 * A button for one verb of the face: `path` and `method`, `body(values)` made of the `fields`.
 * With `question` it asks first; `fields` are [{name, label, value, rows}]. `done(answer)` comes after it was done.
 */
export function command(label, {danger, question, detail, fields = [], method = "POST", path, body, done}) {
  const run = async values => {
    const answer = await act(method, path, body?.(values));
    notice(`${label}: ${String(answer.answer ?? answer.state ?? "done").replaceAll("_", " ")}`);
    await done?.(answer);
  };
  return h("button", {type: "button", class: danger ? "danger" : null, async onclick() {
    if (question || fields.length) {
      open(label, {danger, question: question?.() ?? label, detail, fields, run});
      return;
    }
    this.disabled = true;
    await run({}).catch(error => notice(error.message, true));
    this.disabled = false;
  }}, label);
}

function open(label, {danger, question, detail, fields, run}) {
  const dialog = document.getElementById("dialog");
  const wrong = h("p", {class: "warning", role: "alert"});
  const inputs = fields.map(field => field.choices
    ? h("select", {name: field.name}, field.choices.map(([value, words]) => h("option", {value}, words)))
    : h(field.rows ? "textarea" : "input", {name: field.name, rows: field.rows, spellcheck: "false", autocomplete: "off"}));
  inputs.forEach((input, i) => { if (fields[i].value) input.value = fields[i].value; });
  const go = h("button", {class: danger ? "danger solid" : "solid"}, label);
  const stay = h("button", {type: "button", onclick: () => dialog.close()}, danger ? "Leave it" : "Not now");
  const form = h("form", {method: "dialog", async onsubmit(event) {
    event.preventDefault();
    go.disabled = true;
    say(wrong, "");
    try {
      await run(Object.fromEntries(inputs.map(input => [input.name, input.value])));
      dialog.close();
    } catch (error) {
      say(wrong, error.message);
    }
    go.disabled = false;
  }}, h("h2", {id: "question"}, question), detail && h("p", null, detail),
  fields.map((field, i) => h("label", null, field.label, inputs[i])), wrong, h("div", {class: "tools"}, stay, go));
  dialog.replaceChildren(form);
  dialog.showModal();
  (inputs[0] ?? (danger ? stay : go)).focus();
}

/** JSON as a person types it: what is no JSON is taken as a text. Nothing at all is null. */
export function value(text) {
  const trimmed = text.trim();
  if (!trimmed) return null;
  try {
    return JSON.parse(trimmed);
  } catch {
    return text;
  }
}
