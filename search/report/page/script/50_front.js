// The front: a figure whose points are reached by pointer and keyboard, its filters and legend.

/** Members of a front from which on marks are smaller. */
const CROWD = 40;
const tip = el("div", {class: "tip", hidden: true, "aria-hidden": "true"});
let frontFigure = null, points = new Map(), shownFront = [], shownAll = [], current = null;

function paintFront(width) {
  const height = Math.round(Math.min(600, Math.max(340, width * 0.62)));
  shownAll = visible();
  shownFront = frontOf(shownAll);
  points = new Map();
  const drawing = draw("svg", {class: "front", width, height, viewBox: `0 0 ${width} ${height}`,
    role: "group", "aria-label": `Front: ${plural(shownAll.length, "candidate")}, ` +
      `${shownFront.length} on the front. Arrow keys left and right go along the front, up and ` +
      "down through all candidates; Enter opens one."});
  if (!shownAll.length) {
    drawing.append(draw("text", {class: "none", x: width / 2, y: height / 2,
      "text-anchor": "middle"}, data.candidates.some(isScored) ?
      "No candidate has all of this: choose other filters" : "No candidate scored yet"));
    return drawing;
  }
  const frame = axes({width, height, x: limits(shownAll.map(xOf)), y: limits(shownAll.map(yOf), 0.07),
    xName: xName(), yName: yName()});
  const at = c => [frame.x(xOf(c)), frame.y(yOf(c))];
  drawing.append(frame.group);
  if (shownFront.length) {
    const stairs = [at(shownFront[0])];
    for (const member of shownFront.slice(1)) {
      const [x, y] = at(member);
      stairs.push([x, stairs.at(-1)[1]], [x, y]);
    }
    stairs.push([width - frame.right, stairs.at(-1)[1]]);
    drawing.append(draw("path", {class: "stairs", d: through(stairs), "aria-hidden": "true"}));
  }
  const onFront = new Set(shownFront);
  const layer = draw("g");
  const rank = c => (onFront.has(c) ? 2 : 0) + (isBaseline(c) ? 1 : 0) - (c.stopped ? 4 : 0);
  for (const candidate of [...shownAll].sort((a, b) => rank(a) - rank(b))) {
    const [x, y] = at(candidate);
    const node = draw("g", {class: `point${onFront.has(candidate) ? " on" : ""}${
      candidate.stopped ? " stopped" : ""}`, transform: `translate(${x.toFixed(1)},${y.toFixed(1)})`,
      role: "button", tabindex: -1, "aria-label": spoken(candidate, onFront.has(candidate))},
    adorned(candidate, onFront.has(candidate)));
    points.set(candidate, {node, x, y});
    layer.append(node);
  }
  drawing.append(layer, named(frame, width));
  const first = points.has(current) ? current : [byId.get(study.picks.knee), shownFront[0], shownAll[0]]
    .find(candidate => points.has(candidate));
  setCurrent(first);
  listen(drawing, frame);
  return drawing;
}

/** A candidate's mark with all that is said of it. */
function adorned(candidate, isOn) {
  const isCrowded = shownFront.length > CROWD;
  const size = isCrowded && !isBaseline(candidate) ? 4.2 : isOn || isBaseline(candidate) ? 5.6 : 4.6;
  return [
    draw("circle", {class: "focus", r: 14}),
    isTrained(candidate) ? draw("rect", {class: "trained", x: -9, y: -9, width: 18, height: 18}) : null,
    isOn ? draw("circle", {class: isCrowded ? "ring fine" : "ring", r: isCrowded ? 6.4 : 8.2}) : null,
    mark(lookOf(candidate), size),
    isShared(candidate) ? draw("circle", {class: "shared", r: 1.9}) : null,
    isExported(candidate) ? draw("path", {class: "exported", d: "M0,8V17M-3.6,13.4L0,17L3.6,13.4"})
      : null,
  ].filter(Boolean);
}

