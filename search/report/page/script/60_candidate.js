// A candidate's page: a panel beside the front, or over it where there is little room.

const panel = el("aside", {id: "candidate", hidden: true, "aria-label": "Candidate"});
/** Where the panel lies over the rest of the page, which then cannot be reached. */
const covers = matchMedia("(max-width: 1099.9px)");
let opener = null;

function open(candidate, {replace = false, focus = true} = {}) {
  if (!view.candidate) opener = document.activeElement;
  view.candidate = candidate;
  history[replace ? "replaceState" : "pushState"](null, "", address());
  showCandidate(focus);
}

function close() {
  if (!view.candidate) return;
  view.candidate = null;
  history.pushState(null, "", address());
  showCandidate();
}

/** Shows the panel of the candidate that the view names, or none. */
function showCandidate(focus = true) {
  const candidate = view.candidate;
  document.body.classList.toggle("open", candidate !== null);
  panel.hidden = candidate === null;
  document.getElementById("page").inert = candidate !== null && covers.matches;
  document.title = (candidate ? `${titleOf(candidate)} · ` : "") + pageTitle;
  if (!candidate) {
    panel.replaceChildren();
    const back = points.get(current)?.node;
    if (focus) (opener?.isConnected && opener !== document.body ? opener : back)?.focus?.();
    markOpen();
    return;
  }
  panel.replaceChildren(...candidatePage(candidate));
  panel.scrollTop = 0;
  if (points.has(candidate)) setCurrent(candidate);
  markOpen();
  hover(null);
  if (focus) panel.querySelector("h2").focus({preventScroll: innerWidth >= 1100});
}

function markOpen() {
  for (const [candidate, {node}] of points) {
    node.classList.toggle("chosen", candidate === view.candidate);
  }
}

function candidatePage(candidate) {
  const members = data.candidates.filter(c => c.front)
    .sort((a, b) => a.cost - b.cost || a.quality - b.quality);
  const at = members.indexOf(candidate);
  const go = (by, text) => {
    const next = at < 0 ? null : members[at + by];
    return el("button", {type: "button", class: "small", disabled: !next,
      click: () => open(next)}, text);
  };
  const copy = el("button", {type: "button", class: "small", click: async () => {
    announce(await copied(location.href) ? "Link copied" : "Could not copy");
    copy.textContent = "Copied";
  }}, "Copy link");
  const part = (title, ...content) => content.flat().some(Boolean) ?
    el("section", {}, el("h3", {}, title), content) : null;
  return [
    el("div", {class: "bar"},
      at >= 0 ? [go(-1, "← cheaper"), go(1, "better →")] : null, copy,
      el("button", {type: "button", class: "small close", click: close}, "Close")),
    el("h2", {tabindex: -1}, key(mark(lookOf(candidate), 7)), " ", titleOf(candidate)),
    el("ul", {class: "badges"}, badges(candidate).map(text => el("li", {}, text))),
    candidate.error !== undefined ? el("p", {class: "error"}, sentence(candidate.error)) : null,
    headline(candidate),
    part("Accuracy by task", accuracyPart(candidate)),
    part("How tasks share channels", sharingPart(candidate)),
    part("Masks", masksPart(candidate)),
    part("Costs by task", costsPart(candidate)),
    part("Where it came from", originPart(candidate)),
    part("How it trained", trainingPart(candidate)),
    part("Exports", exportsPart(candidate)),
    part("Train and export it", commandsPart(candidate)),
  ].filter(Boolean);
}

function headline(candidate) {
  if (candidate.error !== undefined) return null;
  const number = (label, value, about = null) => el("div", {title: about}, el("dt", {}, label),
    el("dd", {}, value));
  return el("dl", {class: "numbers"}, number("quality", fixed(candidate.quality), study.quality),
    data.costs.filter((_, at) => isNumber(candidate.costs?.[at]))
      .map(cost => number(NAMES[cost.name], fixed(candidate.costs[costNames.indexOf(cost.name)]),
        cost.words)));
}

/** Whom a candidate is held against, those that are known. */
function rivals(candidate) {
  const [whole, apart] = ["share_all", "independent"].map(label => baselineOf(candidate, label));
  const teacher = at => taskOf(data.networks[at])?.teacher_accuracy;
  return [
    {name: "this candidate", shape: SHAPES[0], colour: data.colours[0],
      of: at => candidate.accuracy?.[at]},
    {name: "single-task teacher", shape: SHAPES[3], colour: data.colours[4], of: teacher},
    {name: "share_all", about: "every task uses every channel", shape: SHAPES[1],
      colour: data.colours[1], of: at => whole?.accuracy?.[at]},
    {name: "independent", about: "no task shares a channel", shape: SHAPES[2],
      colour: data.colours[2], of: at => apart?.accuracy?.[at]},
  ].filter(rival => data.networks.some((_, at) => isNumber(rival.of(at))));
}

