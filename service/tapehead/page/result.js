// One answer on the page: its pictures, what of it to see, the verdict, the numbers, the timing, and the code for it.

import { curl, fileName, fits, python } from "./code.js";
import { download, fill, make } from "./elements.js";
import { panelsOf, pickable, samplesOf, scalarsOf } from "./gallery.js";
import { choosable, fates, inWords, short, told } from "./panels.js";
import { plot, purge, save } from "./plots.js";
import { writeNpy } from "./readers.js";
import { csvOf, tableOf } from "./table.js";
import { factsOf, verdictOf } from "./verdict.js";

/**
 * A result: {question, metadata, body, answer}, shown by `element`. `onview` is called when something else of it is to
 * be seen, `onkeep` and `onclose` by its buttons.
 */
export class Result {
  constructor(given, { onview, onkeep, onclose, onlink, locked }) {
    Object.assign(this, given, { locked });
    this.question.view ??= {};
    this.pictures = make("div", { class: "pictures" });
    this.controls = make("div", { class: "controls" });
    this.onview = onview;
    const buttons = make("div", { class: "buttons" },
      (this.keepButton = make("button", { type: "button", "aria-pressed": "false", onclick: () => onkeep(this) }, "Keep to compare")),
      make("button", { type: "button", onclick: () => onlink() }, "Copy link"),
      make("button", { type: "button", class: "plain", "aria-label": `Close ${titleOf(this.question)}`, onclick: () => onclose(this) }, "✕"));
    this.element = make("article", { class: "card result", "aria-label": titleOf(this.question) },
      make("header", {}, make("h3", {}, titleOf(this.question)), buttons),
      make("p", { class: "under" }, this.subtitle()),
      verdictOf(this.answer), this.controls, this.pictures, this.numbers(), this.timing(), this.code());
    this.panels = this.choose();
  }

  /** Marks it as kept for comparison. */
  set kept(kept) {
    this.keepButton.setAttribute("aria-pressed", kept);
    fill(this.keepButton, kept ? "Kept" : "Keep to compare");
  }

  /** Reads the panels anew, as the view now says. */
  choose() {
    const { operation, parameters, view } = this.question;
    this.panels = panelsOf(this.answer, { operation, ...parameters }, view);
    return this.panels;
  }

  /** Draws the panels; `limits` gives each the reach of its colours, where it shares them. */
  async draw(limits = []) {
    this.drop();
    fill(this.controls, this.choices());
    const figures = this.panels.map((panel, n) => this.figure(panel, limits[n]));
    fill(this.pictures, figures.map(({ element }) => element));
    await Promise.all(figures.map(({ drawn }) => drawn()));
  }

  /** Frees the pictures. */
  drop() {
    this.pictures.querySelectorAll(".plot").forEach(purge);
  }

  figure(panel, limits) {
    const file = `${this.question.model}-${this.question.operation}-${panel.title}`.replaceAll(/[^\w.-]+/g, "_").slice(0, 80);
    const plain = panel.kind === "number";
    const host = plain ? make("p", { class: "big" }, short(panel.value)) : make("div", { class: "plot", role: "img", "aria-label": told(panel) });
    const details = make("details", { ontoggle: (event) => event.target.open && event.target.children.length === 1 && event.target.append(tableOf(panel)) },
      make("summary", {}, "Numbers of this picture"));
    const name = { "aria-label": (kind) => `Save ${panel.title} as ${kind}` };
    const button = (kind, work) => make("button", { type: "button", class: "small", "aria-label": name["aria-label"](kind), onclick: work }, kind);
    const saves = make("div", { class: "saves" }, !plain && button("PNG", () => save(host, file, "png")), !plain && button("SVG", () => save(host, file, "svg")),
      button("CSV", () => download(`${file}.csv`, csvOf(panel), "text/csv")));
    const fixed = panel.fixed?.length ? ` at ${panel.fixed.join(", ")}` : "";
    const means = !plain && panel.quantity !== panel.title && make("p", { class: "quantity" }, `${panel.kind === "heat" ? "Colour" : "Height"}: ${panel.quantity}${emptied(panel)}`);
    const element = make("figure", {}, make("figcaption", {}, make("span", {}, `${panel.title}${fixed}`), saves), means, host, details);
    const drawn = async () => {
      if (plain) return;
      try {
        await plot(host, panel, limits, file);
      } catch (error) {
        host.replaceWith(make("p", { class: "notice" }, error.message));
        details.open = true;
      }
    };
    return { element, drawn };
  }

