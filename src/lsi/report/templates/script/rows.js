// The table's columns, and which rows it lists in which order.

function tableColumns() {
  const made = [{ key: "id", title: "Sample", text: idText, sort: "id", foreign: true }];
  const label = (key, title) => {
    if (key in columns) made.push({ key, title, text: (row) => labelText(key, row) || "–", sort: "label", foreign: true });
  };
  const figure = (key, title, text = number) => {
    if (key in columns && columns[key].some(Number.isFinite)) {
      made.push({ key, title, text: (row) => text(columns[key][row]), sort: "number", figure: true });
    }
  };
  label("label", "Given");
  label("prediction", data.classed ? "Likely" : "Predicted");
  label("suggested", "Suggested");
  figure("lsi", "LSI (nats)");
  figure("mean_term", "Mean term");
  figure("covariance_term", "Covariance term");
  figure("loo_residual", "Residual");
  figure("loo_z", "z");
  const chance = { classification: "P(given)", regression: "P(residual)", multilabel: "P(all as given)" };
  figure("loo_probability", chance[data.task] || "P", percent);
  figure("wrong_probability", "P(wrong)", percent);
  figure("relative_error", "Certificate", percent);
  figure("group", "Group", (group) => (group < 0 ? "–" : String(group)));
  if (data.classed) made.push({ key: "decision", title: "Decision", text: (row) => decisions.get(row) || "", sort: "decision" });
  return made;
}

function comparator({ key, sort }, down) {
  const sign = down ? -1 : 1;
  if (sort === "id") {
    const compare = data.idsAreText ? compareText : (a, b) => a - b;
    return (a, b) => sign * compare(data.ids[a], data.ids[b]) || a - b;
  }
  if (sort === "decision") {
    const place = (row) => CHOICES.indexOf(decisions.get(row));
    return (a, b) => sign * (place(a) - place(b)) || a - b;
  }
  if (sort === "label" && !data.numeric) {
    const place = labelPlaces();
    return (a, b) => sign * (place[columns[key][a] + 1] - place[columns[key][b] + 1]) || a - b;
  }
  const last = down ? -Infinity : Infinity; // what is missing stands at the end either way
  const value = (row) => (Number.isNaN(columns[key][row]) ? last : columns[key][row]);
  return (a, b) => sign * (value(a) - value(b)) || a - b;
}

const compareText = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

// The place of every label code, plus one, in the order of the texts; no label goes first.
function labelPlaces() {
  const { texts } = data.labels;
  const sorted = texts.map((_, code) => code).sort((a, b) => texts[a].localeCompare(texts[b], "en", { numeric: true }));
  const places = new Int32Array(texts.length + 1);
  sorted.forEach((code, place) => (places[code + 1] = place + 1));
  return places;
}

let searchTexts = null;

function rowFilter({ search, show }) {
  const wanted = search.trim().toLowerCase();
  if (wanted && !searchTexts) searchTexts = data.ids.map((id) => String(id).toLowerCase());
  const suspected = (row) => columns.suggested[row] >= 0 && columns.wrong_probability[row] >= 0.5;
  const shows = {
    all: () => true,
    suspected,
    undecided: (row) => suspected(row) && !decisions.has(row),
    decided: (row) => decisions.has(row),
    planted: (row) => columns.planted[row] === 1,
    grouped: (row) => columns.group[row] >= 0,
  };
  return (row) => inRange(row) && inClass(row) && shows[show](row) && (!wanted || searchTexts[row].includes(wanted));
}

function showOptions() {
  const options = [["all", "all samples"]];
  if (data.classed) options.push(["suspected", "suspected labels"], ["undecided", "suspected, undecided"], ["decided", "decided"]);
  if (columns.planted) options.push(["planted", "planted errors"]);
  if (columns.group) options.push(["grouped", "in a redundancy group"]);
  return options;
}
