// One curve: the answers over the range of a feature, their intervals as a band, and where the row is now.

import { makeSvg } from "./dom.js";

const WIDTH = 320, HEIGHT = 130, TOP = 8, BOTTOM = 108;
const RIGHT = 264; // where the plot ends and its scale stands; page.css makes the sliders as wide
const MARGIN = 6;

// `points` have the values, `scale` the answers to them; `present` is the value now, and `say` writes one.
export function drawCurve(name, points, scale, present, say) {
  const low = points[0].value, high = points.at(-1).value;
  const x = (value) => (MARGIN + ((value - low) / (high - low)) * (RIGHT - 2 * MARGIN)).toFixed(1);
  const y = (value) => (BOTTOM - scale.share(value) * (BOTTOM - TOP)).toFixed(1);
  const { values, bands } = scale;
  const all = points.map((point, place) => ({ at: x(point.value), value: values[place], band: bands[place] }));
  const drawn = all.filter(({ value }) => value !== undefined);
  const line = drawn.map(({ at, value }) => `${at},${y(value)}`).join(" ");
  const isOn = present >= low && present <= high && scale.present !== undefined;
  const told = describe(name, drawn, scale, say(low), say(high));
  return makeSvg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": told },
    makeSvg("path", { class: "grid", d: `M0 ${TOP}H${RIGHT}M0 ${BOTTOM}H${RIGHT}` }),
    makeSvg("polygon", { class: "band", points: outline(drawn, y) }),
    makeSvg("polyline", { class: "line", points: line }),
    ...(isOn ? markPresent(x(present), y(scale.present)) : []),
    makeSvg("text", { x: RIGHT + MARGIN, y: TOP + 4 }, scale.say(scale.high)),
    makeSvg("text", { x: RIGHT + MARGIN, y: BOTTOM + 4 }, scale.say(scale.low)),
    makeSvg("text", { x: 2, y: HEIGHT - 7 }, say(low)),
    makeSvg("text", { x: RIGHT - 2, y: HEIGHT - 7, "text-anchor": "end" }, say(high)));
}

function describe(name, drawn, scale, low, high) {
  const values = drawn.map(({ value }) => value);
  if (!values.length) return `No answers over ${name} from ${low} to ${high}`;
  const [least, most] = [Math.min(...values), Math.max(...values)].map(scale.say);
  return `From ${least} to ${most} over ${name} from ${low} to ${high}`;
}

// The upper ends of the intervals from left to right, and the lower ones back.
function outline(drawn, y) {
  const banded = drawn.filter(({ band }) => band);
  const upper = banded.map(({ at, band }) => `${at},${y(band[1])}`);
  const lower = banded.map(({ at, band }) => `${at},${y(band[0])}`).reverse();
  return [...upper, ...lower].join(" ");
}

const markPresent = (x, y) => [
  makeSvg("path", { class: "now", d: `M${x} ${TOP}V${BOTTOM}` }),
  makeSvg("circle", { class: "dot", cx: x, cy: y, r: 5 }),
];
