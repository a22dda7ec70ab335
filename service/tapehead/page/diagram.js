// The model as a diagram: one box a layer, edges from what it reads, and its points to click.

import { draw, fill } from "./elements.js";
import { spoken } from "./points.js";

const [WIDEST, NARROWEST, BESIDE, GAP, PAD, LINE, LETTER] = [420, 172, 12, 26, 12, 26, 6.2];

/** Draws the layers of `metadata` into `host`; `pick(name)` is called with the point that is chosen. */
export function showDiagram(host, metadata, pick) {
  const layers = placed(metadata, Math.min(WIDEST, Math.max(280, host.clientWidth - 4)));
  const width = Math.max(...layers.map((box) => box.x + box.width)) + 1;
  const height = Math.max(...layers.map((box) => box.y + box.height)) + 1;
  const label = `Layers of ${metadata.name}. Arrow keys go from point to point, Enter chooses one.`;
  const picture = draw("svg", { width, height, viewBox: `-1 -1 ${width + 2} ${height + 2}`, role: "group", "aria-label": label });
  picture.append(...edges(layers), ...layers.map((box) => drawnBox(box, pick)));
  fill(host, picture);
  walk(picture);
}

/** Marks the points that the question names: {name: role}. */
export function markPoints(host, roles) {
  for (const chip of host.querySelectorAll("[data-point]")) {
    const role = roles[chip.dataset.point];
    chip.classList.toggle("chosen", Boolean(role));
    chip.classList.toggle("source", role === "wrt");
    chip.setAttribute("aria-pressed", Boolean(role));
    chip.setAttribute("aria-label", role ? `${role}: ${chip.dataset.said}` : chip.dataset.said);
  }
}

/** The layers with what each shows and where it stands. */
function placed(metadata, wide) {
  const layers = metadata.layers?.length ? metadata.layers : unconnected(metadata);
  const depth = {};
  for (const { name, inbound } of layers) depth[name] = Math.max(-1, ...inbound.map((one) => depth[one] ?? -1)) + 1;
  const rows = [];
  for (const layer of layers) (rows[depth[layer.name]] ??= []).push(layer);
  const columns = Math.max(...rows.map((row) => row.length));
  const width = Math.max(NARROWEST, (wide - (columns - 1) * BESIDE) / columns);
  const most = columns * (width + BESIDE) - BESIDE;
  let y = 0;
  return rows.flatMap((row) => {
    const start = (most - row.length * (width + BESIDE) + BESIDE) / 2;
    const boxes = row.map((layer, n) => box(layer, metadata, start + n * (width + BESIDE), y, width));
    y += Math.max(...boxes.map((one) => one.height)) + GAP;
    return boxes;
  });
}

/** Where the server tells no edges: the recurrent layers in a row. */
function unconnected(metadata) {
  return Object.entries(metadata.recurrent ?? {}).map(([name, { cell }], n, all) => (
    { name, class: cell, inbound: n ? [all[n - 1][0]] : [] }
  ));
}

function box(layer, metadata, x, y, width) {
  const chips = [];
  let [row, right] = [0, PAD];
  for (const [name, text, kind] of pointsOf(layer, metadata)) {
    const size = text.length * LETTER + 16;
    if (right > PAD && right + size > width - PAD) [row, right] = [row + 1, PAD];
    chips.push({ name, text, kind, x: x + right, y: y + 36 + row * LINE, width: Math.min(size, width - 2 * PAD), metadata });
    right += size + 6;
  }
  const known = metadata.points[layer.name];
  const units = metadata.recurrent?.[layer.name]?.units ?? known?.shape.slice(-1);
  const title = { ...layer, units, known, x, y, metadata };
  return { ...title, title, width, chips, height: chips.length ? 44 + (row + 1) * LINE - 6 : 36 };
}

/** A layer's own points: [name, short text, kind]. */
function pointsOf(layer, { recurrent = {}, weights = {} }) {
  const known = recurrent[layer.name];
  const states = Object.keys(known?.states ?? {}).map((state) => [`${layer.name}.${state}`, state, "state"]);
  const gates = (known?.gates ?? []).map((gate) => [`${layer.name}.${gate}`, gate.replaceAll("_", " "), "gate"]);
  const base = layer.name.split(".call.")[0];
  const own = Object.keys(weights).filter((name) => name.startsWith(`${base}/`) || name.startsWith(`${base}.cells.`));
  const drawn = layer.class === "Bidirectional" ? [] : own.map((name) => [name, name.slice(base.length + 1).replaceAll("_", " "), "weight"]);
  return [...states, ...gates, ...drawn];
}

function edges(boxes) {
  const by = Object.fromEntries(boxes.map((one) => [one.name, one]));
  return boxes.flatMap((to) => to.inbound.filter((name) => by[name]).map((name) => {
    const from = by[name];
    const [x1, y1, x2, y2] = [from.x + from.width / 2, from.y + from.height, to.x + to.width / 2, to.y];
    const middle = y2 - GAP / 2;
    return draw("path", { class: "edge", d: `M${x1} ${y1} V${y2 - GAP} C${x1} ${middle} ${x2} ${middle} ${x2} ${y2}` });
  }));
}

function drawnBox(one, pick) {
  const { x, y, width, height, chips, title, metadata } = one;
  const frame = draw("rect", { class: "layer", x, y, width, height, rx: 8 });
  const size = one.units?.length && one.units[0] !== null ? ` · ${one.units.join("×")}` : "";
  const kind = draw("text", { class: "kind", x: x + width - PAD, y: y + 23, "text-anchor": "end" }, `${one.class}${size}`);
  const room = Math.floor((width - 2 * PAD - (one.class.length + size.length) * 6.2 - 14) / 7.4);
  const text = one.name.length > room ? `${one.name.slice(0, Math.max(3, room - 1))}…` : one.name;
  const name = title.known
    ? chip({ name: one.name, text, kind: "name", x: x + PAD - 8, y: y + 7, width: text.length * 7.6 + 16, metadata }, pick)
    : draw("text", { class: "name", x: x + PAD, y: y + 23 }, text);
  return draw("g", {}, frame, kind, name, ...chips.map((each) => chip(each, pick)));
}

function chip({ name, text, kind, x, y, width, metadata }, pick) {
  const label = spoken(name, metadata.points[name], metadata.weights?.[name]);
  const press = (event) => {
    if (event.type === "keydown" && event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    pick(name);
  };
  return draw(
    "g",
    { class: `point ${kind}`, "data-point": name, "data-said": label, role: "button", tabindex: -1, "aria-label": label, onclick: press, onkeydown: press },
    draw("title", {}, label),
    draw("rect", { x, y, width, height: 21, rx: 6 }),
    draw("text", { x: x + 8, y: y + 15 }, text),
  );
}

/** One stop of the Tab key for the whole diagram; arrows, Home and End go from point to point. */
function walk(picture) {
  const chips = [...picture.querySelectorAll("[data-point]")];
  if (!chips.length) return;
  chips[0].setAttribute("tabindex", 0);
  picture.addEventListener("focusin", ({ target }) => {
    chips.forEach((one) => one.setAttribute("tabindex", one === target ? 0 : -1));
  });
  picture.addEventListener("keydown", (event) => {
    const now = chips.indexOf(document.activeElement);
    const step = { ArrowRight: now + 1, ArrowDown: now + 1, ArrowLeft: now - 1, ArrowUp: now - 1, Home: 0, End: chips.length - 1 };
    if (!(event.key in step)) return;
    event.preventDefault();
    chips[Math.min(chips.length - 1, Math.max(0, step[event.key]))].focus();
  });
}
