// What if one value were another: for the strongest features, the answers over the whole range of each.
// One batch of at most 100 rows asks for all of them. The charts share one scale, so that they can be compared.

import { find, make, makeSvg } from "./dom.js";
import { parseMoment } from "./fields.js";
import { toBody } from "./form.js";
import { formatMoment, formatNumber, formatPlain, formatShare } from "./format.js";

const MAX_ROWS = 100;
const MAX_SLIDERS = 3, MAX_LISTS = 2, MAX_POINTS = 25, MAX_CATEGORIES = 8;
const WIDTH = 320, HEIGHT = 130, TOP = 8, BOTTOM = 108, RIGHT = 264; // page.css makes the sliders as wide as the plot
const DAY = 86400000;

// Returns the parts of the section for the features of a form; `choose` is called with a field and its new value.
export function makeWhatIf(form, { strongest, target, task, max_rows }, choose) {
  const room = { slider: MAX_SLIDERS, list: MAX_LISTS };
  const fields = strongest.map(form.get).filter((field) => isKnown(field.feature) && room[getShape(field.feature)]-- > 0);
  const budget = Math.floor(Math.min(MAX_ROWS, max_rows) / Math.max(1, fields.length));
  const cards = fields.map((field, place) => makeCard(field, place, Math.max(2, budget), choose));
  find("curves").replaceChildren(...cards.map(({ element }) => element));
  find("what-if").hidden = !cards.length;
  const isNumber = task === "regression";
  return {
    isEmpty: !cards.length,
    body: (row) => `[${cards.flatMap(({ field, points }) => points.map(({ text }) => toBody(form.fields, row, field, text)))}]`,
    keep: ({ predictions }) => {
      const answers = new Map(predictions.map((answer) => [answer.index, answer]));
      let index = 0;
      for (const card of cards) card.answers = card.points.map(() => answers.get(index++));
    },
    draw: (present) => drawCards(cards, present, isNumber, target),
    follow: () => cards.forEach((card) => card.follow()),
  };
}

const getShape = ({ kind }) => (kind === "category" || kind === "boolean" ? "list" : "slider");

const isKnown = ({ kind, min, max, categories }) =>
  kind === "boolean" || (kind === "category" ? categories?.length > 1 : parseValue(kind, min) < parseValue(kind, max));

const parseValue = (kind, value) => (value === undefined || value === "" ? NaN : kind === "datetime" ? parseMoment(value) : Number(value));

function makeCard(field, place, budget, choose) {
  const id = `what-if-${place}`;
  return getShape(field.feature) === "list" ? makeList(field, id, budget, choose) : makeSlider(field, id, budget, choose);
}

function makeSlider(field, id, budget, choose) {
  const { kind, name, has_time, ...bounds } = field.feature;
  const [low, high] = [bounds.min, bounds.max].map((bound) => parseValue(kind, bound));
  const step = chooseStep(kind, has_time, high - low);
  const say = (value) => (kind === "datetime" ? formatMoment(value, has_time) : formatPlain(Number(value)));
  const write = (value) => (kind === "datetime" ? new Date(value).toISOString().slice(0, has_time ? 19 : 10) : String(value));
  const quote = (value) => (kind === "datetime" ? JSON.stringify(write(value)) : write(value));
  const slider = make("input", { type: "range", id, min: low, max: high, step });
  const shown = make("output", { for: id });
  const plot = make("div", { class: "plot" });
  slider.addEventListener("input", () => choose(field, write(Number(slider.value))));
  const count = Math.min(MAX_POINTS, budget);
  const spread = Array.from({ length: count }, (_, i) => low + ((high - low) * i) / (count - 1));
  const values = kind === "number" ? spread.map((value) => Number(value.toPrecision(12))) : spread.map((value) => low + Math.round((value - low) / step) * step);
  const points = [...new Set(values)].map((value) => ({ value, text: quote(value) }));
  const getValue = () => parseValue(kind, field.control.value.trim());
  const follow = () => {
    const value = getValue();
    const isOn = value >= low && value <= high;
    slider.value = isOn ? value : (low + high) / 2;
    slider.classList.toggle("off", !isOn);
    shown.value = Number.isNaN(value) ? "missing" : say(value);
    slider.setAttribute("aria-valuetext", shown.value);
  };
  const element = make("div", { class: "card" }, make("div", { class: "head" }, make("label", { for: id }, name), shown), plot, slider);
  return { field, points, element, follow, draw: (scale) => plot.replaceChildren(drawCurve(name, points, scale, getValue(), say)) };
}

function chooseStep(kind, has_time, span) {
  if (kind === "datetime") return has_time ? Math.max(1000, Math.round(span / 1e5) * 1000) : DAY;
  const step = 10 ** Math.floor(Math.log10(span / 100));
  return kind === "integer" ? Math.max(1, step) : Number(step.toPrecision(1));
}

