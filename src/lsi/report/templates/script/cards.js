// One card a sample: what it looks like, its labels and its score.

function face(row) {
  const found = data.faces.get(row);
  if (!found) return data.kind === "none" ? null : el("p", { class: "no-face" }, "not stored in this page");
  if (found.image) return picture(row, found);
  if (found.profile) return profile(found);
  return el("p", { class: "text" }, el("bdi", {}, clean(found.text || "", 400)));
}

function picture(row, { image, pixelated }) {
  if (!image.startsWith("data:image/")) return null;
  const alt = `Sample ${idText(row)}, label ${labelText("label", row)}`;
  return el("img", { src: image, alt, width: 96, height: 96, class: pixelated ? "pixelated" : null });
}

function profile({ profile: bars, striking }) {
  const named = striking.map(({ name, z }) => `${clean(name, 32)} ${signed(z)}`).join(", ");
  const label = `Feature profile: ${named} standard deviations from the mean`;
  const drawn = bars.map((z, k) =>
    svg("rect", { class: z > 0 ? "up" : "down", x: k + 0.1, width: 0.8, y: z > 0 ? 3 - z : 3, height: Math.abs(z) })
  );
  const box = { class: "profile", viewBox: `0 0 ${bars.length} 6`, preserveAspectRatio: "none" };
  const items = striking.map(({ name, z }) =>
    el("li", {}, el("bdi", {}, clean(name, 32)), " ", el("b", {}, signed(z)))
  );
  return el("div", {}, svg("svg", { ...box, role: "img", "aria-label": label }, ...drawn), el("ul", { class: "striking" }, ...items));
}

const signed = (z) => (z < 0 ? `−${(-z).toFixed(1)}` : `+${z.toFixed(1)}`);

function pair(term, text, name = null) {
  return el("div", { class: name }, el("dt", {}, term), el("dd", {}, el("bdi", {}, text)));
}

function probabilityBar(share, what) {
  if (!Number.isFinite(share)) return null;
  const text = `${what} ${percent(share)}`;
  const filled = el("span");
  filled.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  return el("span", { class: "chance-of", role: "img", "aria-label": text, title: text }, filled);
}

function card(row) {
  const planted = columns.planted && columns.planted[row] === 1;
  return el(
    "li",
    { class: planted ? "card wrong" : "card", "data-row": row },
    face(row),
    el("p", { class: "score" }, el("strong", {}, number(columns.lsi[row])), " ", el("span", { class: "rank", title: "Rank by LSI" }, `#${data.rank[row]}`)),
    el("dl", {}, ...labelPairs(row, planted)),
    data.classed ? probabilityBar(columns.loo_probability[row], "Probability of the given label") : null,
    el("p", { class: "id", title: `Sample id ${idText(row)}` }, "id ", el("bdi", {}, idText(row)))
  );
}

function labelPairs(row, planted) {
  const pairs = [];
  if (labelText("label", row)) pairs.push(pair("given", labelText("label", row)));
  if (labelText("prediction", row)) pairs.push(pair(data.likely, labelText("prediction", row), differs(row) ? "differs" : null));
  if (planted && labelText("original", row)) pairs.push(pair("truth", labelText("original", row), "truth"));
  return pairs;
}