  /** What of the answer can be chosen to be seen: sample, tensor, layer, axes, scale. */
  choices() {
    const { operation, parameters, view } = this.question;
    const [samples, names] = [samplesOf(this.answer), pickable(this.answer, { operation, ...parameters })];
    const layers = operation === "diagnose" ? Object.keys(this.answer.meta.verdict ?? {}) : [];
    const tensor = view.tensor ?? (names.length ? null : Object.keys(this.answer.tensors).find((name) => this.answer.axes[name]?.some((axis) => axis !== "batch")));
    const special = operation === "weight_gradients" || operation === "diagnose";
    return [
      samples > 1 && this.number("sample", view.sample ?? 0, samples - 1, (sample) => ({ sample })),
      names.length > 1 && this.select("tensor", view.tensor ?? "", [["", "all"], ...names.map((one) => [one, one])], (one) => ({ tensor: one || undefined, axes: undefined })),
      layers.length > 1 && this.select("layer", view.layer ?? "", [["", "all"], ...layers.map((one) => [one, one])], (one) => ({ layer: one || undefined })),
      tensor && !special && this.axes(tensor),
      this.select("scale", String(view.log ?? ""), [["", "as it suits"], ["true", "logarithmic"], ["false", "linear"]], (one) => ({ log: one ? one === "true" : undefined })),
    ].flat();
  }

  /** For each axis of a tensor with more than two: shown, its norm, or one entry of it. */
  axes(name) {
    const [tensor, axes, { parameters, view }] = [this.answer.tensors[name], this.answer.axes[name], this.question];
    const open = choosable(tensor, axes);
    if (open.length < 2) return [];
    const fate = fates(tensor, axes, view.axes ?? {});
    const sides = { of: parameters.of, wrt: parameters.wrt };
    return open.flatMap(({ name: axis, size }) => {
      const now = fate[axis];
      const kind = typeof now === "number" ? "one" : now;
      const words = inWords(axis, { sides: typeof sides.of === "string" && typeof sides.wrt === "string" ? sides : {} });
      const set = (to) => ({ axes: { ...view.axes, [axis]: to } });
      return [
        this.select(words, kind, [["shown", "shown"], ["norm", "norm over"], ["one", "only one"]], (one) => set(one === "one" ? 0 : one)),
        kind === "one" && this.number(`${words}, which`, now, size - 1, set),
      ];
    });
  }

  select(label, value, options, change) {
    const input = make("select", { "aria-label": label, onchange: () => this.see(change(input.value)) }, options.map(([own, text]) => make("option", { value: own, selected: own === value }, text)));
    return make("label", { class: "control" }, make("span", {}, label), input);
  }

  number(label, value, most, change) {
    const input = make("input", { type: "number", "aria-label": label, min: 0, max: most, step: 1, value, onchange: () => this.see(change(Math.min(most, Math.max(0, Math.round(Number(input.value) || 0))))) });
    return make("label", { class: "control" }, make("span", {}, `${label} (0–${most})`), input);
  }

  see(change) {
    const focused = [...this.controls.querySelectorAll("select, input")].indexOf(document.activeElement);
    Object.assign(this.question.view, change);
    this.choose();
    this.onview(this);
    this.controls.querySelectorAll("select, input")[focused]?.focus();
  }

  subtitle() {
    const { model, version } = this.answer.model;
    const said = Object.entries(this.question.parameters).filter(([name]) => !["of", "wrt", "target", "points", "layer"].includes(name)).map(([name, value]) => `${name.replaceAll("_", " ")} ${Array.isArray(value) && value.every((one) => typeof one === "string") ? value.join(", ") : typeof value === "object" ? "given" : value}`);
    return [`${this.answer.model.name ?? model}, version ${version}`, this.question.input.file ?? this.question.input.source, ...said].join(" · ");
  }