function makeList(field, id, budget, choose) {
  const { kind, name, categories, true_values, false_values } = field.feature;
  const all = kind === "boolean" ? [["false", false_values?.[0] ?? "false"], ["true", true_values?.[0] ?? "true"]] : categories.map((value) => [value, value]);
  const options = all.slice(0, Math.min(MAX_CATEGORIES, budget));
  const rows = options.map(([value, label]) => {
    const radio = make("input", { type: "radio", name: id, value });
    radio.addEventListener("change", () => choose(field, value));
    const dot = make("b"), answer = make("data");
    const track = make("span", { class: "track", "aria-hidden": "true" }, dot);
    return { radio, dot, answer, element: make("label", { class: "option" }, radio, make("span", { class: "name", title: label }, label), track, answer) };
  });
  const more = all.length > options.length ? [make("p", { class: "hint" }, `and ${all.length - options.length} more`)] : [];
  const element = make("fieldset", { class: "card" }, make("legend", {}, name), ...rows.map((row) => row.element), ...more);
  const points = options.map(([value]) => ({ value, text: kind === "boolean" ? value : JSON.stringify(value) }));
  const follow = () => rows.forEach(({ radio }) => { radio.checked = radio.value === field.control.value; });
  const draw = (scale) => rows.forEach(({ dot, answer }, place) => {
    const value = scale.values[place];
    answer.textContent = value === undefined ? "–" : scale.say(value);
    answer.value = answer.title = value ?? "";
    dot.hidden = value === undefined;
    if (value !== undefined) dot.style.left = `${100 * scale.share(value)}%`;
  });
  return { field, points, element, follow, draw };
}

function drawCards(cards, present, isNumber, target) {
  if (!cards.some(({ answers }) => answers)) return;
  const label = String(present.prediction);
  const read = isNumber ? (answer) => answer?.prediction : (answer) => answer?.probabilities?.[label];
  const ends = isNumber ? cards.flatMap(({ answers }) => answers.flatMap((one) => (one ? [one.prediction, ...(one.interval || [])] : []))) : [0, 1];
  if (isNumber) ends.push(present.prediction);
  const low = Math.min(...ends), high = Math.max(...ends), span = high - low || 1;
  const say = isNumber ? (value) => formatNumber(value, span) : formatShare;
  const scale = { low, high: low + span, say, share: (value) => (value - low) / span, present: read(present) };
  find("what-if-note").textContent = isNumber
    ? `${target.name} as the model has it for the row above with one value changed. All charts share one scale.`
    : `The probability of “${label}” for the row above with one value changed.`;
  for (const card of cards) {
    const bands = isNumber ? card.answers.map((answer) => answer?.interval) : [];
    card.draw({ ...scale, values: card.answers.map(read), bands });
  }
}

function drawCurve(name, points, scale, present, say) {
  const low = points[0].value, high = points.at(-1).value;
  const x = (value) => (6 + ((value - low) / (high - low)) * (RIGHT - 12)).toFixed(1);
  const y = (value) => (BOTTOM - scale.share(value) * (BOTTOM - TOP)).toFixed(1);
  const drawn = points.map((point, place) => ({ at: x(point.value), value: scale.values[place], band: scale.bands[place] })).filter(({ value }) => value !== undefined);
  const line = drawn.map(({ at, value }) => `${at},${y(value)}`).join(" ");
  const banded = drawn.filter(({ band }) => band);
  const outline = [...banded.map(({ at, band }) => `${at},${y(band[1])}`), ...banded.reverse().map(({ at, band }) => `${at},${y(band[0])}`)];
  const isOn = present >= low && present <= high && scale.present !== undefined;
  const values = drawn.map(({ value }) => value);
  const told = `From ${scale.say(Math.min(...values))} to ${scale.say(Math.max(...values))} over ${name} from ${say(low)} to ${say(high)}`;
  return makeSvg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": told },
    makeSvg("path", { class: "grid", d: `M0 ${TOP}H${RIGHT}M0 ${BOTTOM}H${RIGHT}` }),
    ...(outline.length ? [makeSvg("polygon", { class: "band", points: outline.join(" ") })] : []),
    makeSvg("polyline", { class: "line", points: line }),
    ...(isOn ? [makeSvg("path", { class: "now", d: `M${x(present)} ${TOP}V${BOTTOM}` }), makeSvg("circle", { class: "dot", cx: x(present), cy: y(scale.present), r: 5 })] : []),
    makeSvg("text", { x: RIGHT + 6, y: TOP + 4 }, scale.say(scale.high)), makeSvg("text", { x: RIGHT + 6, y: BOTTOM + 4 }, scale.say(scale.low)),
    makeSvg("text", { x: 2, y: HEIGHT - 7 }, say(low)), makeSvg("text", { x: RIGHT - 2, y: HEIGHT - 7, "text-anchor": "end" }, say(high)));
}
