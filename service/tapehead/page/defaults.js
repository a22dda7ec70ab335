// A first question for a model and an operation, so that there is something to see before anything is typed.

import { indexed, roleOf } from "./points.js";
import { asTensor } from "./readers.js";
import { toLists } from "./tensors.js";

const FEW = 2000;

/**
 * Values for an operation's parameters: those that must be given, and those without which it asks too much or nothing.
 * `typed` is what the form said before; it stays where it means the same.
 */
export function firstValues(operation, parameters, metadata, input, typed = {}) {
  const own = { ...ofAnyModel(operation, metadata), ...(OWN[operation]?.(metadata, input) ?? {}) };
  const wanted = parameters.filter(({ required, name }) => required || name === "of" || name in (OWN[operation]?.(metadata, input) ?? {}));
  const fresh = Object.fromEntries(wanted.filter(({ name }) => own[name] !== undefined).map(({ name }) => [name, own[name]]));
  const known = parameters.filter((one) => one.name !== "of" || roleOf(one, operation) === "of").map(({ name }) => name);
  const kept = Object.entries(typed).filter(([name, value]) => known.includes(name) && value !== null);
  return { ...fresh, ...Object.fromEntries(kept) };
}

function ofAnyModel(operation, metadata) {
  const points = metadata.points ?? {};
  const layer = Object.keys(metadata.recurrent ?? {})[0];
  const state = layer && `${layer}.${Object.keys(metadata.recurrent[layer].states ?? {})[0]}`;
  const inner = state in points ? state : outputOf(points);
  const wrt = metadata.inputs.length === 1 ? "inputs" : Object.keys(points)[0];
  return { of: indexed(inner, points[inner], "of"), wrt, target: lastOutput(metadata) };
}

const OWN = {
  jvp: (metadata, input) => ({ tangent: ones(input) }),
  hvp: (metadata, input) => ({ of: lastOutput(metadata), tangent: ones(input) }),
  diagnose: () => ({ of: undefined }),
  weight_gradients: (metadata, input) => {
    const targets = input?.rest?.targets;
    const by = ["gate", "timestep"];
    return targets ? { of: undefined, targets: plain(targets), by } : { of: lastOutput(metadata), by };
  },
};

/** One number of the output, at the last timestep where it has them. */
function lastOutput({ points = {} }) {
  const output = outputOf(points);
  return indexed(output, points[output], "target");
}

const outputOf = (points) => (points.outputs ? "outputs" : Object.keys(points).find((name) => name.startsWith("outputs.")));

/** Ones in the shape of the only input, where they are few enough to be written down. */
function ones(input) {
  const [tensor, ...others] = Object.values(input?.inputs ?? {});
  if (!tensor || others.length || tensor.values.length > FEW) return undefined;
  return toLists({ ...tensor, values: tensor.values.map(() => 1) });
}

/** Targets as lists, by output where there are several. */
function plain(targets) {
  if (Array.isArray(targets) || "data" in targets) return toLists(asTensor(targets));
  return Object.fromEntries(Object.entries(targets).map(([name, one]) => [name, plain(one)]));
}
