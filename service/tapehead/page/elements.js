// Elements made in one expression, text always as text: nothing from a server or a file becomes markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element: `make("p", {class: "note", onclick: f}, "text", child)`. What is null or false is left out. */
export function make(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function draw(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

/** Replaces what an element holds. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter(present));
  return element;
}

/** The element of that id; the page's frame has it. */
export function at(id) {
  return document.getElementById(id);
}

/** Offers bytes or text as a file. */
export function download(name, content, type) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** `work`, run once calls have ceased for a while. */
export function settled(work, milliseconds) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, milliseconds);
  };
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "selected") element[name] = value;
    else if (present(value)) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter(present));
  return element;
}

function present(value) {
  return value !== null && value !== undefined && value !== false;
}
