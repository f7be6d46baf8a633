// Suspected labels, worst first, a page at a time, with a decision on each.

const SUSPECTS_A_PAGE = 20;
const suspectFilter = { threshold: 0.5, given: -1, suggested: -1, open: false };
let suspectPage = 0;
let drawSuspects = () => {};

// Show suspects of one pair of labels (codes; -1: any), and go there.
function showPair(given, suggested) {
  Object.assign(suspectFilter, { given, suggested });
  byId("suspects-given").value = String(given);
  byId("suspects-suggested").value = String(suggested);
  suspectPage = 0;
  drawSuspects();
  byId("suspects").scrollIntoView();
}

function suspectRows() {
  const wrong = columns.wrong_probability;
  const { threshold, given, suggested, open } = suspectFilter;
  return suspectOrder().filter(
    (row) =>
      !(wrong[row] < threshold) &&
      (given < 0 || columns.label[row] === given) &&
      (suggested < 0 || columns.suggested[row] === suggested) &&
      !(open && decisions.has(row))
  );
}

let suspectsInOrder = null;

function suspectOrder() {
  if (!suspectsInOrder) {
    const wrong = columns.wrong_probability;
    const rows = data.order.filter((row) => columns.suggested[row] >= 0 && wrong[row] >= 0);
    suspectsInOrder = rows.sort((a, b) => wrong[b] - wrong[a] || columns.lsi[b] - columns.lsi[a]);
  }
  return suspectsInOrder;
}

function suspectItem(row) {
  const choice = decisions.get(row);
  return el(
    "li",
    { class: `suspect ${choice || ""}`, "data-row": row, tabindex: "0", "aria-label": `Sample ${idText(row)}` },
    el("div", { class: "face" }, face(row)),
    el(
      "div",
      { class: "about" },
      el("p", { class: "change" }, el("bdi", { class: "from" }, labelText("label", row)), el("span", { "aria-label": "suggested:" }, " → "), el("bdi", { class: "to" }, labelText("suggested", row))),
      el("p", { class: "note" }, `${percent(columns.wrong_probability[row])} likely wrong · ${number(columns.lsi[row])} nats · id `, el("bdi", {}, idText(row))),
      probabilityBar(columns.wrong_probability[row], "Probability that the label is wrong")
    ),
    choiceButtons(row)
  );
}

function startSuspects() {
  const list = byId("suspects-list");
  drawSuspects = () => {
    const rows = suspectRows();
    const pages = Math.max(1, Math.ceil(rows.length / SUSPECTS_A_PAGE));
    suspectPage = Math.min(suspectPage, pages - 1);
    const first = suspectPage * SUSPECTS_A_PAGE;
    const shown = rows.slice(first, first + SUSPECTS_A_PAGE);
    list.replaceChildren(...Array.from(shown, suspectItem));
    byId("suspects-status").textContent = rows.length
      ? `${count(first + 1)} to ${count(first + shown.length)} of ${count(rows.length)} suspected labels`
      : "No suspected labels match";
    byId("suspects-previous").disabled = suspectPage === 0;
    byId("suspects-next").disabled = suspectPage >= pages - 1;
    byId("suspects-accept").disabled = !shown.some((row) => !decisions.has(row));
  };
  onDecision(() => keepFocus(list, drawSuspects));
  list.addEventListener("keydown", suspectKey);
  startSuspectTools(list);
  drawSuspects();
}

function startSuspectTools(list) {
  const restart = (part) => {
    Object.assign(suspectFilter, part);
    suspectPage = 0;
    drawSuspects();
  };
  const turn = (by) => {
    suspectPage += by;
    drawSuspects();
    if (list.firstElementChild) list.firstElementChild.focus();
  };
  byId("suspects-threshold").addEventListener("change", (event) => restart({ threshold: Number(event.target.value) }));
  byId("suspects-open").addEventListener("change", (event) => restart({ open: event.target.checked }));
  for (const name of ["given", "suggested"]) {
    const select = byId(`suspects-${name}`);
    setOptions(select, [["-1", "any label"], ...data.labels.order.map((code) => [code, data.labels.texts[code]])]);
    select.addEventListener("change", () => restart({ [name]: Number(select.value) }));
  }
  byId("suspects-previous").addEventListener("click", () => turn(-1));
  byId("suspects-next").addEventListener("click", () => turn(1));
  byId("suspects-accept").addEventListener("click", () => {
    const rows = Array.from(list.children, (item) => Number(item.dataset.row));
    decideAll(rows.filter((row) => !decisions.has(row)).map((row) => [row, "accept"]));
  });
}

// A, R and X decide and go on to the next sample; the up and down arrows move.
function suspectKey(event) {
  const item = event.target.closest("li");
  if (!item || event.ctrlKey || event.metaKey || event.altKey) return;
  const choice = { a: "accept", r: "reject", x: "remove" }[event.key.toLowerCase()];
  const next = event.key === "ArrowUp" ? item.previousElementSibling : item.nextElementSibling;
  if (choice) {
    const position = Array.from(item.parentNode.children).indexOf(item);
    const list = item.parentNode;
    decide(Number(item.dataset.row), choice);
    const target = list.children[suspectFilter.open ? position : position + 1] || list.lastElementChild;
    if (target) target.focus();
  } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && next) {
    next.focus();
  } else {
    return;
  }
  event.preventDefault();
}

// Draw again without losing the place of a keyboard user: same sample, same control.
function keepFocus(container, draw) {
  const held = document.activeElement;
  const owner = container.contains(held) ? held.closest("[data-row]") : null;
  const row = owner ? owner.dataset.row : null;
  const choice = held.dataset.choice;
  draw();
  if (row === null) return;
  const again = container.querySelector(`[data-row="${row}"]`) || container.querySelector("[data-row]");
  if (again) ((choice && again.querySelector(`[data-choice="${choice}"]`)) || again).focus({ preventScroll: true });
}