function accuracyPart(candidate) {
  const networks = networksOf(candidate).filter(({at}) => isNumber(candidate.accuracy?.[at]));
  if (!networks.length) return null;
  const held = rivals(candidate);
  const caption = "Validation accuracy by task, beside what it is held against";
  const paint = width => {
    const row = 30, left = Math.min(150, width * 0.3), right = 18, top = 10;
    const height = top + row * networks.length + 40;
    const values = networks.flatMap(({at}) => held.map(r => r.of(at))).filter(isNumber);
    const [low, high] = limits(values, 0.08).map(value => Math.min(1, Math.max(0, value)));
    const x = value => left + (value - low) / (high - low || 1) * (width - left - right);
    const drawing = draw("svg", {width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
      "aria-label": caption + ": the table below has the numbers"});
    const marks = ticks(low, high, Math.max(2, (width - left) / 90));
    for (const value of marks.found) {
      drawing.append(draw("line", {class: "grid", x1: x(value), x2: x(value), y1: top,
        y2: height - 38}), draw("text", {x: x(value), y: height - 22, "text-anchor": "middle"},
        value.toFixed(marks.digits)));
    }
    drawing.append(draw("text", {class: "name", x: width - right, y: height - 4,
      "text-anchor": "end"}, "validation accuracy →"));
    networks.forEach(({name, at}, number) => {
      const y = top + row * (number + 0.5), known = held.map(r => r.of(at)).filter(isNumber);
      drawing.append(draw("text", {x: left - 12, y: y + 4, "text-anchor": "end"},
        clipped(name, left - 14)),
      draw("line", {class: "span", x1: x(Math.min(...known)), x2: x(Math.max(...known)), y1: y, y2: y}));
      for (const rival of [...held].reverse()) {
        if (!isNumber(rival.of(at))) continue;
        drawing.append(draw("g", {transform: `translate(${x(rival.of(at)).toFixed(1)},${y})`},
          mark(rival, rival === held[0] ? 7 : 5)));
      }
    });
    return drawing;
  };
  const shown = figure(candidate.id + "-accuracy", caption, paint, el("ul", {class: "legend"},
    held.map(rival => el("li", {}, key(mark(rival, 6)),
      rival.about ? `${rival.name}: ${rival.about}` : rival.name))));
  const less = (rival, at) => candidate.accuracy[at] - rival.of(at);
  const columns = [{label: "task", get: ({name}) => name},
    ...held.map(rival => ({label: rival.name, number: true, get: ({at}) => rival.of(at) ?? null,
      show: ({at}) => rival === held[0] || !isNumber(rival.of(at)) ? fixed(rival.of(at)) :
        `${fixed(rival.of(at))} (${signed(less(rival, at))})`})),
    ...held.slice(1).map(rival => ({label: `less ${rival.name}`, number: true, kept: true,
      get: ({at}) => isNumber(rival.of(at)) ? +less(rival, at).toFixed(5) : null}))];
  const steps = candidate.rungs.at(-1);
  const note = el("p", {class: "note"}, `${candidate.label === "share_all" ? "This is share_all itself. "
    : ""}Accuracies of candidates are those of ${steps ? plural(steps[0], "step") : "the scoring"}${
    steps?.[1] === "proxy" ? " of the proxy, not of full training" : ""}. In brackets, by how much it `
    + "does better.");
  return [shown.whole, note, table(candidate.id + "-accuracy", columns, networks,
    {caption: "Accuracy by task"})];
}