/** Names of knee, best and baselines, where there is room. */
function named(frame, width) {
  const group = draw("g", {class: "names", "aria-hidden": "true"}), taken = [];
  const wanted = [["best", byId.get(study.picks.best)], ["knee", byId.get(study.picks.knee)],
    ...unique(shownAll.filter(isBaseline).map(c => c.label))
      .map(label => [label, shownAll.find(c => c.label === label)])];
  const known = new Map();
  for (const [name, candidate] of wanted) {
    if (points.has(candidate)) known.set(candidate, [...known.get(candidate) ?? [], name]);
  }
  const marks = [...points.values()];
  for (const [candidate, names] of known) {
    const {x, y} = points.get(candidate), text = names.join(", ").replaceAll("_", " ");
    const isPick = names.includes("best") || names.includes("knee");
    const long = (isPick ? 7.4 : 6.4) * text.length + 4;
    const places = [[x + 12, y - 8], [x - 12 - long, y - 8], [x + 12, y + 16], [x - 12 - long, y + 16],
      [x - long / 2, y - 15], [x - long / 2, y + 27]];
    const fits = ([left, base], ignored) => left > frame.left && left + long < width - 4 && base > 34
      && !taken.some(t => left < t[0] + t[2] && t[0] < left + long && Math.abs(base - t[1]) < 15)
      && (ignored || !marks.some(m => m.x > left - 5 && m.x < left + long + 5
        && m.y > base - 15 && m.y < base + 7));
    const place = places.find(p => fits(p, false)) ?? (isPick ? places.find(p => fits(p, true)) : null);
    if (!place) continue;
    taken.push([...place, long]);
    group.append(draw("text", {class: isPick ? "pick" : null, x: place[0] + 2, y: place[1]}, text));
  }
  return group;
}

function spoken(candidate, isOn) {
  const also = badges(candidate).filter(text => text !== "on the front");
  return `${titleOf(candidate)}: ${isOn ? "on the front, " : ""}${NAMES[view.x]} ` +
    `${fixed(xOf(candidate))}, ${view.y === "quality" ? "quality" : "accuracy"} ` +
    `${fixed(yOf(candidate))}${also.length ? ", " + also.join(", ") : ""}`;
}

function setCurrent(candidate) {
  points.get(current)?.node.setAttribute("tabindex", -1);
  current = candidate ?? null;
  points.get(current)?.node.setAttribute("tabindex", 0);
}

function listen(drawing) {
  const nearest = event => {
    const box = drawing.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let found = null, least = (event.pointerType === "touch" ? 34 : 22) ** 2;
    for (const [candidate, point] of points) {
      const far = (point.x - x) ** 2 + (point.y - y) ** 2;
      if (far < least) [found, least] = [candidate, far];
    }
    return found;
  };
  drawing.addEventListener("pointermove", event => {
    const found = nearest(event);
    hover(found);
    drawing.classList.toggle("over", found !== null);
  });
  drawing.addEventListener("pointerleave", () => hover(null));
  drawing.addEventListener("click", event => {
    const found = nearest(event);
    if (!found) return;
    setCurrent(found);
    open(found);
  });
  drawing.addEventListener("focusin", event => {
    for (const [candidate, point] of points) if (point.node === event.target) hover(candidate);
  });
  drawing.addEventListener("focusout", () => hover(null));
  drawing.addEventListener("keydown", event => {
    const next = step(event.key);
    if (next) {
      event.preventDefault();
      setCurrent(next);
      points.get(next).node.focus();
      if (view.candidate) open(next, {replace: true, focus: false});
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      if (current) open(current);
    }
  });
}

/** Where a key leads from the current candidate. */
function step(pressed) {
  const along = (list, by) => {
    const at = list.indexOf(current);
    if (at >= 0) return list[Math.min(list.length - 1, Math.max(0, at + by))];
    const dearer = list.findIndex(c => xOf(c) > xOf(current));
    if (by > 0) return dearer < 0 ? list.at(-1) : list[dearer];
    return list[Math.max(0, (dearer < 0 ? list.length : dearer) - 1)];
  };
  if (!current) return null;
  return {ArrowRight: () => along(shownFront, 1), ArrowLeft: () => along(shownFront, -1),
    ArrowUp: () => along(shownAll, 1), ArrowDown: () => along(shownAll, -1),
    Home: () => shownFront[0], End: () => shownFront.at(-1)}[pressed]?.() ?? null;
}

