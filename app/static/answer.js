// The prediction: the number or class, how sure it is, and what the model has not seen.

import { find, make } from "./dom.js";
import { formatNumber, formatShare } from "./format.js";

const MAX_CLASSES = 8;

// Returns the sentence to speak.
export function showAnswer(answer, { target, task }, confidence) {
  const span = target.max - target.min;
  const isNumber = task === "regression";
  const said = isNumber ? formatNumber(answer.prediction, span) : String(answer.prediction);
  const value = make("data", { value: answer.prediction, title: answer.prediction }, said);
  const sure = describeSureness(answer, confidence, span);
  find("headline").replaceChildren(make("span", { class: "name" }, target.name), value);
  find("detail").replaceChildren(
    ...(sure ? [make("p", {}, sure)] : []),
    ...(isNumber ? showScale(answer, target, span) : [showShares(answer)]),
    ...(answer.warnings.length ? [showWarnings(answer.warnings)] : []),
  );
  setState("");
  const warned = answer.warnings.length ? ` Warnings: ${answer.warnings.join("; ")}.` : "";
  return `${target.name}: ${said}. ${sure}${warned}`;
}

export function showRefusal(message, { target }) {
  const name = make("span", { class: "name" }, target.name);
  find("headline").replaceChildren(name, make("p", { class: "fault" }, message));
  find("detail").replaceChildren();
  setState("refused");
  return message;
}

function setState(state) {
  find("answer").dataset.state = state;
}

function describeSureness({ prediction, interval, prediction_set: set }, confidence, span) {
  const often = confidence ? formatShare(confidence) : "most";
  if (interval) {
    const [low, high] = interval.map((end) => formatNumber(end, span));
    return `${low} to ${high}: intervals like this hold the true value for ${often} of rows.`;
  }
  if (!set) return "";
  const others = set.filter((name) => String(name) !== String(prediction)).map((name) => `“${name}”`);
  const said = others.length ? `${others.join(", ")} may be it as well` : "No other class comes into question";
  return `${said}: sets like this hold the true class for ${often} of rows.`;
}

// The answer and its interval on the range that the target had in training.
function showScale({ prediction, interval }, { min, max }, span) {
  if (!(span > 0)) return [];
  const ends = interval || [prediction, prediction];
  const low = Math.min(min, ends[0], prediction), high = Math.max(max, ends[1], prediction);
  const place = (value) => `${(100 * (value - low)) / (high - low)}%`;
  const band = make("i"), known = make("u"), mark = make("b");
  Object.assign(known.style, { left: place(min), right: `calc(100% - ${place(max)})` });
  Object.assign(band.style, { left: place(ends[0]), right: `calc(100% - ${place(ends[1])})` });
  mark.style.left = place(prediction);
  const say = (value) => formatNumber(value, span);
  const isWider = low < min || high > max;
  const told = isWider ? `in training ${say(min)} to ${say(max)}` : "range in training";
  const labels = [say(low), told, say(high)].map((label) => make("span", {}, label));
  const scale = make("div", { class: "scale", "aria-hidden": "true" }, known, band, mark);
  return [scale, make("div", { class: "ends" }, ...labels)];
}

function showShares({ probabilities, prediction }) {
  const shares = Object.entries(probabilities || {}).sort((one, other) => other[1] - one[1]);
  const rows = shares.slice(0, MAX_CLASSES).map(([name, share]) => {
    const bar = make("i");
    bar.style.width = `${100 * share}%`;
    return make("li", { class: name === String(prediction) && "chosen" },
      make("span", { class: "name" }, name),
      make("data", { value: share, title: share }, formatShare(share)),
      make("span", { class: "bar", "aria-hidden": "true" }, bar));
  });
  const rest = shares.length - MAX_CLASSES;
  if (rest > 0) rows.push(make("li", { class: "hint" }, `and ${rest} more`));
  return make("ul", { class: "shares", "aria-label": "Probabilities" }, ...rows);
}

const showWarnings = (warnings) =>
  make("ul", { class: "findings", "aria-label": "Warnings" }, ...warnings.map((warning) => make("li", {}, warning)));
