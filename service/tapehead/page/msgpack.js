// Bytes in msgpack -> plain values. Bins come as views of the bytes. https://github.com/msgpack/msgpack/blob/master/spec.md

const DEPTH = 32;
const text = new TextDecoder("utf-8", { fatal: true });

/** The value that the bytes hold; throws an Error where they are no msgpack of text keys. */
export function decode(bytes) {
  const reader = new Reader(bytes);
  const value = reader.value(0);
  if (reader.at !== bytes.length) throw new Error("msgpack goes on after its end");
  return value;
}

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = 0;
  }

  take(size) {
    const start = this.at;
    this.at += size;
    if (this.at > this.bytes.length) throw new Error("msgpack is cut short");
    return start;
  }

  number(kind, size) {
    const value = this.view[`get${kind}`](this.take(size));
    return typeof value === "bigint" ? Number(value) : value;
  }

  bin(size) {
    const start = this.take(size);
    return this.bytes.subarray(start, start + size);
  }

  array(size, depth) {
    const found = [];
    for (let n = 0; n < size; n += 1) found.push(this.value(depth + 1));
    return found;
  }

  map(size, depth) {
    const found = {};
    for (let n = 0; n < size; n += 1) {
      const key = this.value(depth + 1);
      if (typeof key !== "string") throw new Error("msgpack has a key that is not text");
      Object.defineProperty(found, key, { value: this.value(depth + 1), enumerable: true, configurable: true });
    }
    return found;
  }

  value(depth) {
    if (depth > DEPTH) throw new Error("msgpack nests too deep");
    const head = this.view.getUint8(this.take(1));
    if (head <= 0x7f) return head;
    if (head >= 0xe0) return head - 0x100;
    if (head <= 0x8f) return this.map(head & 0x0f, depth);
    if (head <= 0x9f) return this.array(head & 0x0f, depth);
    if (head <= 0xbf) return text.decode(this.bin(head & 0x1f));
    const read = WIDE[head];
    if (!read) throw new Error(`msgpack has the byte ${head}, which is not read here`);
    return read(this, depth);
  }
}

const size = (reader, power) => reader.number(`Uint${8 << power}`, 1 << power);

const WIDE = {
  0xc0: () => null,
  0xc2: () => false,
  0xc3: () => true,
  0xca: (reader) => reader.number("Float32", 4),
  0xcb: (reader) => reader.number("Float64", 8),
  0xcf: (reader) => reader.number("BigUint64", 8),
  0xd3: (reader) => reader.number("BigInt64", 8),
  0xdc: (reader, depth) => reader.array(size(reader, 1), depth),
  0xdd: (reader, depth) => reader.array(size(reader, 2), depth),
  0xde: (reader, depth) => reader.map(size(reader, 1), depth),
  0xdf: (reader, depth) => reader.map(size(reader, 2), depth),
};
for (let power = 0; power < 3; power += 1) {
  WIDE[0xc4 + power] = (reader) => reader.bin(size(reader, power));
  WIDE[0xcc + power] = (reader) => size(reader, power);
  WIDE[0xd0 + power] = (reader) => reader.number(`Int${8 << power}`, 1 << power);
  WIDE[0xd9 + power] = (reader) => text.decode(reader.bin(size(reader, power)));
}