/** A matrix of shares as a figure. */
function heatmap(name, caption, names, matrix) {
  return figure(name, caption, width => {
    const left = Math.min(96, width * 0.26), below = 58;
    const cell = Math.min(54, (width - left - 6) / names.length);
    const size = cell * names.length, [w, h] = [width, size + below + 2];
    const drawing = draw("svg", {class: "heat", width: w, height: h, viewBox: `0 0 ${w} ${h}`,
      role: "img", "aria-label": `${caption}. ` + (names.length <= 12 ? names.map((one, i) =>
        `${one} uses ${percent(matrix[i][i], 0)}`).join(", ") : "")});
    names.forEach((one, i) => {
      const at = cell * (i + 0.5);
      drawing.append(draw("text", {x: left - 6, y: at + 4, "text-anchor": "end"},
        clipped(one, left - 6)),
      draw("text", {transform: `translate(${left + at + 4},${size + 12}) rotate(-38)`,
        "text-anchor": "end"}, clipped(one, below + 8)));
      names.forEach((other, j) => {
        const value = matrix[i][j];
        const group = draw("g", {}, draw("title", {}, `${one} and ${other}: ${percent(value)}`),
          draw("rect", {class: "cell", x: left + cell * j, y: cell * i, width: cell - 1,
            height: cell - 1, "fill-opacity": (0.06 + 0.94 * value).toFixed(3)}));
        if (cell >= 24) {
          group.append(draw("text", {class: value > 0.85 ? "on-dark" : "on-light",
            x: left + cell * (j + 0.5), y: cell * (i + 0.5) + 4, "text-anchor": "middle"},
          Math.round(100 * value)));
        }
        drawing.append(group);
      });
    });
    return drawing;
  }).whole;
}

function sharingPart(candidate) {
  if (candidate.design === undefined) return null;
  const groups = masksOf(candidate), place = el("div", {class: "pair"});
  const note = el("p", {class: "note"});
  const show = which => {
    const own = which === null ? groups : groups.filter(group => group.name === which);
    const asked = askedOf(candidate, which), of = which === null ? "mean of all groups" : which;
    const base = [candidate.id, "P", which ?? "mean"].join("-");
    place.replaceChildren(...[
      heatmap(base + "-realised", `P realised, ${of}, in percent`, groups[0].networks,
        averaged(own.map(realised))),
      asked && heatmap(base + "-asked", `P asked for, ${of}, in percent`, groups[0].tasks, asked),
    ].filter(Boolean));
    const off = own.map(group => candidate.deviation?.[group.name]).filter(isNumber);
    const least = own.map(group => candidate.bound?.[group.name]).filter(isNumber);
    const sum = values => values.reduce((a, b) => a + b, 0);
    note.textContent = asked === null ? (candidate.asked ? "No P was asked for of this group." :
      "No P was asked for: these masks were made directly.") :
      `The masks differ from what was asked by ${short(sum(off))} channels, counted over all ` +
      `entries; no masks differ by less than ${short(sum(least))}` +
      (candidate.proven ? ", so these are proven to be the best there are." : ".");
  };
  show(null);
  return [
    el("p", {}, "On the diagonal the share of channels that a task uses; elsewhere the share that " +
      "two tasks both use."),
    groups.length > 1 ? choice("Group", [["", "mean of all groups"],
      ...groups.map(group => [group.name, group.name])], "", value => show(value || null)) : null,
    place, note];
}

const KINDS = {hidden: "hidden channels", heads: "attention heads", stream: "stream"};

function masksPart(candidate) {
  if (candidate.design === undefined) return null;
  const groups = masksOf(candidate), place = el("div");
  const show = sorted => place.replaceChildren(...groups.map(group =>
    strip(candidate, group, sorted)));
  const box = el("input", {type: "checkbox", change: () => show(box.checked)});
  show(false);
  return [
    el("ul", {class: "legend"},
      el("li", {}, key(draw("rect", {class: "own", x: -8, y: -8, width: 16, height: 16})),
        "used by this task alone"),
      el("li", {}, key(draw("rect", {class: "common", x: -8, y: -8, width: 16, height: 16})),
        "used by other tasks, too"),
      groups.some(group => group.changed) ? el("li", {}, key(
        draw("rect", {class: "common frozen", x: -8, y: -8, width: 16, height: 16})),
      "read, but not changed in training") : null,
      el("li", {}, key(draw("rect", {class: "unused", x: -8, y: -8, width: 16, height: 16})),
        "not used")),
    el("label", {class: "toggle"}, box, el("span", {}, "Put channels with the same users together")),
    place];
}

