// The cards of what if: a slider below a curve for numbers and dates, a list to choose from for anything else.
// A card has `points`, whose `text` is the JSON of a value; it can `draw` the answers to them, and `follow` the form.

import { drawCurve } from "./curve.js";
import { make } from "./dom.js";
import { listWords, parseMoment } from "./fields.js";
import { formatMoment, formatPlain } from "./format.js";

const MAX_POINTS = 25, MAX_CATEGORIES = 8;
const DAY_MS = 86400000;

export const isList = ({ kind }) => kind === "category" || kind === "boolean";

export function isKnown({ kind, min, max, categories }) {
  if (kind === "boolean") return true;
  return kind === "category" ? categories?.length > 1 : parseValue(kind, min) < parseValue(kind, max);
}

export function makeCard(field, id, max_points, choose) {
  return (isList(field.feature) ? makeList : makeSlider)(field, id, max_points, choose);
}

function parseValue(kind, value) {
  if (value === undefined || value === "") return NaN;
  return kind === "datetime" ? parseMoment(value) : Number(value);
}

function makeSlider(field, id, max_points, choose) {
  const { kind, name, has_time, min, max } = field.feature;
  const isMoment = kind === "datetime";
  const low = parseValue(kind, min), high = parseValue(kind, max);
  const step = chooseStep(kind, has_time, high - low);
  const say = (value) => (isMoment ? formatMoment(value, has_time) : formatPlain(value));
  const write = (value) => (isMoment ? new Date(value).toISOString().slice(0, has_time ? 19 : 10) : String(value));
  const values = listValues(low, high, kind === "number" ? 0 : step, Math.min(MAX_POINTS, max_points));
  const points = values.map((value) => ({ value, text: isMoment ? JSON.stringify(write(value)) : write(value) }));
  const slider = make("input", { type: "range", id, min: low, max: high, step });
  const shown = make("output", { for: id });
  const plot = make("div", { class: "plot" });
  slider.addEventListener("input", () => choose(field, write(Number(slider.value))));
  const getValue = () => parseValue(kind, field.control.value.trim());
  const follow = () => {
    const value = getValue();
    const isOn = value >= low && value <= high;
    slider.value = isOn ? value : (low + high) / 2;
    slider.classList.toggle("off", !isOn);
    shown.value = Number.isNaN(value) ? "missing" : say(value);
    slider.setAttribute("aria-valuetext", shown.value);
  };
  const draw = (scale) => plot.replaceChildren(drawCurve(name, points, scale, getValue(), say));
  const head = make("div", { class: "head" }, make("label", { for: id }, name), shown);
  return { field, points, draw, follow, element: make("div", { class: "card" }, head, plot, slider) };
}

function chooseStep(kind, has_time, span) {
  if (kind === "datetime") return has_time ? Math.max(1000, Math.round(span / 1e5) * 1000) : DAY_MS;
  const step = 10 ** Math.floor(Math.log10(span / 100));
  return kind === "integer" ? Math.max(1, step) : Number(step.toPrecision(1));
}

// Returns values from low to high, evenly apart; with a step, multiples of it from low, each once.
function listValues(low, high, step, count) {
  const even = Array.from({ length: count }, (_, place) => low + ((high - low) * place) / (count - 1));
  return step ? [...new Set(even.map((value) => low + Math.round((value - low) / step) * step))]
    : even.map((value) => Number(value.toPrecision(12)));
}

function makeList(field, id, max_points, choose) {
  const { kind, name, categories } = field.feature;
  const all = kind === "boolean" ? listWords(field.feature) : categories.map((value) => [value, value]);
  const options = all.slice(0, Math.min(MAX_CATEGORIES, max_points));
  const rows = options.map(([value, label]) => makeOption(id, value, label, () => choose(field, value)));
  const points = options.map(([value]) => ({ text: kind === "boolean" ? value : JSON.stringify(value) }));
  const follow = () => rows.forEach(({ radio }) => { radio.checked = radio.value === field.control.value; });
  const draw = (scale) => rows.forEach((row, place) => showOption(row, scale.values[place], scale));
  const legend = make("legend", {}, name), elements = rows.map((row) => row.element);
  const rest = all.length - options.length;
  const more = rest ? make("p", { class: "hint" }, `and ${rest} more`) : undefined;
  return { field, points, draw, follow, element: make("fieldset", { class: "card" }, legend, ...elements, more) };
}

function makeOption(id, value, label, choose) {
  const radio = make("input", { type: "radio", name: id, value });
  radio.addEventListener("change", choose);
  const dot = make("b"), answer = make("data"), name = make("span", { class: "name" }, label);
  const track = make("span", { class: "track", "aria-hidden": "true" }, dot);
  return { radio, dot, answer, element: make("label", { class: "option" }, radio, name, track, answer) };
}

function showOption({ dot, answer }, value, scale) {
  dot.hidden = value === undefined;
  answer.textContent = value === undefined ? "–" : scale.say(value);
  answer.value = answer.title = value ?? "";
  if (value !== undefined) dot.style.left = `${100 * scale.share(value)}%`;
}
