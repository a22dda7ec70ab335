// What can be asked, read from the server's OpenAPI description: an operation that is new there appears here.

const COMMON = new Set(["inputs", "lengths", "initial_states"]);

/** The operation's parameters: {name, kind, doc, required, initial, choices, least, most}. */
export function parametersOf(description, operation) {
  const schema = bodyOf(description, operation);
  return Object.entries(schema?.properties ?? {})
    .filter(([name]) => !COMMON.has(name) && name !== "dry_run")
    .map(([name, property]) => ({
      name,
      kind: kindOf(property),
      doc: property.description ?? "",
      required: (schema.required ?? []).includes(name),
      initial: property.default ?? null,
      choices: property.enum ?? property.items?.enum ?? [],
      least: property.minimum,
      most: property.maximum,
    }));
}

/** What the operation is for, in a sentence. */
export function summaryOf(description, operation) {
  return pathOf(description, operation)?.post?.summary ?? "";
}

/** How a parameter is filled in: point, points, choice, choices, bool, int, float, string, or json for all else. */
function kindOf(schema) {
  if (schema.enum) return "choice";
  if (schema.type === "array" && schema.items?.enum) return "choices";
  if (schema.anyOf) return schema.anyOf.some(isPoint) ? "points" : "json";
  if (isPoint(schema)) return "point";
  if (schema.type === "array" && isPoint(schema.items ?? {})) return "points";
  return { boolean: "bool", integer: "int", number: "float", string: "string" }[schema.type] ?? "json";
}

const isPoint = (schema) => schema.type === "string" && Array.isArray(schema.examples);

const pathOf = (description, operation) => description.paths?.[`/v2/models/{model}/${operation}`];

function bodyOf(description, operation) {
  const content = pathOf(description, operation)?.post?.requestBody?.content ?? {};
  const name = content["application/json"]?.schema?.$ref?.split("/").pop();
  return description.components?.schemas?.[name];
}