  numbers() {
    const scalars = scalarsOf(this.answer, 0);
    const facts = Object.entries(this.answer.meta).filter(([name, value]) => ["number", "string", "boolean"].includes(typeof value) && name !== "padding");
    const tensors = Object.entries(this.answer.tensors).map(([name, tensor]) => make("tr", {},
      make("th", { scope: "row" }, name), make("td", {}, (this.answer.axes[name] ?? []).join(", ")), make("td", {}, tensor.shape.join(" × ")),
      make("td", {}, make("button", { type: "button", class: "small", "aria-label": `Download ${name} as .npy`, onclick: () => download(fileName(name), writeNpy(tensor), "application/octet-stream") }, ".npy"))));
    return make("details", { class: "part" }, make("summary", {}, "Numbers"),
      factsOf([...(scalars.length < 12 ? scalars : []), ...facts]),
      make("div", { class: "scroll" }, make("table", {}, make("caption", { class: "hidden" }, "Tensors of the answer"),
        make("thead", {}, make("tr", {}, ["tensor", "axes", "shape", "file"].map((name) => make("th", { scope: "col" }, name)))), make("tbody", {}, tensors))));
  }

  timing() {
    const stages = Object.entries(this.answer.meta.timings ?? {});
    const total = this.answer.seconds;
    const rows = [...stages.map(([stage, seconds]) => [stage, `${(1e3 * seconds).toFixed(2)} ms`]), ["here, from question to answer", `${(1e3 * total).toFixed(1)} ms`]];
    const compute = this.answer.meta.timings?.compute;
    return make("details", { class: "part" }, make("summary", {}, "Timing", make("span", { class: "aside" }, `${(1e3 * total).toFixed(0)} ms${compute ? `, ${(1e3 * compute).toFixed(1)} of them computing` : ""}`)), factsOf(rows));
  }

  code() {
    const files = fits(this.question) ? null : make("p", { class: "note" }, "The inputs are too many to stand in the code: ",
      Object.entries(this.question.input.inputs).map(([name, tensor]) => make("button", { type: "button", class: "small", onclick: () => download(fileName(name), writeNpy(tensor), "application/octet-stream") }, fileName(name))),
      " ", make("button", { type: "button", class: "small", onclick: () => download("request.json", this.body, "application/json") }, "request.json"));
    return make("details", { class: "part" }, make("summary", {}, "The same in Python and with curl"), files,
      listing("Python", python(this.question, this.metadata, this.locked)), listing("curl", curl(this.question, this.body, this.locked)));
  }
}

/** The question in a line: `jacobian of lstm.h[-1] wrt inputs`. */
export function titleOf({ operation, parameters }) {
  const listed = (name) => [parameters[name]].flat().join(", ");
  const of = ["of", "target", "points", "layer"].find((name) => parameters[name]?.length);
  const wrt = parameters.wrt?.length ? ` wrt ${listed("wrt")}` : "";
  return `${operation.replaceAll("_", " ")}${of ? ` of ${listed(of)}` : ""}${wrt}`;
}

/** What a blank stands for on a logarithmic scale, where there is one. */
function emptied({ kind, log, signed, values, series = [] }) {
  const numbers = kind === "heat" ? values.values : (series[0]?.values ?? []);
  return log && !signed && numbers.some((value) => value === 0) ? "; logarithmic, blank where it is zero" : log ? "; logarithmic" : "";
}

function listing(language, text) {
  const shown = make("pre", { tabindex: 0, "aria-label": `${language} code` }, make("code", {}, text));
  const copy = make("button", { type: "button", class: "small", onclick: () => copied(text, copy) }, `Copy ${language}`);
  return make("div", { class: `listing ${language.toLowerCase()}` }, copy, shown);
}

/** Puts text on the clipboard, and says so on the button. */
export async function copied(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    fill(button, "Copied");
  } catch {
    fill(button, "Copying is not allowed here");
  }
  setTimeout(() => fill(button, before), 2000);
}
