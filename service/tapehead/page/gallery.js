// Which panels an answer is shown as: a row an operation, the axes' own way for all others.

import { extent, picked, summed } from "./tensors.js";
import { isTime, panel } from "./panels.js";

const MOST = 12;

/** The panels of an answer. `asked` is the operation and its parameters; `choices` what was chosen to see. */
export function panelsOf(answer, asked, choices) {
  return (ROWS[asked.operation] ?? plain)(answer, asked, choices);
}

/** The tensors of an answer that can be picked to be seen alone; [] where all of them make one picture. */
export function pickable(answer, asked) {
  if (asked.operation === "diagnose") return [];
  const own = asked.operation === "weight_gradients" ? (name) => !name.includes(":") : (name) => !isPlain(answer.axes[name]);
  const names = Object.keys(answer.tensors).filter(own);
  return names.length > 1 ? names : [];
}

/** How many samples there are to choose from. */
export function samplesOf(answer) {
  const sizes = Object.entries(answer.tensors).filter(([name]) => answer.axes[name]?.[0] === "batch").map(([, { shape }]) => shape[0]);
  return Math.max(1, ...sizes);
}

/** The numbers that belong to a whole sample: they stand beside the picture. */
export function scalarsOf(answer, sample) {
  const single = Object.entries(answer.tensors).filter(([name]) => isPlain(answer.axes[name]));
  return single.map(([name, { shape, values }]) => [name, values[Math.min(sample, (shape[0] ?? 1) - 1)]]);
}

const isPlain = (axes = []) => axes.every((axis) => axis === "batch");

function plain(answer, asked, choices) {
  const names = Object.keys(answer.tensors).filter((name) => !isPlain(answer.axes[name]));
  const shown = choices.tensor && names.includes(choices.tensor) ? [choices.tensor] : names.slice(0, MOST);
  const found = shown.flatMap((name) => ofTensor(name, answer, asked, choices));
  return found.length ? found : scalarsOf(answer, choices.sample ?? 0).map(([name, value]) => number(name, value));
}

const number = (title, value) => ({ kind: "number", title, quantity: title, value, fixed: [], signed: value < 0 });

function ofTensor(name, answer, asked, choices) {
  const [tensor, axes] = [answer.tensors[name], answer.axes[name]];
  const about = aboutTensor(name, answer, asked);
  const main = panel(tensor, axes, about, choices);
  const times = axes.filter((axis, at) => isTime(axis) && tensor.shape[at] > 1);
  if (main.kind !== "heat" || times.length !== 1 || asked.operation === "states") return [main];
  const others = Object.fromEntries(axes.filter((axis) => axis !== "batch" && axis !== times[0]).map((axis) => [axis, "norm"]));
  const fading = panel(tensor, axes, { ...about, title: `${about.title}, its norm over time` }, { sample: choices.sample, axes: others });
  return [main, fading];
}

function aboutTensor(name, { meta, axes }, asked) {
  const [of, wrt] = name.includes(" / ") ? name.split(" / ") : [asked.of, asked.wrt];
  const sides = Object.fromEntries(Object.entries({ of, wrt }).filter(([, point]) => typeof point === "string"));
  const derivative = { jacobian: `∂ ${of} / ∂ ${wrt}`, check: `∂ ${of} / ∂ ${wrt}, by differences`, vjp: `cotangent · ∂ ${of} / ∂ ${wrt}`, jvp: `∂ ${of} / ∂ ${wrt} · tangent`, hvp: `Hessian of ${of} · tangent` };
  const saliency = `${String(asked.method ?? "gradient").replaceAll("_", " ")} of ${asked.target}`;
  const title = asked.operation === "saliency" ? saliency : (derivative[asked.operation] ?? (name === "value" ? asked.operation : name));
  const norm = /norm|singular/.test(asked.reduce ?? "") || axes[name].includes("singular_value");
  const reduced = asked.reduce && asked.reduce !== "none" ? `${asked.reduce.replaceAll("_", " ")} of ` : "";
  return { title: `${reduced}${title}`, quantity: `${reduced}${title}`, sides, norm, log: norm, labels: labelsOf(meta, name) };
}

