// The page: which model, which input, which question; asks it, and shows the answers beside one another.

import { Problem, ask, get, key, modelPath, post } from "./api.js";
import { firstValues } from "./defaults.js";
import { markPoints, showDiagram } from "./diagram.js";
import { at, fill, make, settled } from "./elements.js";
import { readForm, setField, showForm } from "./form.js";
import { shared } from "./gallery.js";
import { asFields, described, example, fromFile, fromText, random, size } from "./inputs.js";
import { fromFragment, toFragment } from "./link.js";
import { indexed, namesOf, parted, roleOf, several } from "./points.js";
import { preview } from "./preview.js";
import { Result, copied, titleOf } from "./result.js";
import { parametersOf, summaryOf } from "./schema.js";

const [LARGE, SMALL_BYTES, SOON] = [200_000, 8e6, 4];
const page = { about: "", description: null, models: [], metadata: null, version: null, input: null, parameters: [], typed: {}, role: "", results: [], kept: null, asking: null, link: "" };

// -- starting

async function start() {
  try {
    const [about, models, description] = await Promise.all([get("v2"), post("v2/repository/index", {}), get("openapi.json")]);
    Object.assign(page, { description, models, about: `version ${about.version}` });
    status(page.about, "good");
    at("unlock").hidden = true;
    at("work").hidden = false;
    at("forget").hidden = !key.get();
    showModels();
    const questions = await fromFragment(location.hash);
    await (questions.length ? reproduce(questions) : begin());
  } catch (problem) {
    failedStart(problem);
  }
}

function failedStart(problem) {
  if (problem.status === 401) return locked(problem);
  status(problem.title ?? "Something went wrong", "bad");
  const retry = make("button", { type: "button", onclick: () => { fill(at("problem")); start(); } }, "Try again");
  at("work").hidden = false;
  at("question").hidden = page.description === null;
  tell(problem, retry);
  if (problem.status === 0 && page.description === null) setTimeout(() => { if (page.description === null) start(); }, 5000);
}

function locked(problem) {
  const tried = Boolean(key.get());
  key.forget();
  status("locked", "bad");
  at("work").hidden = true;
  at("unlock").hidden = false;
  at("forget").hidden = true;
  fill(at("refused"), tried ? problem.detail : "");
  at("key").focus();
}

/** The first model that can be asked, and, where that is little work, a first answer. */
async function begin() {
  const ready = page.models.find(({ state }) => state === "READY") ?? page.models[0];
  if (!ready) return tell(new Problem({ title: "There are no models here", detail: "Put a .keras file into the server's folder of models.", code: "" }, 0));
  await chooseModel(ready.name, null);
  const foretold = await estimate();
  if (foretold && foretold.bytes < SMALL_BYTES && foretold.seconds < SOON) await submit();
}

// -- the model

function showModels() {
  const newest = {};
  for (const { name, version } of page.models) newest[name] = Math.max(newest[name] ?? 0, Number(version));
  const options = page.models.toReversed().sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : b.version - a.version)).map(({ name, version, state, reason }) => {
    const said = `${name}${newest[name] > 1 ? `, version ${version}` : ""}${state === "READY" ? "" : ` (${state.toLowerCase()})`}`;
    return make("option", { value: JSON.stringify([name, Number(version) === newest[name] ? null : Number(version)]), title: reason }, said);
  });
  fill(at("model"), options);
}

async function chooseModel(name, version) {
  const metadata = await loaded(name, version);
  Object.assign(page, { metadata, version });
  const known = page.models.find((one) => one.name === name && one.version === String(version ?? Math.max(...metadata.versions)));
  if (known && known.state !== "READY") {
    known.state = "READY";
    showModels();
  }
  at("model").value = JSON.stringify([name, version]);
  at("question").hidden = false;
  const weights = Object.values(metadata.weights ?? {}).reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0);
  fill(at("about"), `${Object.keys(metadata.points).length} points, ${weights.toLocaleString("en")} weights`);
  fill(at("points"), namesOf(metadata).map((one) => make("option", { value: one })));
  showDiagram(at("diagram"), metadata, pick);
  fill(at("into"), metadata.inputs.map((spec) => make("option", { value: spec.name }, spec.name)));
  at("which").hidden = metadata.inputs.length < 2;
  fill(at("operation"), metadata.operations.map((one) => make("option", { value: one }, one.replaceAll("_", " "))));
  await take(() => example(metadata, version));
  chooseOperation(metadata.operations.includes("jacobian") ? "jacobian" : metadata.operations[0]);
}

