// What the reader decides about samples; kept in the browser under the fingerprint of the data.

const CHOICES = ["accept", "reject", "remove"];
const decisions = new Map(); // row → one of CHOICES
const decisionListeners = [];
const storageKey = `lsi-decisions:${data.fingerprint}`;
let kept = Boolean(data.fingerprint);
let exported = true;

const canAccept = (row) => Boolean(columns.suggested && columns.suggested[row] >= 0);

// Decide about a sample, or take a decision back (null).
function decide(row, choice) {
  decideAll([[row, choice]]);
}

function decideAll(pairs) {
  for (const [row, choice] of pairs) {
    if (choice === null) decisions.delete(row);
    else if (CHOICES.includes(choice) && (choice !== "accept" || canAccept(row))) decisions.set(row, choice);
  }
  exported = decisions.size === 0;
  keep();
  for (const listener of decisionListeners) listener();
}

function onDecision(listener) {
  decisionListeners.push(listener);
}

function keep() {
  if (!data.fingerprint) return;
  try {
    const stored = Array.from(decisions, ([row, choice]) => [data.ids[row], choice]);
    if (stored.length) localStorage.setItem(storageKey, JSON.stringify(stored));
    else localStorage.removeItem(storageKey);
    kept = true;
  } catch {
    kept = false; // private windows and full storage: the page says so, and asks before it closes
  }
}

function restore() {
  try {
    const stored = JSON.parse(localStorage.getItem(storageKey) || "[]");
    decideAll(asRows(stored));
  } catch {
    kept = false;
  }
}

// Pairs of id and choice as pairs of row and choice; ids that are not in this page are left out.
function asRows(pairs) {
  const rows = new Map(data.ids.map((id, row) => [String(id), row]));
  return pairs.filter(([id]) => rows.has(String(id))).map(([id, choice]) => [rows.get(String(id)), choice]);
}

function decisionsText() {
  if (!decisions.size) return "No decisions yet";
  const tally = Object.fromEntries(CHOICES.map((choice) => [choice, 0]));
  for (const choice of decisions.values()) tally[choice] += 1;
  const parts = CHOICES.filter((choice) => tally[choice]).map((choice) => `${count(tally[choice])} ${choice}`);
  return `${decisions.size === 1 ? "1 decision" : `${count(decisions.size)} decisions`}: ${parts.join(", ")}`;
}

// The three buttons of a sample; the chosen one is pressed, and pressing it again takes it back.
function choiceButtons(row) {
  const made = CHOICES.filter((choice) => choice !== "accept" || canAccept(row)).map((choice) =>
    button(choice[0].toUpperCase() + choice.slice(1), () => decide(row, decisions.get(row) === choice ? null : choice), {
      class: `choice ${choice}`,
      "data-choice": choice,
      "aria-pressed": String(decisions.get(row) === choice),
      "aria-label": `${choice} sample ${idText(row)}`,
    })
  );
  return el("div", { class: "choices", role: "group", "aria-label": `Decision on sample ${idText(row)}` }, ...made);
}

function startDecisions() {
  const say = () => {
    const text = decisionsText();
    if (byId("decisions-status").textContent !== text) byId("decisions-status").textContent = text;
    byId("decisions-kept").textContent = kept
      ? "Kept in this browser until you clear them."
      : "This browser does not keep them: export before you close the page.";
    for (const id of ["export-csv", "export-json", "clear-decisions"]) byId(id).disabled = !decisions.size;
  };
  onDecision(say);
  byId("clear-decisions").addEventListener("click", () => {
    if (confirm("Clear all decisions?")) decideAll(Array.from(decisions.keys(), (row) => [row, null]));
  });
  window.addEventListener("beforeunload", (event) => {
    if (!kept && !exported) event.preventDefault();
  });
  restore();
  say();
}
