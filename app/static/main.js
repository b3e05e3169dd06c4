// The page: asks for what the model's form holds, and then for an answer with every change.

import { Refusal, address, ask, hasKey, setKey } from "./api.js";
import { showFacts, showReport } from "./about.js";
import { showAnswer, showRefusal } from "./answer.js";
import { find, make, settle } from "./dom.js";
import { makeForm, toBody } from "./form.js";
import { watchFiles } from "./upload.js";
import { makeWhatIf } from "./whatif.js";

const RETRY_MS = 3000, SPEAK_MS = 700;
const TASKS = { regression: "Regression", binary: "Classification in two classes", multiclass: "Classification" };
let page, form, whatIf, confidence, last, place;

const speak = settle(() => { find("spoken").textContent = last.said; }, SPEAK_MS);
const predict = settle(askOne);
const explore = settle(askMany);

async function load() {
  let model;
  try {
    [page, model] = await Promise.all([ask("page/form"), ask("model")]);
  } catch (error) {
    handle(error);
    return;
  }
  if (model.model_version !== page.model_version) return void load(); // exchanged between the two
  confidence = model.confidence;
  showFacts(model);
  const typed = form && new Map(form.fields.map(({ feature, control }) => [feature.name, control.value]));
  find("notices").replaceChildren();
  find("key-form").hidden = true;
  find("kicker").textContent = `${TASKS[page.task]} · model ${page.model_version}`;
  find("title").textContent = document.title = `Predict ${page.target.name}`;
  showReport(page.has_report);
  form = makeForm(find("fields"), page);
  whatIf = makeWhatIf(form, page, choose);
  find("another").hidden = page.rows.length < 2;
  find("main").hidden = find("about-link").hidden = false;
  if (typed) {
    form.write(page.fields.map(({ name }) => typed.get(name)));
    changed(true);
  } else showRealRow(0);
}

function showRealRow(index) {
  place = index % page.rows.length;
  form.write(page.rows[place]);
  find("origin").textContent = "A real row, from the data the model learnt from. Change what you like.";
  changed(true);
}

function choose(field, text) {
  field.write(text);
  changed();
}

function changed(now) {
  const body = toBody(form.fields, form.read());
  find("curl").textContent = describeCommand(body);
  whatIf.follow();
  predict(now);
  if (!whatIf.isEmpty) explore(now);
}

async function askOne(signal) {
  const row = form.read();
  try {
    const answer = await ask("predict", { body: toBody(form.fields, row), signal });
    form.showWarnings(answer.warnings);
    last = { answer, said: showAnswer(answer, page, confidence) };
    whatIf.draw(answer);
    check(answer.model_version);
  } catch (error) {
    if (error.name === "AbortError") return;
    form.showFaults(error.errors || []);
    last = { said: showRefusal(describeRefusal(error), page) };
    handle(error);
  }
  speak();
}

function describeRefusal({ errors, message }) {
  const count = errors?.filter(({ field }) => field).length;
  if (!count) return errors?.length ? `No prediction: ${errors[0].message}.` : message;
  return `No prediction: ${count === 1 ? "one value does" : "some values do"} not fit. See the marked fields.`;
}

async function askMany(signal) {
  try {
    const answers = await ask("predict/batch", { body: whatIf.body(form.read()), signal });
    whatIf.keep(answers);
    find("what-if").classList.remove("stale");
    if (last?.answer) whatIf.draw(last.answer);
  } catch (error) {
    if (error.name !== "AbortError") find("what-if").classList.add("stale"); // the answer to the row itself says why
  }
}

// What concerns the whole page: no key, no model, another model. Refusals of values are shown at their fields.
function handle(error) {
  if (!(error instanceof Refusal)) throw error;
  if (error.version) check(error.version);
  if (error.status === 401) askForKey(hasKey() ? "The server does not know this key." : "");
  else if (!page) {
    notify(error.message);
    setTimeout(waitForModel, RETRY_MS);
  }
}

async function waitForModel() {
  const { model_version } = await ask("health").catch(() => ({}));
  if (model_version) load();
  else setTimeout(waitForModel, RETRY_MS);
}

function check(version) {
  if (!version || version === page?.model_version) return;
  const button = make("button", { type: "button", class: "main" }, "Load its form");
  button.addEventListener("click", load);
  notify(`Another model answers now: ${version}.`, button);
}

function notify(text, ...parts) {
  find("notices").replaceChildren(make("div", { class: "card notice" }, make("p", {}, text), ...parts));
}

function askForKey(fault) {
  find("main").hidden = true;
  find("key-form").hidden = false;
  find("key-fault").textContent = fault;
  find("key").toggleAttribute("aria-invalid", fault !== "");
  find("key").focus();
}

function describeCommand(body) {
  const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const key = hasKey() ? " \\\n  -H \"X-API-Key: $API_KEY\"" : "";
  return `curl ${quote(address("predict"))} \\\n  -H 'Content-Type: application/json'${key} \\\n  -d ${quote(body)}`;
}

find("row").addEventListener("input", () => {
  find("origin").textContent = "";
  changed();
});
find("row").addEventListener("submit", (event) => {
  event.preventDefault();
  changed(true);
});
find("another").addEventListener("click", () => {
  showRealRow(place + 1 + Math.floor(Math.random() * (page.rows.length - 1))); // any but the one that is shown
});
find("clear").addEventListener("click", () => {
  form.write([]);
  find("origin").textContent = "";
  form.fields[0].control.focus();
  changed(true);
});
find("copy").addEventListener("click", () => navigator.clipboard?.writeText(find("curl").textContent));
find("copy").hidden = !navigator.clipboard; // there is none without https
find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(find("key").value.trim());
  load();
});
// The number as it is, not as it is shown, where it alone is copied.
document.addEventListener("copy", (event) => {
  const value = document.getSelection().anchorNode?.parentElement?.closest("data");
  if (!value || document.getSelection().toString().trim() !== value.textContent) return;
  event.clipboardData.setData("text/plain", value.value);
  event.preventDefault();
});
document.addEventListener("visibilitychange", async () => {
  if (page && !document.hidden) check((await ask("health").catch(() => ({}))).model_version);
});

watchFiles(() => page.max_rows);
if (document.body.dataset.needsKey !== undefined && !hasKey()) askForKey("");
else load();
