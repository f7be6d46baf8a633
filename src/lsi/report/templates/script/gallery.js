// Samples at the selected part of the distribution.

const CARDS_AT_ONCE = 24;

function startGallery() {
  const list = byId("gallery-cards");
  const more = byId("gallery-more");
  const order = byId("gallery-order");
  let shown = CARDS_AT_ONCE;

  function draw() {
    const chosen = data.order.filter((row) => inRange(row) && inClass(row));
    const drawn = withFaces(chosen);
    const rows = arrange(drawn, order.value, shown);
    list.replaceChildren(...Array.from(rows, card));
    more.hidden = rows.length >= drawn.length;
    byId("gallery-status").textContent = galleryText(rows.length, drawn.length, chosen.length);
  }

  const restart = onceAFrame(() => {
    shown = CARDS_AT_ONCE;
    draw();
  });
  more.addEventListener("click", () => {
    const last = list.children.length;
    shown += 2 * CARDS_AT_ONCE;
    draw();
    const next = list.children[last];
    if (next) {
      next.tabIndex = -1;
      next.focus({ preventScroll: true });
    }
  });
  order.addEventListener("change", restart);
  classSelect(byId("gallery-class"));
  onChange(restart);
  draw();
}

// Samples with a picture go first: where there is one in the range, those without are left to the table.
function withFaces(rows) {
  if (data.kind === "none") return rows;
  const seen = rows.filter((row) => data.faces.has(row));
  return seen.length ? seen : rows;
}

function arrange(rows, order, limit) {
  if (order === "low") return rows.slice(-limit).reverse();
  if (order === "high" || rows.length <= limit) return rows.slice(0, limit);
  return Int32Array.from({ length: limit }, (_, k) => rows[Math.floor((k * (rows.length - 1)) / (limit - 1))]);
}

function galleryText(shown, drawn, chosen) {
  const text = `${count(shown)} of ${samplesText(chosen)} shown`;
  if (drawn === chosen) return text;
  const what = { image: "pictures", text: "texts", features: "features" }[data.kind];
  return `${text}; this page holds the ${what} of ${count(drawn)} of them`;
}
