// Groups of samples that carry the same information, the largest first.

const GROUPS_AT_ONCE = 8;
const CARDS_A_GROUP = 6; // as many as get a picture

function startGroups() {
  const members = new Map();
  data.order.forEach((row) => {
    const group = columns.group[row];
    if (group < 0) return;
    if (!members.has(group)) members.set(group, []);
    members.get(group).push(row);
  });
  const groups = Array.from(members).sort((a, b) => b[1].length - a[1].length || a[0] - b[0]);
  let shown = 0;
  const more = byId("groups-more");
  const draw = () => {
    const next = groups.slice(shown, shown + GROUPS_AT_ONCE);
    byId("groups").append(...next.map(([group, rows]) => groupItem(group, rows)));
    shown += next.length;
    more.hidden = shown >= groups.length;
    byId("groups-status").textContent = `${count(shown)} of ${groups.length === 1 ? "1 group" : `${count(groups.length)} groups`} shown`;
  };
  more.addEventListener("click", draw);
  draw();
}

function groupItem(group, rows) {
  const shown = rows.slice(0, CARDS_A_GROUP);
  const rest = rows.length > shown.length ? `, ${count(shown.length)} shown` : "";
  return el(
    "div",
    { class: "group" },
    el("h3", {}, `Group ${group} `, el("small", {}, `${samplesText(rows.length)}${rest}`)),
    el("ol", { class: `gallery ${data.kind}` }, ...shown.map(card))
  );
}
