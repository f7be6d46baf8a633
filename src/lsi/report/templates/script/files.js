// Decisions as files, for `lsi apply FILE DATASET`, and back. They say what they are, and of which data they speak.

const FIELDS = ["sample_id", "decision", "label", "suggested_label"];

function decisionRecords() {
  return Array.from(decisions.keys())
    .sort((a, b) => a - b)
    .map((row) => ({
      sample_id: data.ids[row],
      decision: decisions.get(row),
      label: labelValue("label", row),
      suggested_label: labelValue("suggested", row),
    }));
}

function decisionsJson() {
  const file = { ...data.mark.fields, decisions: decisionRecords() };
  return `${JSON.stringify(file, null, 1)}\n`;
}

// A spreadsheet runs text that starts like a formula: an apostrophe in front stops it. Texts that start with
// an apostrophe get one too, so that removing one restores every text exactly.
function csvCell(value) {
  let text = value === null || value === undefined ? "" : String(value);
  if (typeof value === "boolean") text = value ? "True" : "False"; // as Python spells labels
  if (typeof value === "string" && /^['=+\-@\t\r]/u.test(text)) text = `'${text}`;
  return /[",\r\n]/u.test(text) || text !== text.trim() ? `"${text.replaceAll('"', '""')}"` : text;
}

function decisionsCsv() {
  const lines = decisionRecords().map((record) => `${FIELDS.map((field) => csvCell(record[field])).join(",")},`);
  return `${[`${FIELDS.join(",")},${data.mark.line}`, ...lines].join("\r\n")}\r\n`;
}

function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
  exported = true;
}

async function importDecisions(file) {
  const status = byId("decisions-status");
  try {
    const read = JSON.parse(await file.text());
    if (read.format !== "lsi-decisions" || !Array.isArray(read.decisions)) throw new Error("no file of decisions");
    if ((read.fingerprint || null) !== (data.fingerprint || null)) throw new Error("it belongs to other data");
    decideAll(asRows(read.decisions.map((record) => [record.sample_id, record.decision])));
  } catch (error) {
    status.textContent = `Nothing was imported from ${clean(file.name)}: ${clean(error.message, 200)}`;
  }
}

function startFiles() {
  byId("export-csv").addEventListener("click", () => download("decisions.csv", "text/csv", decisionsCsv()));
  byId("export-json").addEventListener("click", () => download("decisions.json", "application/json", decisionsJson()));
  byId("import-json").addEventListener("change", (event) => {
    if (event.target.files.length) importDecisions(event.target.files[0]);
    event.target.value = "";
  });
}
