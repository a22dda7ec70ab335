// What an answer says in words: the verdict on each recurrent layer with its findings, and what there is to beware of.

import { make } from "./elements.js";
import { short } from "./panels.js";

const WORST = { error: "bad", severe: "bad", critical: "bad", high: "bad", warning: "warn", medium: "warn", info: "mild", low: "mild" };
const MARKS = { bad: "▲", warn: "▲", mild: "●", good: "✓" };

/** The verdict's panel; null where the answer has none and there is nothing to beware of. */
export function verdictOf({ meta }) {
  const layers = Object.entries(meta.verdict ?? {});
  const warnings = cautions(meta);
  if (!layers.length && !warnings.length) return null;
  return make("section", { class: "verdict", "aria-label": "Verdict" },
    layers.map(([layer, said]) => layerVerdict(layer, said, meta)),
    warnings.map((text) => make("p", { class: "finding warn" }, mark("warn"), make("span", {}, text))));
}

function layerVerdict(layer, said, { findings = [], numbers = {} }) {
  const own = findings.filter((one) => one.layer === layer || String(one.layer ?? "").startsWith(`${layer}.`));
  const words = [said].flat().map((one) => String(one).replaceAll("_", " ")).join(", ");
  const tone = /^healthy$|^well/.test(words) ? "good" : "bad";
  const facts = flattened(numbers[layer] ?? {});
  return make("div", { class: "layer-verdict" },
    make("h4", {}, make("code", {}, layer), " ", make("span", { class: `tone ${tone}` }, MARKS[tone], " ", words)),
    own.map(finding),
    facts.length > 0 && make("details", {}, make("summary", {}, "The numbers behind it"), factsOf(facts)));
}

function finding({ severity, kind, number, threshold, meaning, advice, source }) {
  const tone = WORST[severity] ?? "mild";
  const against = threshold === undefined || threshold === null ? "" : ` (threshold ${shown(threshold)})`;
  return make("div", { class: `finding ${tone}` }, mark(tone),
    make("div", {},
      make("strong", {}, String(kind ?? "").replaceAll("_", " ")), " ",
      number !== undefined && make("span", { class: "number" }, `${shown(number)}${against}`),
      make("span", { class: "hidden" }, ` severity ${severity}`),
      make("p", {}, meaning), advice && make("p", { class: "advice" }, advice), source && make("small", {}, source)));
}

/** What there is to beware of in any answer. */
function cautions(meta) {
  const lost = meta.disconnected ?? [];
  return [
    meta.finite === false && "Some numbers of this answer are not finite.",
    lost.length > 0 && `The loss does not reach ${lost.join(", ")}: their gradients do not exist.`,
  ].filter(Boolean);
}

/** Numbers within numbers as pairs of a name and what is said of it; those with confidence stay together. */
function flattened(numbers, before = "") {
  return Object.entries(numbers).flatMap(([name, value]) => {
    const plain = typeof value !== "object" || value === null || Array.isArray(value) || "value" in value;
    return plain ? [[`${before}${name}`, value]] : flattened(value, `${before}${name} `);
  });
}

/** Names and values in two columns. */
export function factsOf(pairs) {
  return make("dl", { class: "facts" }, pairs.flatMap(([name, value]) => [make("dt", {}, name.replaceAll("_", " ")), make("dd", {}, shown(value))]));
}

const mark = (tone) => make("span", { class: "mark", "aria-hidden": "true" }, MARKS[tone]);

function shown(value) {
  if (typeof value === "number") return short(value);
  if (Array.isArray(value)) return value.length > 12 ? `${value.slice(0, 12).map(shown).join(", ")} …` : value.map(shown).join(", ");
  if (value === null) return "none";
  if (typeof value !== "object") return String(value);
  const { value: middle, low, high } = value;
  return `${shown(middle)}${typeof low === "number" ? ` (${shown(low)} to ${shown(high)})` : ""}`;
}
