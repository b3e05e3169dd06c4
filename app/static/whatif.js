// What if one value were another: for the strongest features, the answers over the whole range of each.
// One batch of at most 100 rows asks for all of them. The charts share one scale, so that they can be compared.

import { isKnown, isList, makeCard } from "./cards.js";
import { find } from "./dom.js";
import { toBody } from "./form.js";
import { formatNumber, formatShare } from "./format.js";

const MAX_ROWS = 100;
const MAX_SLIDERS = 3, MAX_LISTS = 2;

// Returns the parts of the section for the features of a form; `choose` is called with a field and its new value.
export function makeWhatIf(form, { strongest, target, task, max_rows }, choose) {
  const known = strongest.map(form.get).filter(({ feature }) => isKnown(feature));
  const sliders = known.filter(({ feature }) => !isList(feature)).slice(0, MAX_SLIDERS);
  const lists = known.filter(({ feature }) => isList(feature)).slice(0, MAX_LISTS);
  const fields = known.filter((field) => sliders.includes(field) || lists.includes(field));
  const each = Math.max(2, Math.floor(Math.min(MAX_ROWS, max_rows) / fields.length));
  const cards = fields.map((field, place) => makeCard(field, `what-if-${place}`, each, choose));
  find("curves").replaceChildren(...cards.map(({ element }) => element));
  find("what-if").hidden = !cards.length;
  return {
    isEmpty: !cards.length,
    body: (row) => writeBatch(cards, form.fields, row),
    keep: (batch) => keepAnswers(cards, batch.predictions),
    draw: (present) => drawCards(cards, present, task === "regression", target),
    follow: () => cards.forEach((card) => card.follow()),
  };
}

function writeBatch(cards, fields, row) {
  const rows = cards.flatMap(({ field, points }) => points.map(({ text }) => toBody(fields, row, field, text)));
  return `[${rows.join(",")}]`;
}

function keepAnswers(cards, predictions) {
  const answers = new Map(predictions.map((answer) => [answer.index, answer]));
  let index = 0;
  for (const card of cards) card.answers = card.points.map(() => answers.get(index++));
}

function drawCards(cards, present, isNumber, target) {
  if (!cards.every(({ answers }) => answers)) return; // they have not come yet
  const label = String(present.prediction);
  const read = (answer) => (isNumber ? answer?.prediction : answer?.probabilities?.[label]);
  const scale = { ...findScale(cards, present, isNumber), present: read(present) };
  find("what-if-note").textContent = isNumber
    ? `${target.name} as the model has it for the row above with one value changed. All charts share one scale.`
    : `The probability of “${label}” for the row above with one value changed.`;
  for (const card of cards) {
    const bands = card.answers.map((answer) => (isNumber ? answer?.interval : undefined));
    card.draw({ ...scale, values: card.answers.map(read), bands });
  }
}

// Returns the ends of the common scale, `share` of a value between them, and how to `say` a value.
function findScale(cards, present, isNumber) {
  if (!isNumber) return { low: 0, high: 1, share: (value) => value, say: formatShare };
  const answers = [present, ...cards.flatMap((card) => card.answers)].filter(Boolean);
  const ends = answers.flatMap(({ prediction, interval = [] }) => [prediction, ...interval]);
  const low = Math.min(...ends);
  const span = Math.max(...ends) - low || 1;
  return { low, high: low + span, share: (value) => (value - low) / span, say: (value) => formatNumber(value, span) };
}
