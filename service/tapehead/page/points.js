// Points as text: names with an index, several of them in one line, and which index suits which parameter.

/** The name and the index of a point: `lstm.h[-1]` -> ["lstm.h", "[-1]"]. */
export function parted(text) {
  const found = text.trim().match(/^((?:"(?:[^"]|"")*"|[^"[])*)(\[.*\])?$/);
  return found ? [found[1].trim(), found[2] ?? ""] : [text.trim(), ""];
}

/** The points in a line, with ; between. */
export function several(text) {
  const pieces = text.match(/(?:"(?:[^"]|"")*"|[^;"])+/g) ?? [];
  return pieces.map((piece) => piece.trim()).filter(Boolean);
}

/** The point with an index that makes sense where it is to stand: one number, the last timestep, or all of it. */
export function indexed(name, info, role) {
  const axes = info?.axes ?? [];
  if (role === "target") return axes.length ? `${name}[${axes.map((axis) => (axis === "timestep" ? -1 : 0)).join(", ")}]` : name;
  return role === "of" && axes[0] === "timestep" ? `${name}[-1]` : name;
}

/** Which index a parameter wants: a number a sample, the last timestep, or none. */
export function roleOf(parameter, operation) {
  if (parameter.name === "target" || (parameter.name === "of" && ["hvp", "weight_gradients", "diagnose"].includes(operation))) {
    return "target";
  }
  return parameter.name === "of" ? "of" : "all";
}

/** Every name that a point field may hold: the points, then the weights, then their gates' columns where known. */
export function namesOf(metadata) {
  return [...Object.keys(metadata.points ?? {}), ...Object.keys(metadata.weights ?? {})];
}

/** A point in words, for those who do not see where it stands. */
export function spoken(name, info, shape) {
  const axes = info ? info.axes.map((axis, n) => (info.shape[n] === null ? axis : `${info.shape[n]} ${axis}s`)) : shape;
  return `${name}, ${axes?.length ? axes.join(" by ") : "one number"}`;
}
