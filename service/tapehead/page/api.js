// Questions to the server this page came from: the key, replies in msgpack, problems as errors.

import { decode } from "./msgpack.js";
import { isPacked, unpacked } from "./tensors.js";

const MSGPACK = "application/vnd.msgpack";
const KEY = "tapehead-api-key";

/** What went wrong, as the server says it: title, detail, code, request_id. */
export class Problem extends Error {
  constructor({ title, detail, code, request_id: id }, status) {
    super(detail || title);
    Object.assign(this, { title: title || `HTTP status ${status}`, detail, code, id, status });
  }
}

/** The API key, kept for this tab alone. */
export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** JSON from a path. Null where there is nothing to be had. */
export async function get(path) {
  const reply = await sent(path, { headers: { Accept: "application/json" } });
  return reply.status === 204 ? null : reply.json();
}

/** The answer to an operation: {model, tensors, axes, meta, seconds, timing}. */
export async function ask(path, body, signal) {
  const started = performance.now();
  const headers = { Accept: MSGPACK, "Content-Type": "application/json" };
  const reply = await sent(path, { method: "POST", headers, body, signal });
  const answer = decode(new Uint8Array(await reply.arrayBuffer()));
  const seconds = (performance.now() - started) / 1e3;
  const tensors = Object.entries(answer.tensors).map(([name, value]) => [name, isPacked(value) ? unpacked(value) : value]);
  return { ...answer, tensors: Object.fromEntries(tensors), seconds, timing: reply.headers.get("server-timing") ?? "" };
}

/** JSON posted, JSON read. */
export async function post(path, value) {
  const headers = { Accept: "application/json", "Content-Type": "application/json" };
  return (await sent(path, { method: "POST", headers, body: JSON.stringify(value) })).json();
}

/** The path of a model. */
export function modelPath(model, version, rest = "") {
  const named = `v2/models/${encodeURIComponent(model)}`;
  return `${named}${version ? `/versions/${version}` : ""}${rest && `/${rest}`}`;
}

async function sent(path, { headers, ...options }) {
  const bearer = key.get() ? { Authorization: `Bearer ${key.get()}` } : {};
  let reply;
  try {
    reply = await fetch(path, { ...options, headers: { ...headers, ...bearer } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const said = "No answer came. Is the server running, and is this machine connected to it?";
    throw new Problem({ title: "The server could not be reached", detail: said, code: "unreachable" }, 0);
  }
  if (reply.ok) return reply;
  throw new Problem(await problem(reply), reply.status);
}

async function problem(reply) {
  const body = new Uint8Array(await reply.arrayBuffer());
  try {
    const packed = (reply.headers.get("content-type") ?? "").includes("msgpack");
    return packed ? decode(body) : JSON.parse(new TextDecoder().decode(body));
  } catch {
    return { title: `HTTP status ${reply.status}`, detail: reply.statusText };
  }
}