let hovered = null;
function hover(candidate) {
  if (candidate === hovered) return;
  points.get(hovered)?.node.classList.remove("hover");
  hovered = points.has(candidate) ? candidate : null;
  tip.hidden = hovered === null;
  if (hovered === null) return;
  const point = points.get(candidate);
  point.node.classList.add("hover");
  const most = 12, networks = networksOf(candidate);
  const same = equalsOf(candidate);
  tip.replaceChildren(...[
    el("strong", {}, titleOf(candidate)),
    el("div", {}, `quality ${fixed(candidate.quality)}, ` + data.costs
      .filter((_, at) => isNumber(candidate.costs?.[at]))
      .map(cost => `${NAMES[cost.name]} ${fixed(candidate.costs[costNames.indexOf(cost.name)])}`)
      .join(", ")),
    networks.length ? el("table", {}, el("tbody", {}, networks.slice(0, most).map(({name, at}) =>
      el("tr", {}, el("td", {}, name), el("td", {}, fixed(candidate.accuracy?.[at])),
        el("td", {class: "faint"}, isNumber(candidate.use?.[at]) ?
          `uses ${percent(candidate.use[at], 0)}` : ""))))) : null,
    networks.length > most ? el("div", {class: "faint"}, `and ${networks.length - most} more`) : null,
    badges(candidate).length ? el("div", {class: "faint"}, badges(candidate).join(" · ")) : null,
    same.length ? el("div", {class: "faint"}, `same design as ${same.slice(0, 3).map(titleOf)
      .join(", ")}${same.length > 3 ? ` and ${same.length - 3} more` : ""}`) : null,
  ].filter(Boolean));
  const place = frontFigure.place, room = place.clientWidth;
  const left = point.x + 16 + tip.offsetWidth < room ? point.x + 16 :
    Math.max(0, Math.min(point.x - 16 - tip.offsetWidth, room - tip.offsetWidth));
  tip.style.left = `${left}px`;
  tip.style.top = `${Math.max(0, point.y + 18)}px`;
}

function choice(label, options, chosen, change) {
  const select = el("select", {change: () => change(select.value)},
    options.map(([value, text]) => el("option", {value, selected: value === chosen}, text)));
  return el("label", {class: "choice"}, el("span", {}, label), select);
}

function toggles(label, entries, without) {
  return el("fieldset", {}, el("legend", {}, label), entries.map(({value, text, look, about}) => {
    const box = el("input", {type: "checkbox", change: () => {
      if (box.checked) without.delete(value); else without.add(value);
      changed();
    }});
    box.checked = !without.has(value);
    return el("label", {class: "toggle", title: about ?? null}, box, look, el("span", {}, text));
  }));
}

function controls() {
  const counts = grouped(data.candidates.filter(c => !c.error), c => c.strategy);
  const strategies = [...counts.keys()].sort().map(name => ({value: name,
    text: `${name} (${counts.get(name).length})`,
    look: key(mark(looks.get(name) ?? null, 6)),
    about: `${plural(counts.get(name).length, "candidate")} of ${name}`}));
  const seeds = unique(data.candidates.map(c => c.seed)).sort((a, b) => a - b)
    .map(seed => ({value: seed, text: String(seed)}));
  const steps = rung => {
    const known = data.candidates.map(c => c.rungs[rung - 1]).find(Boolean);
    return known ? `, ${known[0]} steps${known[1] === "full" ? " of full training" : ""}` : "";
  };
  return el("div", {class: "controls"},
    choice("Cost", data.costs.map(cost => [cost.name, NAMES[cost.name] +
      (cost.name === study.objective ? " (made small)" : "")]), view.x, value => {
      view.x = value;
      changed();
    }),
    choice("Quality", [["quality", "mean over tasks"],
      ...data.networks.map(name => ["accuracy:" + name, name])], view.y, value => {
      view.y = value;
      changed();
    }),
    ladder > 1 ? choice("Rung reached", [["last", "scored to the end"], ["all", "any"],
      ...Array.from({length: ladder}, (_, at) => [`${at + 1}`, `${at + 1}${steps(at + 1)}`])],
    view.rung, value => {
      view.rung = value;
      changed();
    }) : null,
    toggles(study.hasMethods ? "Method" : "Strategy", strategies, view.strategies),
    seeds.length > 1 ? toggles("Seed", seeds, view.seeds) : null);
}