/** The masks of a group: a row for each network, a column for each channel. */
function strip(candidate, group, sorted) {
  const order = Array.from({length: group.width}, (_, channel) => channel);
  const users = channel => group.read.map(row => row[channel]).join("");
  const count = order.map(channel => group.read.reduce((sum, row) => sum + row[channel], 0));
  const taskCount = order.map(channel => new Set(group.networks.filter((_, row) =>
    group.read[row][channel]).map(name => name.replace(/@\d+$/, ""))).size);
  if (sorted) {
    const text = order.map(users);
    order.sort((a, b) => count[b] - count[a] || (text[a] < text[b] ? 1 : text[a] > text[b] ? -1 : 0));
  }
  const kind = group.channels > 1 ? `${KINDS[group.kind] ?? group.kind}, ${group.channels} channels each`
    : KINDS[group.kind] ?? group.kind;
  const caption = `${group.name}: ${group.width} ${kind}`;
  const kindOf = (row, channel) => !group.read[row][channel] ? null :
    (taskCount[channel] > 1 ? "common" : "own")
      + (group.changed && !group.changed[row][channel] ? " frozen" : "");
  return figure(`${candidate.id}-masks-${group.name}`, caption, width => {
    const left = Math.min(96, width * 0.26), high = 15;
    const each = (width - left - 2) / group.width, height = high * group.networks.length + 2;
    const drawing = draw("svg", {class: "strip", width, height, viewBox: `0 0 ${width} ${height}`,
      role: "img", "aria-label": `${caption}. ` + group.networks.map((name, row) =>
        `${name} uses ${group.read[row].reduce((a, b) => a + b, 0)}`).join(", ")});
    group.networks.forEach((name, row) => {
      const y = 1 + high * row;
      drawing.append(draw("text", {x: left - 6, y: y + 11, "text-anchor": "end"},
        clipped(name, left - 6)),
      draw("rect", {class: "unused", x: left, y, width: each * group.width, height: high - 3}));
      for (let from = 0; from < order.length;) {
        const own = kindOf(row, order[from]);
        let to = from + 1;
        while (to < order.length && kindOf(row, order[to]) === own) to++;
        if (own) {
          drawing.append(draw("rect", {class: own, x: (left + each * from).toFixed(2), y,
            width: (each * (to - from)).toFixed(2), height: high - 3}));
        }
        from = to;
      }
      if (each >= 5) {
        for (let at = 1; at < order.length; at++) {
          drawing.append(draw("line", {class: "gap", x1: left + each * at, x2: left + each * at, y1: y,
            y2: y + high - 3}));
        }
      }
    });
    return drawing;
  }).whole;
}

function costsPart(candidate) {
  const networks = networksOf(candidate).filter(({at}) => isNumber(candidate.use?.[at]));
  if (!networks.length) return null;
  const column = (label, about, of, show) => ({label, about, number: true,
    get: ({at}) => of(at), show: ({at}) => show(of(at))});
  return [table(candidate.id + "-costs", [{label: "task", get: ({name}) => name},
    column("use", ABOUT.use, at => candidate.use[at], percent),
    column("parameters", "weights of the task's network", at => candidate.parameters[at], short),
    column("MACs", "multiply-accumulates for an image", at => candidate.macs[at], short)],
  networks, {caption: "What each task's network costs"}),
  el("p", {class: "note"}, `All tasks in one network: ${short(candidate.stored)} weights.`)];
}

function originPart(candidate) {
  const fact = (name, ...value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));
  const same = equalsOf(candidate), source = byId.get(candidate.repeats);
  const listed = list => list.flatMap((one, at) => [at ? ", " : "", linkTo(one)]);
  const seconds = candidate.rungs.map(rung => rung[4]).filter(isNumber);
  const rungs = candidate.rungs.map((rung, at) => ({rung, at}));
  return [
    el("dl", {class: "facts"},
      fact(study.hasMethods ? "method" : "strategy", candidate.strategy),
      fact("seed", String(candidate.seed)),
      fact(study.hasMethods ? "level" : "index", String(candidate.index)),
      candidate.repeats ? fact("scored as", source ? linkTo(source) : candidate.repeats,
        ": the same design had been scored already") : null,
      same.length ? fact("same design", listed(same.slice(0, 30)), same.length > 30 ?
        ` and ${same.length - 30} more` : "", isShared(candidate) ?
        ` (proposed by ${unique([candidate, ...same].map(c => c.strategy)).sort().join(", ")})` : "")
        : null,
      seconds.length ? fact("device time", duration(seconds.reduce((a, b) => a + b, 0))) : null,
      candidate.finished ? fact("finished", when(candidate.finished)) : null),
    rungs.length ? table(candidate.id + "-rungs", [
      {label: "rung", number: true, get: ({at}) => at + 1},
      {label: "steps", number: true, get: ({rung}) => rung[0], show: ({rung}) => short(rung[0])},
      {label: "fidelity", about: "proxy: feature distillation; full: training on the images",
        get: ({rung}) => rung[1]},
      {label: "quality", number: true, get: ({rung}) => rung[2], show: ({rung}) => fixed(rung[2]) +
        (isNumber(rung[3]) ? ` ± ${fixed(rung[3])}` : "")},
      {label: "seconds", number: true, get: ({rung}) => rung[4], show: ({rung}) => fixed(rung[4], 1)},
      {label: "evaluator", get: ({rung}) => rung[5] || null},
      ...(rungs.some(({rung}) => rung[6]) ? [{label: "error", long: true, get: ({rung}) => rung[6]}] : []),
    ], rungs, {caption: "Scorings, the cheapest first"}) : null];
}

