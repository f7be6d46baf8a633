// The rows: typed arrays by name, decoded from the page's JSON.

const READERS = { i1: Int8Array, i2: Int16Array, i4: Int32Array, f4: Float32Array };

function unpack({ type, data }) {
  const binary = atob(data);
  const bytes = new Uint8Array(binary.length);
  for (let k = 0; k < binary.length; k += 1) bytes[k] = binary.charCodeAt(k);
  return new READERS[type](bytes.buffer);
}

function unpackIds(ids, n) {
  if (ids.kind === "range") return Array.from({ length: n }, (_, row) => ids.start + row);
  if (ids.kind === "number") return Array.from(unpack(ids));
  let before = "";
  const shared = unpack(ids.shared);
  return ids.rest.map((rest, row) => (before = before.slice(0, shared[row]) + rest));
}

function readData() {
  const raw = JSON.parse(byId("lsi-data").textContent);
  const columns = {};
  for (const [name, packed] of Object.entries(raw.columns)) columns[name] = unpack(packed);
  const order = Int32Array.from({ length: raw.n }, (_, row) => row);
  order.sort((a, b) => columns.lsi[b] - columns.lsi[a] || a - b);
  const rank = new Int32Array(raw.n);
  order.forEach((row, place) => (rank[row] = place + 1));
  const faceRows = unpack(raw.faces.rows);
  return {
    n: raw.n,
    task: raw.task,
    classed: raw.task === "classification",
    numeric: columns.label instanceof Float32Array,
    likely: raw.task === "classification" ? "likely" : "predicted",
    fingerprint: raw.fingerprint,
    mark: raw.mark,
    ids: unpackIds(raw.ids, raw.n),
    idsAreText: raw.ids.kind === "text",
    labels: raw.labels,
    columns,
    order, // rows, highest LSI first
    rank, // place of a row in that order, from 1
    log: Float64Array.from(columns.lsi, Math.log10),
    kind: raw.faces.kind,
    faces: new Map(raw.faces.items.map((face, k) => [faceRows[k], face])),
  };
}

const data = readData();
const columns = data.columns;

// The text of a label column at a row; "" where there is none.
function labelText(name, row) {
  const value = columns[name] ? columns[name][row] : -1;
  if (data.numeric) return name in columns ? number(value) : "";
  return value < 0 ? "" : data.labels.texts[value];
}

// The label itself, for files; null where there is none.
function labelValue(name, row) {
  const value = columns[name] ? columns[name][row] : -1;
  return value < 0 ? null : data.labels.values[value];
}

function differs(row) {
  return data.classed && columns.label[row] !== columns.prediction[row];
}

const idText = (row) => clean(data.ids[row]);