/** Every mark that occurs, explained. */
function legend() {
  const circle = () => mark(null, 5, {d: SHAPES[0], class: "mark any"});
  const entries = [
    ["on the front: none of those shown beats it in both", true, key(circle(),
      draw("circle", {class: "ring", r: 8.5}))],
    ["the best quality for each cost", true, key(draw("path", {class: "stairs", d: "M-11,7H0V-7H11"}))],
    ["baseline, named where there is room", data.candidates.some(isBaseline), key(mark(null, 6))],
    ["fully trained", data.trainings.length, key(
      draw("rect", {class: "trained", x: -9, y: -9, width: 18, height: 18}), circle())],
    ["exported", data.exports.length, key(
      draw("g", {transform: "translate(0,-5)"}, mark(null, 5, {d: SHAPES[0], class: "mark any"}),
        draw("path", {class: "exported", d: "M0,7V15M-3.6,11.4L0,15L3.6,11.4"})))],
    ["a design that several strategies proposed", data.candidates.some(isShared), key(circle(),
      draw("circle", {class: "shared", r: 2}))],
    ["stopped at a lower rung: its score is that of fewer steps", data.candidates.some(c => c.stopped),
      key(draw("g", {class: "point stopped"}, circle()))],
  ];
  const words = [["best", "the highest quality"], ["knee", "where the front bends: much quality for " +
    "its cost"]];
  return el("ul", {class: "legend", "aria-label": "Legend"},
    entries.filter(entry => entry[1]).map(([text, , look]) => el("li", {}, look, text)),
    study.picks.best ? words.map(([word, text]) => el("li", {}, el("b", {}, word), text)) : null);
}

function changed() {
  history.replaceState(null, "", address());
  frontFigure.repaint();
  sayShown();
}

const shownNote = el("p", {class: "note", role: "status"});
function sayShown() {
  const scored = data.candidates.filter(c => !c.error).length;
  shownNote.textContent = `${shownAll.length.toLocaleString("en")} of ${plural(scored, "candidate")} ` +
    `shown, ${shownFront.length} on their front.`;
}

function frontSection() {
  frontFigure = figure("front", "Quality against cost of all candidates", paintFront, legend());
  frontFigure.place.classList.add("holds-tip");
  frontFigure.whole.prepend(tip);
  const box = el("div", {class: "controls-place"}, controls());
  addEventListener("viewchange", () => box.replaceChildren(controls()));
  const members = data.candidates.filter(c => c.front).sort((a, b) => a.cost - b.cost);
  const columns = [
    {label: "candidate", get: c => c.id, show: linkTo},
    {label: "quality", get: c => c.quality, show: c => fixed(c.quality), number: true},
    ...data.costs.map((cost, at) => ({label: NAMES[cost.name], about: cost.words, number: true,
      get: c => c.costs?.[at], show: c => fixed(c.costs?.[at])})),
    ...data.networks.map((name, at) => ({label: name, about: `validation accuracy of ${name}`,
      number: true, get: c => c.accuracy?.[at], show: c => fixed(c.accuracy?.[at])})),
    {label: "also", long: true,
      get: c => badges(c).filter(b => b !== "on the front").join("; ")},
  ];
  const everyone = el("details", {toggle: () => {
    if (everyone.open && everyone.children.length === 1) {
      everyone.append(table("candidates", [...columns.slice(0, 1),
        {label: study.hasMethods ? "method" : "strategy", get: c => c.strategy},
        {label: "seed", get: c => c.seed, number: true}, ...columns.slice(1)],
      data.candidates.filter(c => !c.error), {caption: "All candidates with a score"}));
    }
  }}, el("summary", {}, "All candidates as a table"));
  return section("front", "The front",
    el("p", {}, "Up is better, left is cheaper. Costs are relative to sharing every channel. Select a " +
      "point for its page; with the keyboard, arrows go along the front and Enter opens."),
    box, frontFigure.whole, shownNote,
    members.length ? table("members", columns, members, {caption: "Members of the front by " +
      NAMES[study.objective]}) : null,
    data.candidates.length ? everyone : null);
}

function section(id, title, ...content) {
  return el("section", {id, "aria-labelledby": id + "-title"},
    el("h2", {id: id + "-title", tabindex: -1}, title), content);
}
