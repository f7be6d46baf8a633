// The table of all samples: only the rows in view are in the page, whatever their number.

const ROW_HEIGHT = 36; // as in the style sheet
const OVERSCAN = 8;

function startTable() {
  const view = byId("table-rows");
  const [head, body] = [view.querySelector("thead"), view.querySelector("tbody")];
  const shownColumns = tableColumns();
  const wish = { search: "", show: "all", column: shownColumns.find(({ key }) => key === "lsi"), down: true };
  let rows = data.order;
  let drawnRows = [-1, -1];

  function choose() {
    rows = data.order.filter(rowFilter(wish)).sort(comparator(wish.column, wish.down));
    view.scrollTop = 0;
    byId("table-grid").setAttribute("aria-rowcount", rows.length + 1);
    byId("table-status").textContent = rows.length === data.n ? `All ${samplesText(data.n)}` : `${count(rows.length)} of ${samplesText(data.n)}`;
    drawHead();
    redraw();
  }

  function drawHead() {
    for (const cell of head.querySelectorAll("th")) {
      const current = cell.dataset.key === wish.column.key;
      if (current) cell.setAttribute("aria-sort", wish.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
    const chip = byId("table-range");
    chip.hidden = !state.range;
    chip.textContent = `LSI ${rangeText()} ✕`;
    chip.setAttribute("aria-label", `Selected range ${rangeText()}: select all`);
  }

  function redraw() {
    drawnRows = [-1, -1];
    keepFocus(body, draw);
  }

  function draw() {
    const first = Math.max(0, Math.floor(view.scrollTop / ROW_HEIGHT) - OVERSCAN);
    const last = Math.min(rows.length, first + Math.ceil((view.clientHeight || 600) / ROW_HEIGHT) + 2 * OVERSCAN);
    if (first === drawnRows[0] && last === drawnRows[1]) return;
    drawnRows = [first, last];
    const drawn = Array.from(rows.subarray(first, last), (row, k) => tableRow(row, first + k + 2, shownColumns));
    body.replaceChildren(spacer(first, shownColumns.length), ...drawn, spacer(rows.length - last, shownColumns.length));
  }

  function sortBy(column) {
    wish.down = wish.column === column ? !wish.down : Boolean(column.figure) || column.sort === "decision";
    wish.column = column;
    choose();
  }

  head.append(el("tr", {}, ...shownColumns.map((column) => headCell(column, () => sortBy(column)))));
  view.addEventListener("scroll", onceAFrame(() => keepFocus(body, draw)), { passive: true });
  body.addEventListener("change", (event) => decide(Number(event.target.closest("tr").dataset.row), event.target.value || null));
  onDecision(() => (["decided", "undecided"].includes(wish.show) ? choose() : redraw()));
  onChange(onceAFrame(choose));
  startTableTools(wish, choose);
  choose();
}

function startTableTools(wish, choose) {
  const later = onceAFrame(choose);
  byId("table-search").addEventListener("input", (event) => {
    wish.search = event.target.value;
    later();
  });
  const show = byId("table-show");
  setOptions(show, showOptions());
  show.parentNode.hidden = show.options.length < 2;
  show.addEventListener("change", () => {
    wish.show = show.value;
    choose();
  });
  byId("table-range").addEventListener("click", () => {
    change({ range: null });
    byId("table-rows").focus();
  });
  classSelect(byId("table-class"));
}

function headCell(column, handler) {
  const content = button(column.title, handler, { class: "sort" });
  return el("th", { scope: "col", "data-key": column.key, class: column.figure ? "n" : null }, content);
}

function tableRow(row, index, shownColumns) {
  const cells = shownColumns.map((column) => tableCell(row, column));
  return el("tr", { "data-row": row, "aria-rowindex": index, class: differs(row) ? "differs" : null }, ...cells);
}

function tableCell(row, column) {
  const text = column.text(row);
  if (column.key === "decision") return el("td", {}, decisionSelect(row));
  if (column.key === "id") {
    return el("th", { scope: "row" }, button("", () => showDetails(row), { class: "link" }).appendChild(el("bdi", {}, text)).parentNode);
  }
  const content = column.foreign ? el("bdi", {}, text) : text;
  return el("td", { class: column.figure ? "n" : null, title: column.foreign ? text : null }, content);
}

function decisionSelect(row) {
  const options = ["", ...CHOICES.filter((choice) => choice !== "accept" || canAccept(row))];
  const select = el("select", { "aria-label": `Decision on sample ${idText(row)}`, "data-choice": "select" });
  setOptions(select, options.map((choice) => [choice, choice || "–"]));
  select.value = decisions.get(row) || "";
  return select;
}

function spacer(n, span) {
  const cell = el("td", { colspan: span });
  cell.style.height = `${n * ROW_HEIGHT}px`;
  return el("tr", { class: "spacer", "aria-hidden": "true", hidden: n === 0 }, cell);
}

function showDetails(row) {
  const dialog = byId("details");
  const close = button("Close", () => dialog.close());
  const figures = tableColumns().filter(({ figure }) => figure).map(({ title, text }) => pair(title, text(row)));
  dialog.replaceChildren(el("ul", { class: `gallery ${data.kind}` }, card(row)), el("dl", { class: "details" }, ...figures), close);
  dialog.showModal();
}
