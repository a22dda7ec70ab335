// Panels -> Plotly: colours, axes and words. Plotly's own script is loaded beside the page; until it is there, panels wait.

import { entry, isTime } from "./panels.js";
import { extent } from "./tensors.js";

const LINES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f"]; // Okabe and Ito: colour-blind safe
const DASHES = ["solid", "solid", "solid", "solid", "dash", "dash", "dash"];
const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
const MARKED = 80;
const FEW = 14;
const LEGEND = { margin: { l: 64, r: 16, t: 44, b: 48 }, legend: { orientation: "h", y: 1.03, yanchor: "bottom", x: 0 } };

let loading = null;

/** Plotly, once its script has run; rejected where it cannot be had. */
export function plotly() {
  loading ??= new Promise((resolve, reject) => {
    if (window.Plotly) return resolve(window.Plotly);
    const script = document.getElementById("plotly");
    script.addEventListener("load", () => resolve(window.Plotly));
    script.addEventListener("error", () => reject(new Error("Plotly’s script could not be loaded; the numbers are in the tables.")));
  });
  return loading;
}

/** Draws a panel into `host`. `limits` tells how far its scale reaches, where another shares it. */
export async function plot(host, panel, limits, file) {
  const { traces, layout } = KINDS[panel.kind](panel, limits, theme());
  const config = {
    displaylogo: false,
    responsive: true,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    toImageButtonOptions: { filename: file, scale: 2 },
  };
  await (await plotly()).react(host, traces, { ...base(panel), ...layout }, config);
}

/** Saves a panel as it is drawn; `format` is png or svg. */
export async function save(host, file, format) {
  await (await plotly()).downloadImage(host, { format, filename: file, scale: format === "png" ? 2 : 1, width: 1100, height: 520 });
}

/** Frees what Plotly holds of a panel. */
export function purge(host) {
  window.Plotly?.purge(host);
}

function theme() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  return { ink: read("--ink"), muted: read("--muted"), line: read("--line"), card: read("--card"), accent: read("--accent"), middle: read("--middle"), soft: read("--soft") };
}

function base(panel) {
  const { ink, muted, line } = theme();
  return {
    font: { family: FONT, size: 13, color: ink },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 64, r: 16, t: 12, b: 48 },
    height: panel.kind === "heat" ? Math.min(560, Math.max(260, 110 + 18 * panel.rows.size)) : panel.flat ? 90 + 24 * panel.across.size : 340,
    hoverlabel: { font: { family: FONT } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: muted, activecolor: ink },
    colorway: LINES,
    xaxis: { gridcolor: line, linecolor: line, zerolinecolor: line },
    showlegend: false,
  };
}

/** An axis that counts entries, or names them where they have names. */
function counting(axis, { line }) {
  const every = isTime(axis.name) ? Math.ceil(axis.size / FEW) : axis.size <= 60 ? 1 : 0;
  const shown = every && axis.labels ? axis.labels.map((_, n) => n).filter((n) => n % every === 0) : null;
  const ticks = shown ? { tickmode: "array", tickvals: shown, ticktext: shown.map((n) => axis.labels[n]) } : axis.size <= FEW ? { dtick: 1 } : { nticks: 12 };
  return { title: { text: axis.title, standoff: 8 }, gridcolor: line, linecolor: line, zeroline: false, automargin: true, tickformat: "d", range: [-0.5, axis.size - 0.5], ...ticks };
}

function measuring(text, log, { line, muted }, values) {
  const spread = log && extent(values.flatMap((one) => [...one]));
  const powers = spread ? Math.log10(spread.most / Math.min(spread.positive, spread.most)) : 0;
  const ticks = log ? { type: "log", exponentformat: "power", ...(powers > 1.5 && { dtick: Math.ceil(powers / 8) }) } : { zerolinecolor: muted, exponentformat: "power" };
  return { title: { text, standoff: 8 }, gridcolor: line, linecolor: line, automargin: true, ...ticks };
}

function heat(panel, limits, look) {
  const { rows, columns, values: matrix, signed } = panel;
  const raw = rowsOf(matrix.values, rows.size, columns.size);
  const log = panel.log && !signed;
  const z = log ? raw.map((row) => row.map((value) => (value > 0 ? Math.log10(value) : null))) : raw.map((row) => row.map((value) => (Number.isFinite(value) ? value : null)));
  const words = raw.map((row, y) => row.map((value, x) => `${columns.title} ${entry(columns, x)}<br>${rows.title} ${entry(rows, y)}<br><b>${Number(value.toPrecision(5))}</b>`));
  const all = z.flat().filter((value) => value !== null);
  const [least, most] = reach(all, { signed, log, limits, panel });
  const bar = { thickness: 12, outlinewidth: 0, len: 1, ypad: 0, nticks: 6, ...(log ? decades(least, most) : { exponentformat: "power" }) };
  const colours = signed
    ? [[0, "#2166ac"], [0.25, "#67a9cf"], [0.5, look.middle], [0.75, "#ef8a62"], [1, "#b2182b"]]
    : "Viridis";
  const trace = { type: "heatmap", z, text: words, hoverinfo: "text", colorscale: colours, zmin: least, zmax: most, colorbar: bar, hoverongaps: false };
  return { traces: [trace], layout: { xaxis: { ...counting(columns, look), showgrid: false }, yaxis: { ...counting(rows, look), showgrid: false }, plot_bgcolor: look.soft } };
}

