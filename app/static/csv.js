// Reads CSV: cuts a file of any size into pieces of whole records, and parses the little that is shown.

const MAX_CHARACTERS = 1e6; // of a piece; four bytes each at most, within the server's limit of a body

// Yields {text, done}: pieces that begin with the header, and the share of the file that has been read.
export async function* cutFile(file, max_rows) {
  const decoder = new TextDecoderStream(await findEncoding(file), { fatal: true });
  const reader = file.stream().pipeThrough(decoder).getReader();
  const scan = makeScanner();
  let header, records = [], size = 0, read = 0, hasYielded = false;
  for (let more = true; more; ) {
    const { value = "", done } = await reader.read();
    more = !done;
    for (const record of scan(value, done)) {
      read += record.length;
      if (!record.trim()) continue;
      if (header === undefined) {
        header = record.endsWith("\n") ? record : `${record}\n`;
        continue;
      }
      if (records.length >= max_rows || (records.length && size + record.length > MAX_CHARACTERS)) {
        yield { text: header + records.join(""), done: Math.min(1, (read - record.length) / file.size) };
        hasYielded = true;
        records = [];
        size = 0;
      }
      records.push(record);
      size += record.length;
    }
  }
  if (records.length || !hasYielded) yield { text: (header || "") + records.join(""), done: 1 };
}

async function findEncoding(file) {
  const [first, second] = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  return first === 0xff && second === 0xfe ? "utf-16le" : first === 0xfe && second === 0xff ? "utf-16be" : "utf-8";
}

// Returns a function that takes text bit by bit and returns the records complete so far, line ends included.
function makeScanner() {
  let rest = "", place = 0, isQuoted = false;
  return (text, isLast) => {
    const records = [];
    rest += text;
    let start = 0;
    for (const mark = /["\n]/g; ; ) {
      mark.lastIndex = place;
      const found = mark.exec(rest);
      if (!found) break;
      place = found.index + 1;
      if (found[0] === '"') isQuoted = !isQuoted;
      else if (!isQuoted) {
        records.push(rest.slice(start, place));
        start = place;
      }
    }
    rest = rest.slice(start);
    place = rest.length;
    if (isLast && rest) records.push(rest);
    return records;
  };
}

// Returns the records of a CSV as lists of texts.
export function parseCsv(text) {
  const cell = /(?:"((?:[^"]|"")*)"|([^,]*)),/g; // each cell with the comma after it
  const records = makeScanner()(text, true).map((record) => record.replace(/\r?\n$/, ""));
  return records.filter(Boolean).map((record) =>
    [...`${record},`.matchAll(cell)].map(([, quoted, plain]) => quoted?.replaceAll('""', '"') ?? plain));
}

// Returns a CSV without its header.
export const dropHeader = (text) => text.slice((makeScanner()(text, true)[0] || "").length);
