// A first question for a model and an operation, so that there is something to see before anything is typed.

import { indexed } from "./points.js";

/** Values for an operation's parameters. `typed` is what the form said before: it stays where it still has a place. */
export function firstValues(operation, parameters, metadata, input, typed = {}) {
  const points = metadata.points ?? {};
  const layer = Object.keys(metadata.recurrent ?? {})[0];
  const state = layer && `${layer}.${Object.keys(metadata.recurrent[layer].states ?? {})[0]}`;
  const output = points.outputs ? "outputs" : Object.keys(points).find((name) => name.startsWith("outputs."));
  const source = metadata.inputs.length === 1 ? "inputs" : Object.keys(points)[0];
  const own = {
    of: indexed(state ?? output, points[state ?? output], "of"),
    wrt: source,
    target: indexed(output, points[output], "target"),
    ...(operation === "hvp" && { of: indexed(output, points[output], "target") }),
    ...(operation === "weight_gradients" && withoutTargets(input) && { of: indexed(output, points[output], "target"), by: ["gate", "timestep"] }),
    ...(operation === "weight_gradients" && !withoutTargets(input) && { of: undefined, targets: input.rest.targets, by: ["gate", "timestep"] }),
    ...(operation === "diagnose" && { of: undefined }),
  };
  const wanted = parameters.filter(({ required, name }) => required || (name in own && ["of", "by", "targets"].includes(name)));
  const fresh = Object.fromEntries(wanted.filter(({ name }) => own[name] !== undefined).map(({ name }) => [name, own[name]]));
  const known = new Set(parameters.map(({ name }) => name));
  const kept = Object.entries(typed).filter(([name, value]) => known.has(name) && value !== null && !(name === "of" && "of" in fresh && operation !== "jacobian"));
  return { ...fresh, ...Object.fromEntries(kept) };
}

const withoutTargets = (input) => !input?.rest?.targets;
