// What gallery, table and histogram have in common: the selected range of LSI, and a class (-1: all).

const state = { range: null, label: -1 };
const listeners = [];

function onChange(listener) {
  listeners.push(listener);
}

function change(part) {
  Object.assign(state, part);
  for (const listener of listeners) listener();
}

function inRange(row) {
  if (!state.range) return true;
  const value = data.log[row];
  return (state.range.fromStart || value >= state.range.low) && value <= state.range.high;
}

const inClass = (row) => state.label < 0 || columns.label[row] === state.label;

function rangeText() {
  if (!state.range) return "";
  const high = number(10 ** state.range.high);
  return state.range.fromStart ? `up to ${high} nats` : `${number(10 ** state.range.low)} to ${high} nats`;
}

// A select of classes that follows the state, and sets it.
function classSelect(select) {
  if (!select) return;
  setOptions(select, [["-1", "all classes"], ...data.labels.order.map((code) => [code, data.labels.texts[code]])]);
  select.addEventListener("change", () => change({ label: Number(select.value) }));
  onChange(() => (select.value = String(state.label)));
}
