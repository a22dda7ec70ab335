// Tensors: {dtype, shape, values}, the values in C order as numbers; and what is done with their axes.

const KINDS = {
  bool: [Uint8Array, 1],
  int8: [Int8Array, 1],
  uint8: [Uint8Array, 1],
  int16: [Int16Array, 2],
  uint16: [Uint16Array, 2],
  int32: [Int32Array, 4],
  uint32: [Uint32Array, 4],
  float32: [Float32Array, 4],
  float64: [Float64Array, 8],
};
const SPELLED = { NaN: NaN, Infinity: Infinity, "-Infinity": -Infinity };

/** How many entries a shape has. */
export const count = (shape) => shape.reduce((product, size) => product * size, 1);

/** Whether a plain value is a tensor as it travels. */
export const isPacked = (value) => Boolean(value) && Array.isArray(value.shape) && "dtype" in value && "data" in value;

/** The tensor that a plain value {dtype, shape, data} holds, its data bytes or nested lists. */
export function unpacked({ dtype, shape, data }) {
  const values = data instanceof Uint8Array ? fromBytes(data, dtype) : flattened(data);
  if (values.length !== count(shape)) throw new Error(`a tensor of shape [${shape}] came with ${values.length} numbers`);
  return { dtype, shape: [...shape], values };
}

/** Nested lists as a tensor; throws where they are ragged or hold other than numbers. */
export function fromLists(lists) {
  const shape = [];
  for (let level = lists; Array.isArray(level); level = level[0]) shape.push(level.length);
  check(lists, shape, 0);
  const values = flattened(lists);
  return { dtype: values.every(Number.isInteger) ? "int64" : "float64", shape, values };
}

/** A tensor as nested lists. */
export function toLists({ shape, values }) {
  const build = (axis, start, step) => {
    if (axis === shape.length) return values[start];
    const inner = step / shape[axis];
    return Array.from({ length: shape[axis] }, (_, n) => build(axis + 1, start + n * inner, inner));
  };
  return build(0, 0, values.length);
}

/** One entry of an axis. */
export function picked(tensor, axis, index) {
  return reduced(tensor, axis, (read) => read(index));
}

/** The Frobenius norm over an axis. */
export function normed(tensor, axis) {
  return reduced(tensor, axis, (read, size) => {
    let sum = 0;
    for (let n = 0; n < size; n += 1) sum += read(n) ** 2;
    return Math.sqrt(sum);
  });
}

/** The sum over an axis. */
export function summed(tensor, axis) {
  return reduced(tensor, axis, (read, size) => {
    let sum = 0;
    for (let n = 0; n < size; n += 1) sum += read(n);
    return sum;
  });
}

/** A matrix the other way round. */
export function transposed({ dtype, shape: [rows, columns], values }) {
  const turned = Float64Array.from(values, (_, n) => values[(n % rows) * columns + Math.floor(n / rows)]);
  return { dtype, shape: [columns, rows], values: turned };
}

/** Least and largest of what is finite, and where the largest magnitude stands; null where nothing is. */
export function extent(values) {
  let found = null;
  for (let n = 0; n < values.length; n += 1) {
    const value = values[n];
    if (!Number.isFinite(value)) continue;
    found ??= { least: value, most: value, at: n, magnitude: Math.abs(value), positive: Infinity };
    if (value < found.least) found.least = value;
    if (value > found.most) found.most = value;
    if (value > 0 && value < found.positive) found.positive = value;
    if (Math.abs(value) > found.magnitude) [found.magnitude, found.at] = [Math.abs(value), n];
  }
  return found;
}

function reduced({ shape, values, dtype }, axis, reduce) {
  const size = shape[axis];
  const inner = count(shape.slice(axis + 1));
  const outer = count(shape.slice(0, axis));
  const result = new Float64Array(outer * inner);
  for (let o = 0; o < outer; o += 1) {
    for (let i = 0; i < inner; i += 1) {
      result[o * inner + i] = reduce((n) => values[(o * size + n) * inner + i], size);
    }
  }
  return { dtype, shape: [...shape.slice(0, axis), ...shape.slice(axis + 1)], values: result };
}

function check(lists, shape, axis) {
  if (axis === shape.length) {
    if (typeof lists !== "number" && !(lists in SPELLED) && typeof lists !== "boolean") {
      throw new Error(`expected numbers, found ${JSON.stringify(lists)?.slice(0, 40)}`);
    }
  } else if (!Array.isArray(lists) || lists.length !== shape[axis]) {
    throw new Error("the lists are ragged: those beside each other need the same length");
  } else {
    lists.forEach((item) => check(item, shape, axis + 1));
  }
}

function flattened(data) {
  const flat = Array.isArray(data) ? data.flat(Infinity) : [data];
  return Float64Array.from(flat, (value) => SPELLED[value] ?? Number(value));
}

function fromBytes(bytes, dtype) {
  if (dtype === "int64" || dtype === "uint64") {
    const wide = new (dtype === "int64" ? BigInt64Array : BigUint64Array)(aligned(bytes));
    return Float64Array.from(wide, Number);
  }
  if (dtype === "float16" || dtype === "bfloat16") {
    return Float64Array.from(new Uint16Array(aligned(bytes)), dtype === "float16" ? half : brain);
  }
  const [Kind] = KINDS[dtype] ?? [];
  if (!Kind) throw new Error(`a tensor of dtype ${dtype} cannot be read here`);
  return new Kind(aligned(bytes));
}

/** A copy in memory of its own, which starts where any number may. */
const aligned = (bytes) => bytes.slice().buffer;

function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

function brain(bits) {
  return new Float32Array(new Uint32Array([bits << 16]).buffer)[0];
}
