// The first sample of the inputs as small lines, to recognise a series by.

import { draw } from "./elements.js";
import { extent } from "./tensors.js";

const [WIDE, HIGH, MOST, POINTS] = [380, 56, 6, 400];

/** A small picture of inputs that have timesteps; null of others. */
export function preview(inputs) {
  const [name, tensor] = Object.entries(inputs)[0];
  const [, steps, features] = [...tensor.shape, 1];
  if (tensor.shape.length < 2 || tensor.shape.length > 3 || steps < 2) return null;
  const lines = Array.from({ length: Math.min(features, MOST) }, (_, f) => line(tensor.values, steps, features, f));
  const said = `${name}: ${steps} timesteps of the first sample${features > MOST ? `, ${MOST} of ${features} features` : ""}`;
  return draw("svg", { class: "preview", viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img", "aria-label": said }, lines);
}

function line(values, steps, features, feature) {
  const every = Math.max(1, Math.floor(steps / POINTS));
  const own = [];
  for (let t = 0; t < steps; t += every) own.push(values[t * features + feature]);
  const { least, most } = extent(own) ?? { least: 0, most: 1 };
  const y = (value) => HIGH - 4 - ((value - least) / (most - least || 1)) * (HIGH - 8);
  const points = own.map((value, n) => `${((n / (own.length - 1)) * WIDE).toFixed(1)},${y(Number.isFinite(value) ? value : least).toFixed(1)}`);
  return draw("polyline", { points: points.join(" "), opacity: feature ? 0.4 : 1 });
}
