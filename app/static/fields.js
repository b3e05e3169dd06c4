// One field of the form, made from what the contract says of a feature.
// A field reads itself as the JSON text of its value: numbers keep every digit that was typed.

import { make } from "./dom.js";
import { formatMoment, formatPlain } from "./format.js";

const MAX_OPTIONS = 50; // longer lists of categories are searched by typing
const MAX_LISTED = 1000;
const JSON_NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;
const ANOTHER = "another value …";

export function makeField(feature, number) {
  const id = `field-${number}`;
  const note = make("p", { class: "field-note", id: `${id}-note` });
  const hint = describe(feature);
  const parts = {
    id, required: !feature.nullable, "aria-describedby": `${hint ? `${id}-hint ` : ""}${id}-note`, autocomplete: "off",
  };
  const label = make("label", { for: id }, feature.name);
  const field = { feature, label, control: undefined };
  field.show = (control) => {
    field.control?.replaceWith(control);
    field.control = control;
  };
  field.write = (value) => writeValue(field, parts, value);
  field.read = () => readText(field);
  field.say = (text, kind) => say(field, note, text, kind);
  field.write(null);
  const tail = hint && make("p", { class: "hint", id: `${id}-hint` }, hint);
  field.element = make("div", { class: "field" }, label, field.control, ...(tail ? [tail] : []), note);
  return field;
}

function describe({ kind, nullable, min, max, has_time, categories }) {
  const words = [];
  const bounds = [min, max].map((bound) => {
    if (bound === undefined) return undefined;
    return kind === "datetime" ? formatMoment(parseMoment(bound), has_time) : formatPlain(bound);
  });
  if (bounds[0] !== undefined && bounds[1] !== undefined) words.push(`${bounds[0]} to ${bounds[1]}`);
  if (kind === "integer") words.push("whole number");
  if (categories?.length > MAX_OPTIONS) words.push(`one of ${categories.length.toLocaleString("en")}`);
  if (nullable) words.push("may be blank");
  return words.join(" · ");
}

// Moments without an offset are in UTC, as the API takes them.
export function parseMoment(text) {
  const isWhole = !text.includes("T") || /(Z|[+-]\d\d:?\d\d)$/.test(text);
  return Date.parse(isWhole ? text : `${text}Z`);
}

function writeValue(field, parts, value) {
  const { feature } = field;
  const text = value === null || value === undefined ? "" : String(value);
  if (feature.kind === "category" && (!field.control || isOff(field.control, text))) {
    const known = feature.categories || [];
    const isListed = known.length && known.length <= MAX_OPTIONS && (text === "" || known.includes(text));
    field.show(isListed ? makeSelect(field, parts, known.map((name) => [name, name])) : makeText(field, parts));
  } else if (!field.control) {
    field.show(feature.kind === "boolean" ? makeSelect(field, parts, listWords(feature)) : makeText(field, parts));
  }
  field.control.value = feature.kind === "datetime" ? text.slice(0, feature.has_time ? 19 : 10) : text;
}

// A list without that value, or a text that a list could stand in for again.
function isOff(control, text) {
  return control.tagName !== "SELECT" || ![...control.options].some((option) => option.value === text);
}

// The values of a boolean, with the words that the data have for them.
export const listWords = ({ true_values, false_values }) => [
  ["true", true_values?.[0] ?? "true"], ["false", false_values?.[0] ?? "false"],
];

function makeSelect(field, parts, options) {
  const { feature } = field;
  const select = make("select", parts, make("option", { value: "" }, feature.nullable ? "" : "choose …"));
  select.append(...options.map(([value, name]) => make("option", { value }, name)));
  if (feature.kind === "category" && feature.unseen === "warn") {
    const another = make("option", {}, ANOTHER);
    select.append(another);
    select.addEventListener("change", () => {
      if (select.selectedOptions[0] !== another) return;
      field.show(makeText(field, parts));
      field.control.focus();
    });
  }
  return select;
}

function makeText(field, parts) {
  const { kind, has_time, min, categories } = field.feature;
  if (kind === "datetime") {
    return make("input", { ...parts, type: has_time ? "datetime-local" : "date", step: has_time && 1 });
  }
  const keypads = min >= 0 ? { integer: "numeric", number: "decimal" } : {}; // which have no minus
  const list = categories && make("datalist", { id: `${parts.id}-list` });
  const inputmode = keypads[kind];
  const input = make("input", { ...parts, type: "text", inputmode, spellcheck: "false", list: list?.id });
  list?.append(...categories.slice(0, MAX_LISTED).map((value) => make("option", { value })));
  if (list) field.label.replaceChildren(field.feature.name, list);
  return input;
}

// Returns undefined for what is not to be sent: blank, where a value is required.
function readText({ feature, control }) {
  const text = control.value.trim();
  if (control.validity.badInput) return JSON.stringify("incomplete");
  if (text === "") return feature.nullable ? "null" : undefined;
  if (feature.kind === "boolean") return text;
  if (feature.kind !== "number" && feature.kind !== "integer") return JSON.stringify(text);
  if (JSON_NUMBER.test(text)) return text;
  const value = Number(text); // as in .5 or +3
  return Number.isFinite(value) && /^[+.\d-]/.test(text) && !/x|b|o/i.test(text) ? String(value) : JSON.stringify(text);
}

function say({ control, element }, note, text, kind) {
  note.textContent = text;
  element.dataset.state = kind;
  if (kind === "fault") control.setAttribute("aria-invalid", "true");
  else control.removeAttribute("aria-invalid");
}