/** What is known of a model, once it is loaded: the server says so where that takes longer than a request may. */
async function loaded(name, version) {
  status(`loading ${name} …`, "");
  for (;;) {
    try {
      const metadata = await get(modelPath(name, version));
      status(page.about, "good");
      return metadata;
    } catch (problem) {
      if (problem.code !== "loading") {
        status(page.about, "good");
        throw problem;
      }
      await new Promise((done) => { setTimeout(done, 2000); });
    }
  }
}

// -- the input

async function take(read) {
  try {
    page.input = await read();
    const words = described(page.input.inputs, page.metadata);
    fill(at("input"), make("strong", {}, words.join("; ")), ` ${page.input.note}`, preview(page.input.inputs));
    at("input").classList.remove("wrong");
    foretell();
  } catch (error) {
    fill(at("input"), make("strong", {}, "That cannot be used: "), error.detail ?? error.message);
    at("input").classList.add("wrong");
  }
}

const takeFile = (file) => file && take(() => fromFile(file, page.metadata, at("into").value, page.input));

// -- the question

function chooseOperation(operation, values = null) {
  at("operation").value = operation;
  page.parameters = parametersOf(page.description, operation);
  fill(at("summary"), summaryOf(page.description, operation));
  const first = values ?? firstValues(operation, page.parameters, page.metadata, page.input, page.typed);
  showForm(at("fields"), page.parameters, first, edited);
  const roles = page.parameters.filter(({ kind }) => kind === "point" || kind === "points").map(({ name }) => name);
  page.role = roles[0] ?? "";
  fill(at("target"), roles.length > 0 && make("span", {}, "A click fills"), roles.map((name) => make("label", {},
    make("input", { type: "radio", name: "role", value: name, checked: name === page.role, onchange: () => { page.role = name; } }), name)));
  for (const name of roles) at(`field-${name}`)?.addEventListener("focus", () => setRole(name));
  edited();
}

function setRole(name) {
  page.role = name;
  for (const input of at("target").querySelectorAll("input")) input.checked = input.value === name;
}

/** A point was chosen in the diagram. */
function pick(name) {
  const parameter = page.parameters.find((one) => one.name === page.role);
  if (!parameter) return;
  const input = at(`field-${parameter.name}`);
  const text = indexed(name, page.metadata.points[name], roleOf(parameter, at("operation").value));
  const listed = parameter.name === "points";
  const now = listed ? several(input.value) : [];
  setField(at("fields"), parameter.name, listed ? (now.includes(text) ? now.filter((one) => one !== text) : [...now, text]).join("; ") : text);
  say(`${parameter.name} is ${text}`);
  if (parameter.name === "of" && page.parameters.some((one) => one.name === "wrt") ) setRole("wrt");
  edited();
}

function edited() {
  const named = page.parameters.filter(({ kind }) => kind === "point" || kind === "points");
  const marks = named.flatMap(({ name }) => several(at(`field-${name}`)?.value ?? "").map((text) => [canonical(parted(text)[0]), name]));
  markPoints(at("diagram"), Object.fromEntries(marks));
  try {
    const elsewhere = page.parameters.filter((one) => one.name !== "of" || roleOf(one, at("operation").value) === "of");
    page.typed = { ...page.typed, ...readForm(at("fields"), elsewhere) };
  } catch { /* told when it is asked */ }
  foretell();
}

const canonical = (name) => (name === "inputs" && page.metadata.inputs.length === 1 ? page.metadata.inputs[0].name : name);

/** The question as it stands: what is asked, and the body that asks it. */
function question() {
  const operation = at("operation").value;
  const parameters = readForm(at("fields"), page.parameters);
  const asked = { model: page.metadata.name, version: page.version, operation, parameters, input: page.input, view: {} };
  return { asked, body: JSON.stringify({ ...asFields(page.input, page.metadata), ...parameters }) };
}

