// The form: one field for each feature, in the contract's order; of very many, the strongest are shown first.

import { make } from "./dom.js";
import { makeField } from "./fields.js";

const MAX_SHOWN = 30;
const SHOWN_OF_MANY = 12;

// Returns the form's parts. A row is a list of JSON texts in the order of the features; undefined is not sent.
export function makeForm(container, { fields: features, strongest }) {
  const fields = features.map(makeField);
  const { shown, rest, more } = share(fields, strongest);
  container.replaceChildren(makeGrid(shown), ...(rest.length ? [more] : []));
  const names = new Map(fields.map((field) => [field.feature.name, field]));
  return {
    fields,
    get: (name) => names.get(name),
    read: () => fields.map((field) => field.read()),
    write: (values) => fields.forEach((field, place) => field.write(values[place])),
    showWarnings: (warnings) => showNotes(fields, warnings.map(splitWarning(names)), "warning"),
    showFaults: (errors) => {
      const notes = errors.map(({ field, message }) => [findShown(fields, field), toPlainWords(message)]);
      showNotes(fields, notes, "fault");
      if (notes.some(([field]) => field && rest.includes(field))) more.open = true;
    },
  };
}

// Returns a row as the JSON text of an object, with one of its values replaced.
export function toBody(fields, row, replaced, text) {
  const parts = fields.map((field, place) => [field, field === replaced ? text : row[place]]);
  const sent = parts.filter(([, value]) => value !== undefined);
  return `{${sent.map(([field, value]) => `${JSON.stringify(field.feature.name)}: ${value}`).join(", ")}}`;
}

const findShown = (fields, name) => fields.find(({ feature }) => feature.shown === name);

// The API speaks to programs, which have to send JSON; the form does that.
const toPlainWords = (message) => message.replace("a JSON integer", "a whole number").replace("JSON ", "");

function share(fields, strongest) {
  if (fields.length <= MAX_SHOWN) return { shown: fields, rest: [] };
  const first = new Set(strongest.slice(0, SHOWN_OF_MANY));
  const isShown = (field, place) => first.has(field.feature.name) || (!first.size && place < SHOWN_OF_MANY);
  const shown = fields.filter(isShown);
  const rest = fields.filter((field) => !shown.includes(field));
  const summary = make("summary", {}, `${rest.length.toLocaleString("en")} more, of less weight`);
  return { shown, rest, more: make("details", { class: "more" }, summary, makeGrid(rest)) };
}

const makeGrid = (fields) => make("div", { class: "fields" }, ...fields.map(({ element }) => element));

function showNotes(fields, notes, kind) {
  const told = new Map(notes.filter(([field]) => field));
  for (const field of fields) field.say(told.get(field) || "", told.has(field) ? kind : "");
}

// A warning begins with the name of its feature, and names may hold colons: the longest that fits is meant.
const splitWarning = (names) => (warning) => {
  for (let end = warning.lastIndexOf(": "); end > 0; end = warning.lastIndexOf(": ", end - 1)) {
    if (names.has(warning.slice(0, end))) return [names.get(warning.slice(0, end)), warning.slice(end + 2)];
  }
  return [undefined, warning];
};
