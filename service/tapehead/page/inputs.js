// What a model is asked about: its example, a file, pasted numbers, or random ones; fitted to the shape it takes.

import { get, modelPath } from "./api.js";
import { asTensor, readFile, readText } from "./readers.js";
import { count, isPacked, toLists } from "./tensors.js";

const [STEPS, SEED] = [24, 7];

/** The model's example, else random numbers: {source, inputs, extra, note}. */
export async function example(metadata, version) {
  const found = await get(modelPath(metadata.name, version, "example"));
  if (!found) return { ...random(metadata), note: "There is no example beside this model, so these numbers are random." };
  const inputs = isPacked(found.inputs) || Array.isArray(found.inputs) ? asTensor(found.inputs) : mapped(found.inputs, asTensor);
  return given({ ...found, inputs }, metadata, { source: "example", note: "The example that lies beside the model." });
}

/** Random numbers of the right shape, the same at every call. */
export function random(metadata) {
  const named = Object.fromEntries(metadata.inputs.map((spec, n) => [spec.name, randomOf(spec, metadata, SEED + n)]));
  return { source: "random", inputs: named, extra: {}, note: "Random numbers of the shape the model takes." };
}

/** What a file holds. */
export async function fromFile(file, metadata, into, before) {
  return given(await readFile(file), metadata, { source: "file", file: file.name, into: ownName(file, metadata) ?? into, before });
}

/** What was pasted. */
export function fromText(text, metadata, into, before) {
  return given(readText(text), metadata, { source: "paste", into, before });
}

/** The fields of a request that these inputs are. */
export function asFields({ inputs, extra }, metadata) {
  const lists = mapped(inputs, toLists);
  const single = metadata.inputs.length === 1;
  return { inputs: single ? Object.values(lists)[0] : lists, ...extra };
}

/** Inputs in words: `40 timesteps × 1 feature`. */
export function described(inputs, metadata) {
  return Object.entries(inputs).map(([name, tensor]) => {
    const axes = ["sample", ...(metadata.points?.[name]?.axes ?? metadata.points?.[`"${name}"`]?.axes ?? tensor.shape.slice(1).map(() => "entry"))];
    const words = tensor.shape.map((size, n) => `${size} ${axes[n] ?? "entrie"}${size === 1 ? "" : "s"}`);
    return `${metadata.inputs.length > 1 ? `${name}: ` : ""}${words.join(" × ")}`;
  });
}

/** How many numbers there are. */
export const size = (inputs) => Object.values(inputs).reduce((sum, tensor) => sum + count(tensor.shape), 0);

function given(fields, metadata, { source, note, file, into, before }) {
  const { inputs, lengths, initial_states: states, ...rest } = fields;
  const names = metadata.inputs.map((spec) => spec.name);
  const bare = Boolean(inputs.shape);
  const named = bare ? { [into ?? names[0]]: inputs } : inputs;
  const unknown = Object.keys(named).find((name) => !names.includes(name));
  if (unknown) throw new Error(`the model has no input “${unknown}”; it takes ${names.join(", ")}`);
  const fitted = mapped(named, (tensor, name) => fit(tensor, metadata.inputs.find((spec) => spec.name === name)));
  const whole = { ...(names.length > 1 ? before?.inputs : {}), ...fitted };
  const missing = names.filter((name) => !(name in whole));
  const extra = { ...(lengths && { lengths }), ...(states && { initial_states: states }) };
  const lacking = missing.length ? ` Still missing: ${missing.join(", ")}.` : "";
  return { source, file, inputs: whole, extra, rest, missing, note: `${note ?? (file ? `From ${file}.` : "Pasted.")}${lacking}` };
}

/** A tensor with the axes that the model's input has: samples first, a last axis of one feature added where it lacks. */
function fit(tensor, spec) {
  const wanted = spec.shape.length;
  let shape = [...tensor.shape];
  if (shape.length === wanted) return { ...tensor, shape };
  const single = spec.shape[wanted - 1] === 1 && wanted > 1;
  if (single && shape[shape.length - 1] !== 1 && shape.length < wanted) shape = [...shape, 1];
  if (single && shape.length === wanted - 2 && shape[shape.length - 1] === 1) shape = [...shape, 1];
  while (shape.length < wanted) shape = [1, ...shape];
  if (shape.length > wanted) {
    const said = spec.shape.map((size) => (size < 0 ? "any" : size)).join(" × ");
    throw new Error(`it has shape ${tensor.shape.join(" × ")}; the model's ${spec.name} takes ${said}`);
  }
  return { ...tensor, shape };
}

function randomOf(spec, metadata, seed) {
  const shape = spec.shape.map((size, axis) => (size > 0 ? size : axis === 0 ? 1 : STEPS));
  const next = generator(seed);
  const whole = /INT/.test(spec.datatype);
  const draw = whole ? () => Math.floor(next() * vocabulary(metadata, spec.name)) : () => Math.round(normal(next) * 1e4) / 1e4;
  return { dtype: whole ? "int64" : "float64", shape, values: Float64Array.from({ length: count(shape) }, draw) };
}

/** How many indices there are to choose from: the rows of the embedding that reads the input, else two. */
function vocabulary({ layers = [], weights = {} }, input) {
  const reader = layers.find((layer) => layer.inbound.includes(input) && weights[`${layer.name}/embeddings`]);
  return reader ? weights[`${reader.name}/embeddings`][0] : 2;
}

/** Numbers from 0 to 1 (Mulberry32): not for secrets, the same everywhere. */
function generator(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

const normal = (next) => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());

const ownName = (file, metadata) => metadata.inputs.map((spec) => spec.name).find((name) => name === file.name.replace(/\.[^.]*$/, ""));

const mapped = (named, change) => Object.fromEntries(Object.entries(named).map(([name, item]) => [name, change(item, name)]));