/** What the answer would be, told beside the button; null where that is not known. */
async function estimate() {
  if (!page.input || page.input.missing?.length || size(page.input.inputs) > LARGE) return fill(at("estimate")) && null;
  try {
    const { asked, body } = question();
    const dry = JSON.stringify({ ...JSON.parse(body), dry_run: true });
    const { meta } = await ask(modelPath(asked.model, asked.version, asked.operation), dry);
    fill(at("estimate"), `${bytes(meta.bytes)}, about ${meta.seconds < 1 ? `${Math.max(1, Math.round(1e3 * meta.seconds))} ms` : `${meta.seconds.toPrecision(2)} s`}`);
    at("estimate").classList.remove("wrong");
    return meta;
  } catch (error) {
    fill(at("estimate"), error.detail ?? error.message);
    at("estimate").classList.add("wrong");
    return null;
  }
}

const foretell = settled(estimate, 350);

const bytes = (count) => (count < 1e3 ? `${count} bytes` : count < 1e6 ? `${(count / 1e3).toPrecision(3)} kB` : `${(count / 1e6).toPrecision(3)} MB`);

// -- asking

async function submit() {
  if (page.asking) return page.asking.abort();
  fill(at("problem"));
  try {
    const { asked, body } = question();
    if (page.input.missing?.length) throw new Problem({ title: "An input is missing", detail: `This model also takes ${page.input.missing.join(", ")}.`, code: "" }, 0);
    await answered(asked, body);
  } catch (problem) {
    if (problem.name === "AbortError") say("Given up.");
    else tell(problem);
  }
}

async function answered(asked, body) {
  page.asking = new AbortController();
  busy(true);
  try {
    const answer = await ask(modelPath(asked.model, asked.version, asked.operation), body, page.asking.signal);
    await show(new Result({ question: asked, metadata: page.metadata, body, answer }, { onview, onkeep, onclose, onlink, locked: Boolean(key.get()) }));
    status(page.about, "good");
    seen(at("results"));
    say(`Answered: ${titleOf(asked)}, in ${(1e3 * answer.seconds).toFixed(0)} milliseconds.`);
  } finally {
    page.asking = null;
    busy(false);
  }
}

function busy(yes) {
  fill(at("ask"), yes ? "Give up" : "Ask");
  at("results").setAttribute("aria-busy", yes);
  document.body.classList.toggle("busy", yes);
}

// -- the answers

/** Shows a result: beside the one that is kept, in place of the other. */
async function show(result) {
  const gone = page.results.filter((one) => one !== page.kept);
  gone.forEach((one) => one.drop());
  page.results = [...(page.kept ? [page.kept] : []), result];
  await redraw();
}

async function redraw() {
  fill(at("results"), comparison(), make("div", { class: page.results.length > 1 ? "pair" : "single" }, page.results.map(({ element }) => element)));
  const limits = common();
  await Promise.all(page.results.map((one, n) => one.draw(limits[n])));
  await remember();
}

/** Over two results: what they share. */
function comparison() {
  if (page.results.length < 2) return null;
  const box = make("input", { type: "checkbox", checked: !page.ownScales, onchange: () => { page.ownScales = !box.checked; redraw(); } });
  return make("p", { class: "compare" }, make("label", { class: "check" }, box, "Same scale in both"));
}

/** The reach of each panel's scale where two results share it: first with first, second with second. */
function common() {
  if (page.results.length < 2 || page.ownScales) return [];
  const [one, other] = page.results.map(({ panels }) => panels);
  const limits = one.map((panel, n) => shared(panel, other[n]));
  return [limits, limits];
}

function onview() {
  redraw();
}

function onkeep(result) {
  page.kept = page.kept === result ? null : result;
  for (const one of page.results) one.kept = one === page.kept;
  if (page.kept) page.results = [page.kept, ...page.results.filter((one) => one !== page.kept)];
  redraw();
  say(page.kept ? "Kept. The next answer stands beside it." : "No longer kept.");
}

