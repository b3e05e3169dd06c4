// Many rows: a CSV is sent in pieces, and comes back as one CSV with a prediction for each row.

import { ask } from "./api.js";
import { cutFile, dropHeader, parseCsv } from "./csv.js";
import { find, make } from "./dom.js";
import { formatCount, formatNumber } from "./format.js";

const PATH = "predict/batch?keep=true";
const FIRST_ROWS = 10, MAX_TRIES = 10, MAX_FAULTS = 5;
const IDS = ["prediction_id", "model_version"];
let stopper = new AbortController();

export function watchFiles(getMaxRows) {
  const drop = find("drop");
  const take = (files) => files.length && score(files[0], getMaxRows());
  find("file").addEventListener("change", ({ target }) => {
    take(target.files);
    target.value = ""; // so that the same file can be chosen again
  });
  for (const [name, isOver] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", isOver);
      if (name === "drop") take(event.dataTransfer.files);
    });
  }
  find("stop").addEventListener("click", () => stopper.abort());
}

async function score(file, max_rows) {
  stopper.abort();
  stopper = new AbortController();
  const { signal } = stopper;
  begin(file);
  try {
    const found = await sendPieces(file, max_rows, signal);
    offer(file, found);
  } catch (error) {
    if (signal !== stopper.signal) return; // another file was chosen meanwhile
    say(describe(error), true);
  }
  if (signal === stopper.signal) find("progress").hidden = find("stop").hidden = true;
}

async function sendPieces(file, max_rows, signal) {
  const parts = [];
  let count = 0, bad = 0;
  for await (const { text, done } of cutFile(file, max_rows)) {
    const answer = await send(text, signal);
    const [header, ...rows] = parseCsv(answer);
    const place = header.lastIndexOf("error");
    if (!parts.length) showRows(header, rows.slice(0, FIRST_ROWS));
    parts.push(parts.length ? dropHeader(answer) : answer);
    count += rows.length;
    bad += rows.filter((row) => row[place]).length;
    find("progress").value = done;
    say(`${file.name}: ${formatCount(count, "row")} so far`);
  }
  return { parts, count, bad };
}

// Sends one piece; while the server has too much to do, again after a second.
async function send(text, signal) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await ask(PATH, { body: text, type: "text/csv", accept: "text/csv", signal });
    } catch (error) {
      if (error.status !== 503 || tries === MAX_TRIES) throw error;
      await new Promise((go) => setTimeout(go, 1000));
    }
  }
}

function begin(file) {
  URL.revokeObjectURL(find("download").href);
  find("download").hidden = find("first-rows").hidden = true;
  find("progress").value = 0;
  find("progress").hidden = find("stop").hidden = false;
  say(`${file.name} is being scored …`);
}

function offer(file, { parts, count, bad }) {
  const link = find("download");
  link.href = URL.createObjectURL(new Blob(parts, { type: "text/csv" }));
  link.download = `${file.name.replace(/\.\w+$/, "")}_scored.csv`;
  link.textContent = `Download ${link.download}`;
  link.hidden = false;
  const why = `${formatCount(bad, "row")} of them got no prediction: the column “error” says why.`;
  say(`${formatCount(count, "row")} scored. ${bad ? why : ""}`);
}

// What was added comes first here, for there may be hundreds of columns; ids are left to the file.
function showRows(names, records) {
  const added = names.lastIndexOf("prediction");
  const order = [...names.keys()].filter((place) => place < added || !IDS.includes(names[place]));
  order.sort((one, other) => (other >= added) - (one >= added) || one - other);
  const head = make("tr", {}, ...order.map((place) => make("th", { scope: "col" }, names[place])));
  const body = records.map((cells) => make("tr", {}, ...order.map((place) => makeCell(cells[place] ?? ""))));
  const caption = make("caption", {}, `The first ${records.length === 1 ? "row" : `${records.length} rows`}`);
  find("first-rows").replaceChildren(make("table", {}, caption, make("thead", {}, head), make("tbody", {}, ...body)));
  find("first-rows").hidden = false;
}

function makeCell(text) {
  const isNumber = text !== "" && Number.isFinite(Number(text));
  const isLong = isNumber && text.length > 9;
  const attributes = { class: isNumber ? undefined : "text", title: isLong || text.length > 40 ? text : undefined };
  return make("td", attributes, isLong ? formatNumber(Number(text)) : text);
}

function describe(error) {
  if (error.name === "AbortError") return "Stopped. Nothing was kept.";
  if (error instanceof TypeError) return "The file is not text in UTF-8 or UTF-16. Save it as UTF-8 and try again.";
  const faults = (error.errors || []).filter(({ field }) => field).map(({ field, message }) => `${field}: ${message}`);
  const more = faults.length > MAX_FAULTS ? `; and ${faults.length - MAX_FAULTS} more` : "";
  const said = faults.length ? ` ${faults.slice(0, MAX_FAULTS).join("; ")}${more}.` : "";
  return error.message.replace("; see errors.", said ? ":" : ".") + said;
}

function say(text, isFault = false) {
  const state = find("file-state");
  state.textContent = text;
  state.classList.toggle("fault", isFault);
}
