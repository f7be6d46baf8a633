// A brush over the histogram: by mouse or finger, by two handles with the keyboard, or by a preset.

function startHistogram() {
  const plot = byId("histogram");
  const low = Number(plot.dataset.low);
  const high = Number(plot.dataset.high);
  const step = (high - low) / Number(plot.dataset.bins);
  const shades = [el("span", { class: "shade" }), el("span", { class: "shade" })];
  const handles = ["Lowest", "Highest"].map((end) =>
    el("span", { class: "handle", role: "slider", tabindex: "0", "aria-label": `${end} LSI of the selection` })
  );
  plot.classList.add("brushed");
  plot.append(...shades, ...handles);

  const ends = () => (state.range ? [state.range.low, state.range.high] : [low, high]);
  const place = (value) => Math.min(100, Math.max(0, (100 * (value - low)) / (high - low)));

  function select(a, b) {
    const [from, to] = [Math.max(low, Math.min(a, b)), Math.min(high, Math.max(a, b))];
    const all = from <= low && to >= high;
    change({ range: all ? null : { low: from, high: to, fromStart: from <= low } });
  }

  function draw() {
    const [from, to] = ends();
    shades[0].style.right = `${100 - place(from)}%`;
    shades[1].style.left = `${place(to)}%`;
    [from, to].forEach((value, k) => {
      handles[k].style.left = `${place(value)}%`;
      handles[k].setAttribute("aria-valuemin", low.toFixed(2));
      handles[k].setAttribute("aria-valuemax", high.toFixed(2));
      handles[k].setAttribute("aria-valuenow", value.toFixed(2));
      handles[k].setAttribute("aria-valuetext", `${number(10 ** value)} nats`);
    });
  }

  handles.forEach((handle, k) => handle.addEventListener("keydown", (event) => moveHandle(event, k)));

  function moveHandle(event, k) {
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -4, PageUp: 4 };
    const values = ends();
    if (event.key in steps) values[k] += steps[event.key] * step;
    else if (event.key === "Home") values[k] = k ? values[0] : low;
    else if (event.key === "End") values[k] = k ? high : values[1];
    else if (event.key === "Escape") [values[0], values[1]] = [low, high];
    else return;
    event.preventDefault();
    // A handle stops at the other one instead of passing it.
    values[k] = k ? Math.max(values[k], values[0]) : Math.min(values[k], values[1]);
    select(values[0], values[1]);
  }

  dragging(plot, handles, (share) => low + share * (high - low), ends, select);
  onChange(draw);
  startPresets(select);
  draw();
}

// Drag a new range over the plot, or one of its ends by a handle; a click without a drag selects all.
function dragging(plot, handles, valueAt, ends, select) {
  let fixed = null;
  let start = 0;
  const value = (event) => {
    const box = plot.getBoundingClientRect();
    return valueAt(Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)));
  };
  const notify = (event) => select(fixed, value(event));
  plot.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const held = handles.indexOf(event.target);
    fixed = held < 0 ? value(event) : ends()[1 - held];
    start = event.clientX;
    plot.setPointerCapture(event.pointerId);
    if (held < 0) event.preventDefault();
  });
  plot.addEventListener("pointermove", (event) => {
    if (fixed !== null && Math.abs(event.clientX - start) > 3) notify(event);
  });
  plot.addEventListener("pointerup", (event) => {
    if (fixed !== null && Math.abs(event.clientX - start) <= 3 && !handles.includes(event.target)) {
      change({ range: null });
    }
    fixed = null;
  });
  plot.addEventListener("pointercancel", () => (fixed = null));
}

function startPresets(select) {
  const percentile = Math.max(0, Math.ceil(data.n / 100) - 1);
  const at = (place) => data.log[data.order[Math.min(data.n - 1, Math.max(0, place))]];
  const lowest = () => select(-Infinity, at(data.n - 1 - percentile));
  const middle = () => select(at(Math.round(0.55 * data.n)), at(Math.round(0.45 * data.n)));
  byId("presets").append(
    button("All", () => change({ range: null })),
    button("Highest 1\u202f%", () => select(at(percentile), Infinity)),
    button("Middle tenth", middle),
    button("Lowest 1\u202f%", lowest)
  );
  const status = byId("range-status");
  const say = () => {
    let chosen = 0;
    for (let row = 0; row < data.n; row += 1) chosen += inRange(row);
    status.textContent = state.range ? `${samplesText(chosen)} of ${count(data.n)} selected: ${rangeText()}` : `All ${samplesText(data.n)} selected`;
  };
  onChange(onceAFrame(say));
  say();
}
