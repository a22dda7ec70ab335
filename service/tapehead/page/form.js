// The form of an operation, made from its parameters; what is typed into it becomes the fields of a request.

import { fill, make } from "./elements.js";
import { several } from "./points.js";

const RARE = new Set(["precision", "n_steps", "baseline", "thresholds", "exponents", "transient", "steps"]);

/** Shows a field for each parameter; `values` fills them, `changed` is called when one is edited. */
export function showForm(host, parameters, values, changed) {
  const usual = parameters.filter((one) => !RARE.has(one.name));
  const rare = parameters.filter((one) => RARE.has(one.name));
  const more = rare.length && make("details", { open: rare.some((one) => one.name in values) }, make("summary", {}, "More"),
    rare.map((one) => field(one, values[one.name], changed)));
  fill(host, usual.map((one) => field(one, values[one.name], changed)), more);
}

/** What the form says: {name: value}, those left alone not in it. Throws an Error that names a field it cannot read. */
export function readForm(host, parameters) {
  const values = {};
  for (const parameter of parameters) {
    const input = host.querySelector(`[name="${parameter.name}"]`);
    const value = input && READ[parameter.kind](input, parameter);
    if (value !== null && value !== undefined && JSON.stringify(value) !== JSON.stringify(parameter.initial)) {
      values[parameter.name] = value;
    }
  }
  return values;
}

/** Puts text into one field. */
export function setField(host, name, text) {
  const input = host.querySelector(`[name="${name}"]`);
  if (input) input.value = text;
}

function field(parameter, value, changed) {
  const id = `field-${parameter.name}`;
  const start = value ?? parameter.initial;
  const input = INPUT[parameter.kind](parameter, start, { id, name: parameter.name, oninput: changed, "aria-describedby": `${id}-doc` });
  const doc = make("small", { id: `${id}-doc` }, parameter.doc);
  const title = `${parameter.name.replaceAll("_", " ")}${parameter.required ? "" : " "}`;
  if (parameter.kind === "bool") return make("div", { class: "field" }, make("label", { class: "check" }, input, title), doc);
  if (parameter.kind === "choices") return make("fieldset", { class: "field" }, make("legend", {}, title), input, doc);
  return make("div", { class: "field" }, make("label", { for: id }, title), input, doc);
}

const line = { type: "text", spellcheck: "false", autocomplete: "off", autocapitalize: "off", class: "code" };

const INPUT = {
  point: ({ required }, value, own) => make("input", { ...own, ...line, list: "points", required, value: value ?? "" }),
  points: ({ required }, value, own) =>
    make("input", { ...own, ...line, list: "points", required, placeholder: "several: with ; between", value: [value ?? []].flat().join("; ") }),
  choice: ({ choices, initial }, value, own) =>
    make("select", own, initial === null && make("option", { value: "" }, "as the server chooses"),
      choices.map((one) => make("option", { value: one, selected: one === value }, one.replaceAll("_", " ")))),
  choices: ({ choices }, value, { name, oninput }) =>
    make("div", { name, class: "choices" }, choices.map((one) =>
      make("label", { class: "check" }, make("input", { type: "checkbox", value: one, checked: (value ?? []).includes(one), oninput }), one))),
  bool: (_, value, own) => make("input", { ...own, type: "checkbox", checked: Boolean(value) }),
  int: ({ least, most }, value, own) => make("input", { ...own, type: "number", step: 1, min: least, max: most, value: value ?? "" }),
  float: ({ least, most }, value, own) => make("input", { ...own, type: "number", step: "any", min: least, max: most, value: value ?? "" }),
  string: (_, value, own) => make("input", { ...own, ...line, value: value ?? "" }),
  json: ({ required }, value, own) =>
    make("textarea", { ...own, ...line, type: null, rows: 2, required, placeholder: "a name, a number, [lists] or {a map}", value: shown(value) }),
};

const READ = {
  point: (input) => input.value.trim() || null,
  points: (input, { initial }) => {
    const found = several(input.value);
    return found.length > 1 || Array.isArray(initial) ? found : (found[0] ?? null);
  },
  choice: (input) => input.value || null,
  choices: (input) => [...input.querySelectorAll("input:checked")].map((one) => one.value),
  bool: (input) => input.checked,
  int: (input) => (input.value === "" ? null : Number(input.value)),
  float: (input) => (input.value === "" ? null : Number(input.value)),
  string: (input) => input.value || null,
  json: (input, { name }) => {
    if (!input.value.trim()) return null;
    try {
      return JSON.parse(input.value);
    } catch {
      const text = input.value.trim();
      if (/^[A-Za-z_][\w.]*$/.test(text)) return text;
      throw new Error(`${name} cannot be read as JSON: write a number, lists such as [[1, 2]], or {"name": …}`);
    }
  },
};

function shown(value) {
  return value === null || value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value);
}
