// Talks to the API. Paths are relative to this file, so that a prefix in front of the server does not matter.

const ROOT = new URL("../", import.meta.url);
const PLACE = "api-key";
let key = recall();

// What the server refused: its status, its words, and the fields at fault.
export class Refusal extends Error {
  constructor(status, answer) {
    super(answer.message || `The server refuses (status ${status}).`);
    this.status = status;
    this.errors = answer.errors || [];
    this.version = answer.model_version;
  }
}

export const address = (path) => new URL(path, ROOT).href;
export const hasKey = () => key !== "";
export const getKey = () => key;

export function setKey(text) {
  key = text;
  try {
    sessionStorage.setItem(PLACE, key);
  } catch { /* this browser keeps nothing: the key holds until the page is left */ }
}

function recall() {
  try {
    return sessionStorage.getItem(PLACE) || "";
  } catch {
    return "";
  }
}

// Returns the answer's JSON, or its text when another type is accepted. Throws a Refusal, also when nobody answers.
export async function ask(path, { body, type = "application/json", accept = "application/json", signal } = {}) {
  const headers = { Accept: accept };
  if (body !== undefined) headers["Content-Type"] = type;
  if (key) headers["X-API-Key"] = String.fromCharCode(...new TextEncoder().encode(key));
  let answer;
  try {
    answer = await fetch(address(path), { method: body === undefined ? "GET" : "POST", body, headers, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, { message: "The server does not answer." });
  }
  if (!answer.ok) throw new Refusal(answer.status, await answer.json().catch(() => ({})));
  return accept === "application/json" ? answer.json() : answer.text();
}
