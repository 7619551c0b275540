// The page as a whole.

const pageTitle = document.title;
/** Milliseconds after which the page of a running search is loaded anew. */
const AGAIN = 60000;

function top() {
  const failed = data.candidates.filter(c => c.error !== undefined).length;
  const stopped = data.candidates.filter(c => c.stopped).length;
  const repeated = data.candidates.filter(c => c.repeats).length;
  const facts = [
    ["candidates", study.candidates.toLocaleString("en")],
    ["hypervolume", fixed(study.hypervolume, 4)],
    ["on the front", String(data.candidates.filter(c => c.front).length)],
    failed ? ["failed", String(failed)] : null,
    stopped ? ["stopped early", String(stopped)] : null,
    repeated ? ["repeats", String(repeated)] : null,
    data.trainings.length ? ["trained", String(trainingsOf.size)] : null,
    data.exports.length ? ["exported", String(exportsOf.size)] : null,
  ].filter(Boolean);
  return el("header", {}, el("h1", {}, study.name),
    el("dl", {class: "numbers"}, facts.map(([name, value]) => el("div", {}, el("dt", {}, name),
      el("dd", {}, value)))),
    el("p", {class: "note"}, `Written ${when(study.written)}. `, study.running ? reloading() : null));
}

/** Loads a newer page now and then, unless it is told not to or a visitor is reading. */
function reloading() {
  let goesOn = true;
  const box = el("input", {type: "checkbox", checked: true, change: () => { goesOn = box.checked; }});
  setInterval(() => {
    const isRead = view.candidate !== null || document.hidden ||
      document.activeElement instanceof HTMLSelectElement;
    if (goesOn && !isRead) location.reload();
  }, AGAIN);
  return el("label", {class: "toggle"}, box,
    el("span", {}, "The search is running: look for a newer page every minute"));
}

function navigation(sections) {
  return el("nav", {"aria-label": "Sections"}, el("ul", {}, sections.map(one => el("li", {},
    el("a", {href: "#" + one.id, click: event => {
      event.preventDefault();
      const title = one.querySelector("h2");
      title.scrollIntoView({block: "start"});
      title.focus({preventScroll: true});
    }}, one.querySelector("h2").textContent)))));
}

function begin() {
  read(location.hash);
  const sections = [frontSection(), searchSection(), trainedSection(), exportedSection(),
    methodsSection(), teachersSection(), latencySection(), calibrationSection(), failuresSection(),
    reproduceSection()].filter(Boolean);
  document.getElementById("page").replaceWith(
    el("div", {id: "page"}, top(), navigation(sections), el("main", {}, sections)), panel, announcer);
  frontFigure.repaint();
  sayShown();
  showCandidate(false);
  covers.addEventListener("change", () => showCandidate(false));
  addEventListener("popstate", () => {
    read(location.hash);
    dispatchEvent(new Event("viewchange"));
    frontFigure.repaint();
    sayShown();
    showCandidate();
  });
  addEventListener("keydown", event => {
    if (event.key !== "Escape") return;
    if (!tip.hidden && !view.candidate) hover(null);
    else close();
  });
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach(one => { if (one.querySelector("pre")) one.open = true; });
  });
  addEventListener("afterprint", () => folded.forEach(one => { one.open = false; }));
}

begin();
