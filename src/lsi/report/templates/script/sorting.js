// Tables that stand in the page as a whole: a click on a heading sorts them, figures by data-value, else texts.

function startSorting() {
  for (const table of document.querySelectorAll("table.sortable")) {
    Array.from(table.tHead.rows[0].cells).forEach((cell, k) => activate(cell, "sort", () => sortTable(table, cell, k)));
  }
}

function sortTable(table, cell, k) {
  const before = cell.getAttribute("aria-sort");
  const figures = cell.classList.contains("n");
  const down = before ? before === "ascending" : figures;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  cell.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = (row) => (figures ? Number(row.cells[k].dataset.value || NaN) : row.cells[k].textContent.trim());
  const compare = (a, b) => (figures ? a - b : a.localeCompare(b, "en", { numeric: true }));
  const rows = Array.from(table.tBodies[0].rows).map((row) => [value(row), row]);
  // What has no value comes last, whichever way the table is sorted.
  const last = ([a]) => (figures ? Number.isNaN(a) : a === "");
  rows.sort((a, b) => last(a) - last(b) || (last(a) ? 0 : (down ? -1 : 1) * compare(a[0], b[0])));
  table.tBodies[0].append(...rows.map(([, row]) => row));
}
