// One tensor of an answer -> panels: what is to be drawn and told, in plain values. Nothing here knows of Plotly.
//
//   heat   {rows: axis, columns: axis, values: matrix, signed}
//   lines  {across: axis, series: [{name, values, dashed?}], log}
//   bars   {across: axis, series: [{name, values}], log}
//   number {value}
// An axis is {name, title, size, labels?}. Every panel has a title, a quantity, and whether its numbers can be negative.

import { extent, normed, picked, transposed } from "./tensors.js";

const MANY_LINES = 24;
const SPECTRA = new Set(["singular_value", "exponent"]);

/** Whether an axis counts timesteps. */
export const isTime = (axis) => axis.split(".").pop() === "timestep";

/** The axes that can be chosen of a tensor: all but the batch and those of one entry (timesteps are kept). */
export function choosable(tensor, axes) {
  return axes.map((name, at) => ({ name, size: tensor.shape[at] })).filter(({ name, size }) => name !== "batch" && (size > 1 || isTime(name)));
}

/**
 * The panel of one sample of a tensor on at most two axes. `choices.axes` says of an axis "shown", "norm" or an index;
 * of the axes that nothing is said of, those that tell least are reduced to their norm.
 */
export function panel(tensor, axes, about, choices = {}) {
  let [left, names, over] = [tensor, [...axes], []];
  if (names[0] === "batch") [left, names] = [picked(left, 0, Math.min(choices.sample ?? 0, left.shape[0] - 1)), names.slice(1)];
  const fate = fates(tensor, axes, choices.axes ?? {});
  const fixed = [];
  for (let at = names.length - 1; at >= 0; at -= 1) {
    const chosen = fate[names[at]] ?? 0;
    if (chosen === "shown") continue;
    if (chosen === "norm") [left, over] = [normed(left, at), [names[at], ...over]];
    else {
      if (left.shape[at] > 1) fixed.unshift(`${inWords(names[at], about)} ${chosen}`);
      left = picked(left, at, Math.min(Number(chosen), left.shape[at] - 1));
    }
    names.splice(at, 1);
  }
  const isNorm = about.norm || over.length > 0;
  const quantity = over.length ? `norm of ${about.quantity} over ${over.map((axis) => inWords(axis, about)).join(", ")}` : about.quantity;
  return shaped(left, names, { ...about, quantity, fixed, isNorm }, choices);
}

/** What becomes of each axis by default and by choice. */
export function fates(tensor, axes, chosen) {
  const open = choosable(tensor, axes).map(({ name }) => name);
  const shown = open.filter((name) => chosen[name] === "shown" || chosen[name] === undefined);
  const spare = [...shown].sort((one, other) => telling(one, chosen) - telling(other, chosen)).slice(0, Math.max(0, shown.length - 2));
  return Object.fromEntries(open.map((name) => [name, spare.includes(name) ? "norm" : (chosen[name] ?? "shown")]));
}

/** How much an axis tells in a picture; an axis that was asked for tells most. */
function telling(axis, chosen) {
  return (chosen[axis] === "shown" ? 8 : 0) + (axis.startsWith("of.") ? 0 : 1) + (isTime(axis) ? 2 : 0) + (SPECTRA.has(axis) ? 2 : 0);
}

/** An axis in words: `timestep of inputs`. */
export function inWords(axis, { sides = {} }) {
  const [side, what] = axis.includes(".") ? axis.split(".") : ["", axis];
  const words = what.replaceAll("_", " ");
  if (!side || !sides[side]) return words;
  return sides.of === sides.wrt ? `${words} (${side})` : `${words} of ${sides[side]}`;
}

function shaped(tensor, names, about, choices) {
  const spread = extent(tensor.values);
  const signed = !about.isNorm && spread !== null && spread.least < 0;
  const titles = names.map((name, at) => axisOf(name, tensor.shape[at], about));
  const base = { title: about.title, short: about.isNorm ? "norm" : "", quantity: about.quantity, fixed: about.fixed, signed, log: choices.log ?? (!signed && about.log === true) };
  if (!names.length) return { ...base, kind: "number", value: tensor.values[0] };
  if (names.length === 1) return oneAxis(tensor, titles[0], names[0], about, base, choices);
  const spectrum = names.findIndex((name) => SPECTRA.has(name));
  if (spectrum >= 0 && tensor.shape[spectrum] <= MANY_LINES && choices.kind !== "heat") return spectra(tensor, titles, spectrum, base, choices);
  const upright = isTime(names[0]) && !isTime(names[1]);
  const [values, rows, columns] = upright ? [transposed(tensor), titles[1], titles[0]] : [tensor, titles[0], titles[1]];
  return { ...base, kind: "heat", rows, columns, values };
}

