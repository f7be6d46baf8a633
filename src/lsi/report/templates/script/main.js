// Start: parts whose section is not on the page are left out.

startHistogram();
startGallery();
if (byId("suspects")) {
  startDecisions();
  startFiles();
  startSuspects();
}
startTable();
if (byId("classes")) startClasses();
startSorting();
if (byId("redundancy")) startGroups();
document.documentElement.classList.add("live");
// Sections grew while they were filled: go where the address points.
if (location.hash) {
  const target = byId(decodeURIComponent(location.hash.slice(1)));
  if (target) target.scrollIntoView();
}
performance.mark("lsi-ready");
