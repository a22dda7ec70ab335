// Files and pasted text -> tensors: CSV, JSON, .npy and msgpack. What a file holds is told in words beside it.

import { decode } from "./msgpack.js";
import { count, fromLists, isPacked, unpacked } from "./tensors.js";

/** What a file holds, as the fields of a request: {inputs: tensor or {name: tensor}, lengths?, …}. */
export async function readFile(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const kind = file.name.toLowerCase().split(".").pop();
  if (bytes[0] === 0x93 && String.fromCharCode(...bytes.slice(1, 6)) === "NUMPY") return { inputs: readNpy(bytes) };
  if (kind === "msgpack" || kind === "mpk") return fields(decode(bytes));
  return readText(new TextDecoder().decode(bytes));
}

/** The same of text: JSON where it starts like it, else rows of numbers. */
export function readText(text) {
  const trimmed = text.trim();
  if (!trimmed) throw new Error("there is nothing in it");
  if (/^[[{]/.test(trimmed)) return fields(JSON.parse(trimmed));
  return { inputs: readRows(trimmed) };
}

/** A plain value as a tensor where it is one: {dtype, shape, data}, nested lists, or a number. */
export function asTensor(value) {
  if (isPacked(value)) return unpacked(value);
  return fromLists(value);
}

/** NumPy's own format, version 1 to 3. https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html */
export function readNpy(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const wide = bytes[6] > 1;
  const start = wide ? 12 : 10;
  const end = start + (wide ? view.getUint32(8, true) : view.getUint16(8, true));
  const header = new TextDecoder().decode(bytes.subarray(start, end));
  const [, order, code] = header.match(/'descr':\s*'([<>|=]?)([a-z]\d+)'/) ?? [];
  const dtype = NPY[code];
  if (!dtype || order === ">") throw new Error(`its dtype is not read here; save it with array.astype("float32")`);
  const shape = (header.match(/'shape':\s*\(([^)]*)\)/)?.[1] ?? "").split(",").filter((n) => n.trim()).map(Number);
  const tensor = unpacked({ dtype, shape, data: bytes.subarray(end) });
  return /'fortran_order':\s*True/.test(header) ? fromFortran(tensor) : tensor;
}

/** A tensor in NumPy's format. */
export function writeNpy({ shape, values }) {
  const comma = shape.length === 1 ? "," : "";
  const head = `{'descr': '<f8', 'fortran_order': False, 'shape': (${shape.join(", ")}${comma}), }`;
  const padded = `${head.padEnd(Math.ceil((head.length + 11) / 64) * 64 - 11)}\n`;
  const size = new Uint8Array([padded.length & 255, padded.length >> 8]);
  return new Blob(["\x93NUMPY\x01\x00"].map(latin).concat(size, latin(padded), Float64Array.from(values)));
}

const NPY = {
  f2: "float16", f4: "float32", f8: "float64", b1: "bool",
  i1: "int8", i2: "int16", i4: "int32", i8: "int64",
  u1: "uint8", u2: "uint16", u4: "uint32", u8: "uint64",
};

const latin = (text) => Uint8Array.from(text, (letter) => letter.charCodeAt(0));

/** A body of a request, whole; or the inputs alone, which stand for it. */
function fields(value) {
  const whole = value && !Array.isArray(value) && !isPacked(value) && "inputs" in value ? value : { inputs: value };
  return { ...whole, inputs: namedOrBare(whole.inputs) };
}

function namedOrBare(value) {
  if (Array.isArray(value) || isPacked(value)) return asTensor(value);
  if (!value || typeof value !== "object") throw new Error("it holds no inputs: expected lists of numbers");
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, asTensor(item)]));
}

/** Rows of numbers with commas, semicolons, tabs or spaces between; words in a first row or column are left out. */
function readRows(text) {
  const between = text.includes(";") ? ";" : text.includes(",") ? "," : text.includes("\t") ? "\t" : /\s+/;
  const rows = text.split(/\r?\n/).filter((line) => line.trim()).map((line) => line.trim().split(between).map(cell));
  if (rows[0].some((value) => typeof value === "string") && rows.length > 1) rows.shift();
  const named = rows.every(([first]) => typeof first === "string") && rows[0].length > 1;
  const numbers = named ? rows.map((row) => row.slice(1)) : rows;
  const wrong = numbers.flat().find((value) => typeof value === "string");
  if (wrong !== undefined) throw new Error(`“${wrong.slice(0, 40)}” is no number`);
  return fromLists(numbers);
}

function cell(text) {
  const bare = text.trim().replace(/^"(.*)"$/, "$1");
  const value = Number(bare);
  return bare === "" || Number.isNaN(value) ? bare : value;
}

function fromFortran({ dtype, shape, values }) {
  const result = new Float64Array(count(shape));
  const steps = shape.map((_, axis) => count(shape.slice(0, axis)));
  for (let n = 0; n < result.length; n += 1) {
    let [rest, from] = [n, 0];
    for (let axis = shape.length - 1; axis >= 0; axis -= 1) {
      from += (rest % shape[axis]) * steps[axis];
      rest = Math.floor(rest / shape[axis]);
    }
    result[n] = values[from];
  }
  return { dtype, shape, values: result };
}