function oneAxis(tensor, across, name, about, base, choices) {
  const log = choices.log ?? (!base.signed && (about.isNorm || SPECTRA.has(name)));
  const series = [{ name: about.isNorm ? "norm" : about.quantity, values: tensor.values }];
  if (!isTime(name) || base.signed || (!about.isNorm && !about.log)) return { ...base, kind: "bars", across, series, log };
  const fit = decay(tensor.values);
  const fitted = fit && { name: `fitted: ${fit.words}`, dashed: true, values: fit.values };
  return { ...base, kind: "lines", across, series: [...series, ...(fitted ? [fitted] : [])], log, fit };
}

function spectra(tensor, titles, spectrum, base, choices) {
  const byLine = spectrum === 0 ? tensor : transposed(tensor);
  const [lines, size] = byLine.shape;
  const series = Array.from({ length: lines }, (_, n) => (
    { name: `${titles[spectrum].title} ${n}`, values: byLine.values.slice(n * size, (n + 1) * size), rank: n / Math.max(1, lines - 1) }
  ));
  return { ...base, kind: "lines", across: titles[1 - spectrum], series, log: choices.log ?? !base.signed };
}

function axisOf(name, size, about) {
  const labels = about.labels?.[name] ?? about.labels?.[name.split(".").pop()];
  return { name, title: inWords(name, about), size, labels: labels?.length === size ? labels : null };
}

/** The exponential decay backward from the last timestep that fits log(norm) best (least squares), as the server fits it. */
export function decay(norms) {
  const points = [...norms].map((norm, t) => [norms.length - 1 - t, Math.log(norm)]).filter(([, y]) => Number.isFinite(y));
  if (points.length < 3) return null;
  const mean = (at) => points.reduce((sum, point) => sum + point[at], 0) / points.length;
  const [x, y] = [mean(0), mean(1)];
  const slope = points.reduce((sum, [a, b]) => sum + (a - x) * (b - y), 0) / points.reduce((sum, [a]) => sum + (a - x) ** 2, 0);
  const factor = Math.exp(slope);
  const halved = factor < 1 ? `, halved in ${(Math.log(0.5) / slope).toPrecision(2)}` : "";
  const [last, first] = [points[points.length - 1][0], points[0][0]];
  const inside = (back) => back >= last && back <= first;
  const values = Float64Array.from(norms, (_, t) => (inside(norms.length - 1 - t) ? Math.exp(y + slope * (norms.length - 1 - t - x)) : NaN));
  return { factor, values, words: `× ${factor.toPrecision(3)} a timestep back${halved}` };
}

/** A panel in a sentence, for those who do not see it. */
export function told(one) {
  if (one.kind === "number") return `${one.title}: ${short(one.value)}.`;
  if (one.kind === "cloud") return `${one.title}: a cloud of points, ${one.series.map(({ name, x }) => `${x.length} of ${name}`).join(", ")}.`;
  const heat = one.kind === "heat";
  const values = heat ? one.values.values : one.series.find(({ dashed }) => !dashed).values;
  const spread = extent(values);
  const shape = heat ? `heat map, ${one.rows.size} ${one.rows.title} by ${one.columns.size} ${one.columns.title}` : `${one.kind} over ${one.across.size} ${one.across.title}`;
  if (!spread) return `${one.title}: ${shape}; no number in it is finite.`;
  const at = heat ? `${one.rows.title} ${Math.floor(spread.at / one.columns.size)}, ${one.columns.title} ${spread.at % one.columns.size}` : `${one.across.title} ${entry(one.across, spread.at)}`;
  const fit = one.fit ? ` Fitted decay: ${one.fit.words}.` : "";
  return `${one.title}: ${shape}. From ${short(spread.least)} to ${short(spread.most)}; the largest magnitude, ${short(values[spread.at])}, at ${at}.${fit}`;
}

/** An entry of an axis, by its label where it has one. */
export const entry = (axis, at) => axis.labels?.[at] ?? String(at);

/** A number in four digits. */
export function short(value) {
  if (!Number.isFinite(value)) return String(value);
  return value !== 0 && (Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3) ? value.toExponential(3) : String(Number(value.toPrecision(4)));
}
