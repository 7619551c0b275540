// What the visitor has chosen to see. It stands in the page's address, so that it can be linked.

const costNames = data.costs.map(cost => cost.name);
const ladder = Math.max(1, ...data.candidates.map(rungReached));
const QUALITIES = ["quality", ...data.networks.map(name => "accuracy:" + name)];
const NAMES = {use: "mean use", parameters: "parameters", macs: "MACs", union: "union",
  latency: "latency"};
const ABOUT = {
  use: "mean share of the divided channels that a task uses",
  parameters: "weights of a task's network, mean over tasks",
  macs: "multiply-accumulates of a task's network for an image, mean over tasks",
  union: "weights of one network that holds all tasks",
  latency: "time that a task's network takes, mean over tasks"};

const view = {x: study.objective, y: "quality", strategies: new Set(), seeds: new Set(),
  rung: "last", candidate: null};

function read(hash) {
  const chosen = new URLSearchParams(hash.includes("=") ? hash.slice(1) : "");
  const among = (name, known, other) => known.includes(chosen.get(name)) ? chosen.get(name) : other;
  view.x = among("x", costNames, study.objective);
  view.y = among("y", QUALITIES, "quality");
  view.rung = among("rung", ["last", "all", ...Array.from({length: ladder}, (_, at) => `${at + 1}`)],
    "last");
  view.strategies = new Set(chosen.getAll("without"));
  view.seeds = new Set(chosen.getAll("withoutseed").map(Number));
  view.candidate = byId.get(chosen.get("c")) ?? null;
}

function address() {
  const chosen = new URLSearchParams();
  if (view.candidate) chosen.set("c", view.candidate.id);
  if (view.x !== study.objective) chosen.set("x", view.x);
  if (view.y !== "quality") chosen.set("y", view.y);
  if (view.rung !== "last") chosen.set("rung", view.rung);
  for (const name of view.strategies) chosen.append("without", name);
  for (const seed of view.seeds) chosen.append("withoutseed", seed);
  return chosen.size ? "#" + chosen : "#front";
}

/** Where a candidate's page is, for links. */
function hrefOf(candidate) {
  const before = view.candidate;
  view.candidate = candidate;
  const found = address();
  view.candidate = before;
  return found;
}

const linkTo = candidate => el("a", {href: "#" + new URLSearchParams({c: candidate.id}),
  click: event => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    open(candidate);
  }}, titleOf(candidate));

const xOf = candidate => candidate.costs?.[costNames.indexOf(view.x)] ?? null;
const yOf = candidate => view.y === "quality" ? candidate.quality ?? null :
  candidate.accuracy?.[QUALITIES.indexOf(view.y) - 1] ?? null;
const yName = () => view.y === "quality" ? `quality: ${study.quality}` :
  `validation accuracy of ${view.y.slice("accuracy:".length)}`;
const xName = () => "cost: " + data.costs[costNames.indexOf(view.x)].words;

/** Candidates that are shown, from cheap to dear. */
function visible() {
  return data.candidates.filter(c => c.error === undefined
    && !view.strategies.has(c.strategy) && !view.seeds.has(c.seed)
    && (view.rung === "all" || (view.rung === "last" ? !c.stopped : rungReached(c) === +view.rung))
    && isNumber(xOf(c)) && isNumber(yOf(c)))
    .sort((a, b) => xOf(a) - xOf(b) || yOf(b) - yOf(a));
}

/** Those that none of the others beats, of candidates from cheap to dear; no stopped ones. */
function frontOf(candidates) {
  let best = -Infinity, cost = null;
  return candidates.filter(c => {
    if (c.stopped) return false;
    const isOn = yOf(c) > best || (yOf(c) === best && xOf(c) === cost);
    if (isOn) [best, cost] = [yOf(c), xOf(c)];
    return isOn;
  });
}
