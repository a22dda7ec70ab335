// The same question in Python and for curl: text that gives the page's answer when it is run.

import { modelPath } from "./api.js";
import { size } from "./inputs.js";
import { toLists } from "./tensors.js";

const MOST = 4000;

/** Where the server is, as a client is told. */
export const serverUrl = () => new URL(".", document.baseURI).href.replace(/\/$/, "");

/** Whether the inputs are few enough to stand in the code. */
export const fits = (question) => size(question.input.inputs) <= MOST;

/** The question as a Python program. */
export function python(question, metadata, locked) {
  const { model, version, operation, parameters, input } = question;
  const named = Object.entries(input.inputs);
  const values = named.map(([name, tensor]) => [name, fits(question) ? `np.array(${literal(toLists(tensor))})` : `np.load("${fileName(name)}")`]);
  const x = metadata.inputs.length === 1 ? values[0][1] : `{\n${values.map(([name, value]) => `    ${JSON.stringify(name)}: ${value},`).join("\n")}\n}`;
  const asked = [...Object.entries(input.extra ?? {}), ...Object.entries(parameters)].map(([name, value]) => `, ${name}=${argument(name, value)}`);
  return [
    "import numpy as np",
    "import tapehead",
    "",
    `x = ${x}`,
    "",
    ...(locked ? ["# The API key is read from the environment: TAPEHEAD_API_KEY."] : []),
    `with tapehead.Client(${JSON.stringify(serverUrl())}) as client:`,
    `    model = client.model(${JSON.stringify(model)}${version ? `, version=${version}` : ""})`,
    `    answer = model.ask(${JSON.stringify(operation)}, x${asked.join("")})`.replace(/model\.ask\("(\w+)", x/, "model.$1(x"),
    "",
    "for name, tensor in answer.tensors.items():",
    "    print(name, answer.axes[name], tensor.shape)",
  ].join("\n");
}

/** The question as a line for the shell. */
export function curl(question, body, locked) {
  const { model, version, operation } = question;
  const key = locked ? ` \\\n  -H "Authorization: Bearer $TAPEHEAD_API_KEY"` : "";
  const data = fits(question) ? `'${body.replaceAll("'", "'\\''")}'` : "@request.json";
  return `curl ${serverUrl()}/${modelPath(model, version, operation)}${key} \\\n  -H 'Content-Type: application/json' \\\n  -d ${data}`;
}

/** The name of a file that holds one input. */
export const fileName = (input) => `${input.replaceAll(/[^\w-]/g, "_")}.npy`;

function argument(name, value) {
  if (name === "initial_states") return `{${Object.entries(value).map(([key, one]) => `${JSON.stringify(key)}: np.array(${literal(one.data ?? one)})`).join(", ")}}`;
  return literal(value);
}

/** A plain value as Python writes it. */
function literal(value) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([key, one]) => `${JSON.stringify(key)}: ${literal(one)}`).join(", ")}}`;
  return JSON.stringify(value);
}
