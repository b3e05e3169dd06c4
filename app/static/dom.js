// Makes elements. Texts become text nodes: no name or value is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";

export const find = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function makeSvg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== undefined));
  return element;
}

// Runs `work` once calls have ceased for a moment; the signal it gets is aborted by the next call.
export function settle(work, wait_ms = 150) {
  let timer, last = new AbortController();
  return (now = false) => {
    clearTimeout(timer);
    last.abort();
    last = new AbortController();
    const { signal } = last;
    timer = setTimeout(() => work(signal), now ? 0 : wait_ms);
  };
}
