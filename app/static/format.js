// Numbers, shares and days as people read them. The page is in English, and so are its numbers, as in JSON.

const LANGUAGE = document.documentElement.lang;
const MAX_PLAIN = 1e15;
const formats = new Map();

// With `span`, the width of what it is compared with, a number has the digits that tell a thousandth of it.
export function formatNumber(value, span) {
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (size >= MAX_PLAIN || (size > 0 && size < 1e-6)) return value.toExponential(3);
  if (!(span > 0)) return getFormat({ maximumSignificantDigits: 6 }).format(value);
  const digits = Math.min(12, Math.max(0, Math.ceil(3 - Math.log10(span))));
  return getFormat({ maximumFractionDigits: digits }).format(value);
}

// Bounds and values of the form, where 2026 may be a year.
export function formatPlain(value) {
  const isShort = Math.abs(value) < 10000 && String(value).length < 9;
  return isShort ? String(value) : formatNumber(value);
}

export function formatShare(share) {
  if (share > 0 && share < 0.001) return "<0.1%";
  if (share > 0.999 && share < 1) return ">99.9%";
  const digits = share < 0.0995 || share > 0.99 ? 1 : 0;
  return getFormat({ style: "percent", maximumFractionDigits: share === 0 || share === 1 ? 0 : digits }).format(share);
}

export const formatCount = (count, noun) => `${formatNumber(count)} ${noun}${count === 1 ? "" : "s"}`;

export function formatMoment(milliseconds, has_time) {
  const shape = { dateStyle: "medium", timeStyle: has_time ? "short" : undefined, timeZone: "UTC" };
  return new Intl.DateTimeFormat(LANGUAGE, shape).format(milliseconds);
}

function getFormat(options) {
  const name = JSON.stringify(options);
  if (!formats.has(name)) formats.set(name, new Intl.NumberFormat(LANGUAGE, options));
  return formats.get(name);
}