/** Curves of trainings, a colour and a mark for each network, a line for each seed. */
function curves(candidate, settings, trainings) {
  const names = unique(trainings.flatMap(one => Object.keys(one.curves)));
  const style = name => {
    const at = names.indexOf(name);
    return {colour: data.colours[at % data.colours.length], shape: SHAPES[at % SHAPES.length]};
  };
  const all = trainings.flatMap(one => Object.values(one.curves).flat());
  if (!all.length) return null;
  const caption = `Validation accuracy while it trained, settings ${settings}`;
  return figure(`${candidate.id}-training-${settings}`, caption, width => {
    const height = Math.round(Math.min(380, Math.max(240, width * 0.6)));
    const drawing = draw("svg", {width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
      "aria-label": caption});
    const frame = axes({width, height, x: limits(all.map(p => p[0]), 0.02), y: limits(all.map(p => p[1])),
      xName: "steps", yName: "validation accuracy", whole: true});
    drawing.append(frame.group);
    for (const one of trainings) {
      for (const [name, curve] of Object.entries(one.curves)) {
        const own = style(name), line = curve.map(([x, y]) => [frame.x(x), frame.y(y)]);
        drawing.append(draw("path", {class: "curve", d: through(line), stroke: own.colour}));
        for (const [x, y] of line.length > 1 ? [line[0], line.at(-1)] : line) {
          drawing.append(draw("g", {transform: `translate(${x.toFixed(1)},${y.toFixed(1)})`},
            mark(own, 4)));
        }
      }
    }
    return drawing;
  }, el("ul", {class: "legend"}, names.map(name => el("li", {}, key(mark(style(name), 6)), name)),
    el("li", {}, trainings.length > 1 ? "a line for each seed, marks at its ends" :
      "marks at the ends of each line"))).whole;
}

function trainingPart(candidate) {
  if (!isTrained(candidate)) return null;
  return [...grouped(trainingsOf.get(candidate.id), one => one.settings)].map(([settings, own]) => {
    const splits = unique(own.flatMap(one => Object.keys(one.accuracy)));
    const names = unique(own.flatMap(one => splits.flatMap(s => Object.keys(one.accuracy[s] ?? {}))));
    const rows = own.flatMap(one => splits.filter(split => one.accuracy[split])
      .map(split => ({one, split, values: one.accuracy[split]})));
    return el("div", {}, curves(candidate, settings, own),
      table(`${candidate.id}-trained-${settings}`, [
        {label: "seed", number: true, get: row => row.one.seed},
        {label: "split", get: row => row.split},
        {label: "mean", number: true, get: row => mean(Object.values(row.values)),
          show: row => fixed(mean(Object.values(row.values)))},
        ...names.map(name => ({label: name, number: true, get: row => row.values[name],
          show: row => fixed(row.values[name])})),
      ], rows, {caption: `Accuracy after full training, settings ${settings}`}),
      settingsText(settings));
  });
}

const settingsText = name => data.settings[name] ? el("details", {}, el("summary", {},
  `Settings ${name} in full`), el("pre", {class: "text", tabindex: 0}, data.settings[name])) : null;

function exportsPart(candidate) {
  return isExported(candidate) ? el("ul", {class: "plain"}, exportsOf.get(candidate.id).map(one =>
    el("li", {class: one.is_there ? null : "gone"}, el("code", {}, one.path),
      ` – ${one.formats.join(", ")}, seed ${one.seed}, ${when(one.time)}`,
      one.is_there ? "" : " – gone: the folder is there no more"))) : null;
}

function commandsPart(candidate) {
  if (candidate.error !== undefined || candidate.stopped) {
    return el("p", {class: "note"}, candidate.stopped ?
      "It was stopped at a lower rung and has no score to be picked by." : "It failed.");
  }
  if (study.simulated) {
    return el("p", {class: "note"}, "Scores of this study are simulated: there is nothing to train.");
  }
  const [folder, pick] = [quoted(study.folder), quoted(candidate.id)];
  return [
    study.hasMethods ? null :
      command(`apportion train ${folder} --pick ${pick} --seeds 3`, "Train it in full, three times"),
    command(`apportion export ${folder} --pick ${pick} --out ${quoted(candidate.id + "-networks")}`,
      "Export one small network per task"),
  ];
}
