// A panel's numbers as a table: the same that the picture shows, for reading, for screen readers and for a file.

import { make } from "./elements.js";
import { entry, short } from "./panels.js";

const [ROWS, COLUMNS] = [200, 40];

/** A panel as {head, rows}: head names the columns, rows start with the name of their entry. */
export function tabulated(panel) {
  if (panel.kind === "number") return { head: ["", "value"], rows: [[panel.title, panel.value]] };
  if (panel.kind === "cloud") {
    const rows = panel.series.flatMap(({ name, x, y }) => Array.from(x, (value, n) => [name, value, y[n]]));
    return { head: ["gate", panel.across.title, panel.quantity], rows };
  }
  if (panel.kind === "heat") {
    const { rows, columns, values } = panel;
    const head = [`${rows.title} \\ ${columns.title}`, ...names(columns)];
    return { head, rows: names(rows).map((name, n) => [name, ...values.values.slice(n * columns.size, (n + 1) * columns.size)]) };
  }
  const { across, series } = panel;
  return { head: [across.title, ...series.map(({ name }) => name)], rows: names(across).map((name, n) => [name, ...series.map(({ values }) => values[n])]) };
}

/** The table, cut where it would be endless; its file is whole. */
export function tableOf(panel) {
  const { head, rows } = tabulated(panel);
  const [wide, high] = [head.length > COLUMNS + 1, rows.length > ROWS];
  const cell = (value) => make("td", {}, typeof value === "number" ? short(value) : value);
  const body = rows.slice(0, ROWS).map(([name, ...values]) => make("tr", {}, make("th", { scope: "row" }, name), values.slice(0, COLUMNS).map(cell)));
  const cut = [high && `the first ${ROWS} of ${rows.length} rows`, wide && `the first ${COLUMNS} of ${head.length - 1} columns`].filter(Boolean);
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Table: ${panel.title}` },
    cut.length > 0 && make("p", { class: "note" }, `Here are ${cut.join(" and ")}; the file has them all.`),
    make("table", {}, make("caption", { class: "hidden" }, panel.title),
      make("thead", {}, make("tr", {}, head.slice(0, COLUMNS + 1).map((name) => make("th", { scope: "col" }, name)))),
      make("tbody", {}, body)));
}

/** The numbers as CSV, in full. */
export function csvOf(panel) {
  const { head, rows } = tabulated(panel);
  const quoted = (value) => (/[",\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
  return `${[head, ...rows].map((row) => row.map(quoted).join(",")).join("\n")}\n`;
}

const names = (axis) => Array.from({ length: axis.size }, (_, n) => entry(axis, n));