function labelsOf(meta, name) {
  const layer = Object.keys(meta.gates ?? {}).filter((one) => name.startsWith(one)).sort((a, b) => b.length - a.length)[0];
  return { ...(layer && { gate: meta.gates[layer].map((gate) => gate.replaceAll("_", " ")) }), side: ["low", "high"] };
}

/** Gradient norms: a panel a weight by timestep and gate; those that have neither axis share one of bars. */
function weightGradients(answer, asked, choices) {
  const norms = Object.keys(answer.tensors).filter((name) => !name.includes(":") && (!choices.tensor || name === choices.tensor));
  const whole = norms.filter((name) => isPlain(answer.axes[name]));
  const parts = norms.filter((name) => !isPlain(answer.axes[name]));
  const sample = choices.sample ?? 0;
  const bars = whole.length ? [ranked("Gradient norm of each weight", whole.map((name) => [name, scalar(answer, name, sample)]), choices)] : [];
  const values = norms.filter((name) => `${name}:value` in answer.tensors && `${name}:weight` in answer.tensors);
  const lines = parts.slice(0, MOST).map((name) => gateLines(name, answer, choices));
  return [...bars, ...lines, ...values.slice(0, MOST).map((name) => cloud(name, answer, choices))];
}

function scalar(answer, name, sample) {
  const { shape, values } = answer.tensors[name];
  return values[shape.length ? Math.min(sample, shape[0] - 1) : 0];
}

function ranked(title, pairs, choices) {
  const across = { name: "weight", title: "weight", size: pairs.length, labels: pairs.map(([name]) => name) };
  const series = [{ name: "gradient norm", values: Float64Array.from(pairs, ([, value]) => value) }];
  return { kind: "bars", title, quantity: "gradient norm", short: "gradient norm", fixed: [], signed: false, across, series, log: choices.log ?? isWide(series[0].values), flat: true };
}

/** Whether numbers are so far apart that small ones would not be seen beside large ones. */
function isWide(values) {
  const spread = extent(values);
  return spread !== null && spread.most / spread.positive > 100;
}

/** One weight's norms: lines over time, one a gate; or bars over the gates. */
function gateLines(name, answer, choices) {
  const about = { title: name, quantity: `gradient norm of ${name}`, norm: true, log: true, labels: labelsOf(answer.meta, name) };
  const one = panel(answer.tensors[name], answer.axes[name], about, choices);
  if (one.kind !== "heat") return { ...one, fit: null, series: one.series?.filter(({ dashed }) => !dashed) };
  const { rows, columns, values } = one;
  const series = Array.from({ length: rows.size }, (_, n) => (
    { name: rows.labels?.[n] ?? `${rows.title} ${n}`, values: values.values.slice(n * columns.size, (n + 1) * columns.size) }
  ));
  return { ...one, kind: "lines", across: columns, series, log: choices.log ?? true };
}

/** Weight against gradient, magnitudes, a colour a gate. */
function cloud(name, answer, choices) {
  const { tensors } = answer;
  const gates = labelsOf(answer.meta, name).gate ?? [];
  const width = tensors[`${name}:weight`].shape.at(-1);
  const size = tensors[`${name}:weight`].values.length;
  const gradient = wholeGradient(name, answer, choices.sample ?? 0);
  const parts = width % gates.length === 0 && gates.length ? gates : ["all"];
  const series = parts.map((gate, n) => {
    const own = Array.from({ length: size }, (_, at) => at).filter((at) => Math.floor(((at % width) * parts.length) / width) === n);
    const magnitude = (values) => Float64Array.from(own, (at) => Math.abs(values[at]));
    return { name: gate, x: magnitude(tensors[`${name}:weight`].values), y: magnitude(gradient.values) };
  });
  return { kind: "cloud", title: `${name}: weight against gradient`, quantity: "magnitude of the gradient", short: "magnitude of the gradient", across: { title: "magnitude of the weight" }, series, fixed: [], log: true };
}