/** Where colours start and end: symmetric where signs differ, from zero where not, six decades at most on a log scale. */
function reach(all, { signed, log, limits, panel }) {
  const least = all.reduce((a, b) => Math.min(a, b), Infinity);
  const most = all.reduce((a, b) => Math.max(a, b), -Infinity);
  if (!all.length) return [0, 1];
  if (log) {
    const top = limits ? Math.log10(limits.magnitude) : most;
    return [Math.max(limits?.floor ?? least, top - 12), top];
  }
  const top = panel.most ?? limits?.magnitude ?? (Math.max(Math.abs(least), Math.abs(most)) || 1);
  return signed ? [-top, top] : [0, top];
}

function decades(least, most) {
  const step = Math.max(1, Math.ceil((most - least) / 7));
  const found = [];
  for (let power = Math.ceil(least); power <= most; power += step) found.push(power);
  return found.length > 1 ? { tickvals: found, ticktext: found.map((power) => `10<sup>${power}</sup>`) } : { tickvals: [least, most], ticktext: [least, most].map((power) => (10 ** power).toPrecision(2)) };
}

function lines(panel, limits, look) {
  const ranked = panel.series.some(({ rank }) => rank !== undefined);
  const traces = panel.series.map(({ name, values, dashed, rank }, n) => ({
    type: "scatter",
    mode: values.length <= MARKED && !dashed && !ranked ? "lines+markers" : "lines",
    name,
    x: Array.from(values, (_, at) => at),
    y: Array.from(values, (value) => (Number.isFinite(value) && !(panel.log && value <= 0) ? value : null)),
    text: Array.from(values, (_, at) => entry(panel.across, at)),
    hovertemplate: `${panel.across.title} %{text}<br>${name}<br><b>%{y:.5g}</b><extra></extra>`,
    line: { width: 2, dash: dashed ? "dot" : ranked ? "solid" : DASHES[n % DASHES.length], color: dashed ? look.muted : ranked ? spectral(rank) : panel.series.length <= 2 ? look.accent : LINES[n % LINES.length] },
    marker: { size: 5 },
  }));
  const legend = panel.series.length > 1 && !ranked;
  return {
    traces,
    layout: {
      xaxis: counting(panel.across, look),
      yaxis: { ...measuring(panel.short, panel.log, look, panel.series.map(({ values }) => values)), ...ranged(limits, panel.log) },
      showlegend: legend,
      ...(legend && LEGEND),
      ...(panel.level === undefined ? {} : { shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: panel.level, y1: panel.level, line: { color: look.muted, dash: "dot", width: 1.5 } }] }),
    },
  };
}

/** The range that two pictures share, with a little room. */
function ranged(limits, log) {
  if (!limits) return {};
  const [low, high] = log ? [Math.log10(limits.positive), Math.log10(limits.most)] : [limits.least, limits.most];
  const room = 0.05 * (high - low || 1);
  return { range: [low - room, high + room] };
}

function bars(panel, limits, look) {
  const { across, series, flat } = panel;
  const traces = series.map(({ name, values }) => {
    const numbers = Array.from(values, (value) => (Number.isFinite(value) ? value : null));
    const places = numbers.map((_, at) => at);
    const text = places.map((at) => `${across.title} ${entry(across, at)}<br><b>${numbers[at] === null ? values[at] : Number(numbers[at].toPrecision(5))}</b>`);
    return { type: "bar", orientation: flat ? "h" : "v", [flat ? "y" : "x"]: places, [flat ? "x" : "y"]: numbers, hovertext: text, hoverinfo: "text", name, textposition: "none", marker: { color: look.accent } };
  });
  const [own, other] = [counting(across, look), measuring(panel.short, panel.log, look, series.map(({ values }) => values))];
  const spread = panel.log && extent(series.flatMap(({ values }) => [...values]));
  if (spread?.positive > 0 && Number.isFinite(spread.positive)) other.range = [Math.log10(spread.positive) - 0.5, Math.log10(spread.most) + 0.1];
  return { traces, layout: flat ? { yaxis: { ...own, range: [across.size - 0.5, -0.5], title: { text: "" } }, xaxis: other } : { xaxis: own, yaxis: other } };
}

function cloud(panel, limits, look) {
  const total = panel.series.reduce((sum, { x }) => sum + x.length, 0);
  const traces = panel.series.map(({ name, x, y }, n) => {
    const every = Math.max(1, Math.ceil(total / 6000));
    const kept = (values) => Array.from(values).filter((_, at) => at % every === 0).map((value) => (value > 0 ? value : null));
    return { type: "scatter", mode: "markers", name, x: kept(x), y: kept(y), marker: { size: 4, opacity: total > 1500 ? 0.35 : 0.6, color: LINES[n % LINES.length] }, hovertemplate: `${name}<br>weight %{x:.4g}<br>gradient %{y:.4g}<extra></extra>` };
  });
  return { traces, layout: { xaxis: measuring(panel.across.title, true, look, panel.series.map(({ x }) => x)), yaxis: measuring(panel.short, true, look, panel.series.map(({ y }) => y)), showlegend: panel.series.length > 1, margin: LEGEND.margin, legend: { ...LEGEND.legend, itemsizing: "constant" } } };
}

/** From strong to faint along a spectrum. */
const spectral = (rank) => `hsl(${200 + 70 * rank} 65% ${42 + 22 * rank}%)`;

const rowsOf = (values, rows, columns) => Array.from({ length: rows }, (_, n) => Array.from(values.slice(n * columns, (n + 1) * columns)));

const KINDS = { heat, lines, bars, cloud };
