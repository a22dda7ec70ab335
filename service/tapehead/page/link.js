// A view as the part of an address behind #, and back: model=…&operation=…&of=…&input=…, two of them with `&with&`
// between. Inputs that are small travel inside it, deflated; of others only the name does.

const OWN = ["model", "version", "operation", "input", "view"];
const BETWEEN = "&with&";
const MOST = 12_000;

/** The fragment of questions {model, version, operation, parameters, input, view}. */
export async function toFragment(questions) {
  return (await Promise.all(questions.map(written))).join(BETWEEN);
}

/** The questions of a fragment, each with its `input` as {source, inputs?, extra?, file?, lost?}; [] where it has none. */
export async function fromFragment(fragment) {
  const parts = fragment.replace(/^#/, "").split(BETWEEN).filter((part) => part.includes("model="));
  try {
    return await Promise.all(parts.map(read));
  } catch {
    return [];
  }
}

async function written({ model, version, operation, parameters, input, view }) {
  const fields = { model, version, operation, ...parameters, input: await packedInput(input), view };
  return Object.entries(fields)
    .filter(([, value]) => value !== null && value !== undefined && JSON.stringify(value) !== "{}")
    .map(([name, value]) => `${encodeURIComponent(name)}=${escaped(typeof value === "string" && !isJson(value) ? value : JSON.stringify(value))}`)
    .join("&");
}

async function read(part) {
  const fields = Object.fromEntries(part.split("&").map((pair) => {
    const [name, ...rest] = pair.split("=").map(decodeURIComponent);
    const text = rest.join("=");
    return [name, isJson(text) ? JSON.parse(text) : text];
  }));
  const parameters = Object.fromEntries(Object.entries(fields).filter(([name]) => !OWN.includes(name)));
  const { model, version = null, operation, view = {} } = fields;
  return { model: String(model), version, operation, parameters, view, input: await unpackedInput(String(fields.input ?? "example")) };
}

/** What stands for an input: its kind alone where anyone can have it again, else its numbers, else its name. */
async function packedInput({ source, file, inputs, extra }) {
  if (source === "example" || source === "random") return source;
  const plain = Object.entries(inputs).map(([name, { dtype, shape, values }]) => [name, { dtype, shape, values: [...values] }]);
  const packed = `z:${await deflated(JSON.stringify({ source, file, extra, inputs: Object.fromEntries(plain) }))}`;
  return packed.length <= MOST ? packed : `lost:${file ?? "pasted numbers"}`;
}

async function unpackedInput(text) {
  if (text.startsWith("lost:")) return { lost: text.slice(5) };
  if (!text.startsWith("z:")) return { source: text };
  const found = JSON.parse(await inflated(text.slice(2)));
  const inputs = Object.entries(found.inputs).map(([name, one]) => [name, { ...one, values: Float64Array.from(one.values) }]);
  return { ...found, inputs: Object.fromEntries(inputs), note: "From the link." };
}

async function deflated(text) {
  const bytes = await piped(new TextEncoder().encode(text), new CompressionStream("deflate-raw"));
  const letters = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  return btoa(letters).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

async function inflated(text) {
  const letters = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  const bytes = Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
  return new TextDecoder().decode(await piped(bytes, new DecompressionStream("deflate-raw")));
}

async function piped(bytes, through) {
  const stream = new Blob([bytes]).stream().pipeThrough(through);
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Percent-encoded, but for what is plain to read and harmless in a fragment. */
function escaped(text) {
  return encodeURIComponent(text).replace(/%(5B|5D|2C|3A|2F|3B)/g, decodeURIComponent);
}

function isJson(text) {
  return /^(\[|\{|"|-?\d|true$|false$|null$)/.test(text) && !/^\d+[A-Za-z_]/.test(text) && parses(text);
}

function parses(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
