// Class names, and counts of confused labels, lead to their samples.

function startClasses() {
  const codes = new Map(data.labels.order.map((code) => [data.labels.texts[code], code]));
  for (const cell of document.querySelectorAll("[data-class]")) {
    const code = codes.get(cell.dataset.class);
    if (code !== undefined) activate(cell, "link", () => change({ label: code }), () => byId("gallery").scrollIntoView());
  }
  for (const cell of document.querySelectorAll("[data-given]")) {
    const given = codes.get(cell.dataset.given);
    const suggested = data.labels.texts.indexOf(cell.dataset.suggested);
    const name = `${cell.textContent.trim()} labels: given ${cell.dataset.given}, suggested ${cell.dataset.suggested}`;
    if (given !== undefined) activate(cell, "link", () => showPair(given, suggested)).setAttribute("aria-label", name);
  }
}

// Put a cell's content into a button.
function activate(cell, name, ...handlers) {
  const made = button("", () => handlers.forEach((handler) => handler()), { class: name });
  made.append(...cell.childNodes);
  cell.append(made);
  return made;
}