function onclose(result) {
  result.drop();
  page.results = page.results.filter((one) => one !== result);
  if (page.kept === result) page.kept = null;
  redraw();
  at("results").focus();
}

async function onlink() {
  await remember();
  await copied(location.href, document.activeElement);
}

/** Puts what is shown into the address. */
async function remember() {
  page.link = await toFragment(page.results.map(({ question: one }) => one));
  history.replaceState(null, "", page.link ? `#${page.link}` : location.pathname);
}

/** Asks what a link says, one after the other, the first kept where there are two. */
async function reproduce(questions) {
  page.results.forEach((one) => one.drop());
  Object.assign(page, { results: [], kept: null });
  for (const [n, { model, version, operation, parameters, input, view }] of questions.entries()) {
    await chooseModel(model, version);
    if (input.lost) {
      fill(at("input"), make("strong", {}, `This link was made with ${input.lost}`), ", which is too large to travel in it. Choose that file here, then ask.");
      at("input").classList.add("wrong");
    } else if (input.inputs) await take(async () => ({ rest: {}, ...input }));
    else if (input.source === "random") await take(async () => random(page.metadata));
    chooseOperation(operation, parameters);
    if (input.lost) return;
    const { asked, body } = question();
    await answered({ ...asked, view }, body);
    if (n === 0 && questions.length > 1) onkeep(page.results[0]);
  }
}

// -- telling

function status(text, tone) {
  at("status").className = `status ${tone}`;
  fill(at("status"), text);
}

/** Tells it to those who listen; emptied first, since the same words again are no change. */
function say(text) {
  fill(at("said"));
  requestAnimationFrame(() => fill(at("said"), text));
}

/** Shows what went wrong, as the server says it. */
function tell(problem, ...more) {
  if (problem.status === 401) return locked(problem);
  if (problem.status === 0 && problem.code === "unreachable") status("not reachable", "bad");
  const small = [problem.code, problem.id && `request ${problem.id}`].filter(Boolean).join(" · ");
  fill(at("problem"), make("div", { class: "card problem" }, make("h3", {}, problem.title ?? "That cannot be asked"),
    make("p", { class: "detail" }, problem.detail ?? problem.message), small && make("small", {}, small), more));
  seen(at("problem"));
}

/** Brings what is new into the window where none of it is there: on a telephone answers stand below the question. */
function seen(element) {
  const { top, bottom } = element.getBoundingClientRect();
  if (top > innerHeight - 120 || bottom < 60) element.scrollIntoView({ block: "start" });
}

async function guarded(work) {
  try {
    await work();
  } catch (problem) {
    tell(problem);
  }
}

// -- what people do

at("model").addEventListener("change", () => guarded(() => { fill(at("problem")); page.typed = {}; return chooseModel(...JSON.parse(at("model").value)); }));
at("operation").addEventListener("change", () => chooseOperation(at("operation").value));
at("question").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
at("question").addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit(); });
at("take").addEventListener("click", () => take(() => example(page.metadata, page.version)));
at("chance").addEventListener("click", () => take(async () => random(page.metadata)));
at("file").addEventListener("change", (event) => { takeFile(event.target.files[0]); event.target.value = ""; });
at("paste").addEventListener("click", () => {
  at("pasted").hidden = !at("pasted").hidden;
  at("paste").setAttribute("aria-expanded", !at("pasted").hidden);
  if (!at("pasted").hidden) at("text").focus();
});
at("use").addEventListener("click", () => take(async () => fromText(at("text").value, page.metadata, at("into").value, page.input)));
at("unlock").addEventListener("submit", (event) => { event.preventDefault(); key.set(at("key").value.trim()); at("key").value = ""; start(); });
at("forget").addEventListener("click", () => { key.forget(); location.reload(); });
at("skip").addEventListener("click", (event) => { event.preventDefault(); at("results").focus(); });
document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  if (page.metadata) takeFile(event.dataTransfer.files[0]);
});
window.addEventListener("hashchange", () => guarded(async () => {
  const questions = location.hash.slice(1) === page.link ? [] : await fromFragment(location.hash);
  if (questions.length) await reproduce(questions);
}));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (page.results.length) redraw(); });

start();