/** A weight's gradient of one sample, the timesteps' parts of it summed. */
function wholeGradient(name, { tensors, axes }, sample) {
  let [tensor, names] = [tensors[`${name}:value`], axes[`${name}:value`]];
  if (names[0] === "batch") [tensor, names] = [picked(tensor, 0, Math.min(sample, tensor.shape[0] - 1)), names.slice(1)];
  return names[0] === "timestep" ? summed(tensor, 0) : tensor;
}

const EVIDENCE = {
  influence: { title: "how much the last state owes to each timestep", norm: true, log: true },
  state_influence: { title: "how much the last state owes to the whole state at each timestep", norm: true, log: true },
  singular_values: { title: "singular values of each step's Jacobian", norm: true, log: true },
  spectral_radius: { title: "spectral radius of each step's Jacobian", norm: true, log: false },
  lyapunov: { title: "Lyapunov exponents, per timestep", norm: false },
  saturation: { title: "share of the gate's units that are shut or saturated", norm: false },
  weight_gradients: { title: "gradient norm of each weight by timestep", norm: true, log: true },
};

/** The evidence behind a verdict: every kind of it for each layer, gates shut and saturated apart. */
function diagnosis(answer, asked, choices) {
  return Object.keys(answer.tensors).flatMap((name) => {
    const [layer, what] = [name.slice(0, name.lastIndexOf(":")), name.slice(name.lastIndexOf(":") + 1)];
    if (choices.layer && choices.layer !== layer) return [];
    const known = EVIDENCE[what] ?? { title: what.replaceAll("_", " ") };
    const gates = answer.meta.gates?.[layer];
    const weights = answer.meta.weights?.[layer];
    const labels = { gate: gates?.map((gate) => gate.replaceAll("_", " ")), weight: weights, timestep: answer.meta.jacobian_timesteps?.[layer] };
    const about = { ...known, title: `${layer}: ${known.title}`, quantity: known.title, labels };
    if (answer.axes[name].at(-1) !== "side") return [tidy(panel(answer.tensors[name], answer.axes[name], about, choices), what)];
    return ["shut (under 0.05)", "saturated (over 0.95)"].map((said, side) => {
      const half = picked(answer.tensors[name], answer.axes[name].length - 1, side);
      return { ...panel(half, answer.axes[name].slice(0, -1), { ...about, title: `${layer}: ${said}`, quantity: `share of units ${said}` }, choices), most: 1 };
    });
  });
}

/** Only influences are fitted; exponents stand as bars about zero. */
function tidy(one, what) {
  if (what.endsWith("influence") || !one.series) return one;
  const log = what === "spectral_radius" || what === "lyapunov" ? false : one.log;
  return { ...one, log, fit: null, series: one.series.filter(({ dashed }) => !dashed), level: what === "spectral_radius" ? 1 : undefined };
}

const ROWS = { weight_gradients: weightGradients, diagnose: diagnosis };

/** How far the numbers of two like panels reach together, so that the same colour or height means the same number. */
export function shared(one, other) {
  if (!other || one.kind !== other.kind || one.signed !== other.signed || one.log !== other.log) return null;
  const numbers = ({ kind, values, series = [] }) => (kind === "heat" ? [values.values] : kind === "lines" ? series.map((line) => line.values) : []);
  const spreads = [one, other].flatMap(numbers).map(extent).filter(Boolean);
  if (!spreads.length) return null;
  const over = (reach, name) => reach(...spreads.map((spread) => spread[name]));
  return { least: over(Math.min, "least"), most: over(Math.max, "most"), positive: over(Math.min, "positive"), magnitude: over(Math.max, "magnitude") };
}
