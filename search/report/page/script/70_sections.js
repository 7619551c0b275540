// What is shown of the study beside its front.

/** Hypervolume after so many candidates, from the pairs where it changes. */
const volumeAt = (arm, count) => arm.hypervolume.findLast(([from]) => from <= count)?.[1] ?? 0;

function searchSection() {
  const arms = grouped(data.arms, arm => arm.strategy);
  if (!arms.size || study.hasMethods) return null;
  const most = Math.max(...data.arms.map(arm => arm.candidates));
  const caption = "Hypervolume after so many candidates of a strategy and seed";
  const isBanded = [...arms.values()].some(own => own.length > 1);
  const lines = [...arms].map(([name, own]) => {
    const length = Math.min(...own.map(arm => arm.candidates));
    const counts = unique([1, length, ...own.flatMap(arm => arm.hypervolume.map(([from]) => from))])
      .filter(count => count <= length).sort((a, b) => a - b);
    const corners = counts.flatMap((count, at) => at ? [[count, counts[at - 1]], [count, count]] :
      [[count, count]]);
    const of = how => corners.map(([x, known]) => [x, how(own.map(arm => volumeAt(arm, known)))]);
    return {name, own, length, mean: of(mean), low: of(all => Math.min(...all)),
      high: of(all => Math.max(...all))};
  });
  const paint = width => {
    const height = Math.round(Math.min(420, Math.max(280, width * 0.5)));
    const drawing = draw("svg", {width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
      "aria-label": caption + ". " + lines.map(line =>
        `${line.name}: ${fixed(line.mean.at(-1)[1], 4)} after ${line.length}`).join("; ")});
    const values = lines.flatMap(line => [...line.low, ...line.high].map(point => point[1]));
    if (data.baselines) values.push(data.baselines.hypervolume);
    const frame = axes({width, height, x: [Math.min(0.5, most - 1), Math.max(2, most)],
      y: limits(values), xName: "candidates", yName: "hypervolume", whole: true});
    const place = points => points.map(([x, y]) => [frame.x(x), frame.y(y)]);
    drawing.append(frame.group);
    if (data.baselines) {
      const y = frame.y(data.baselines.hypervolume);
      drawing.append(draw("line", {class: "reference", x1: frame.left, x2: width - frame.right, y1: y,
        y2: y}));
    }
    for (const line of lines.filter(each => each.own.length > 1)) {
      drawing.append(draw("path", {class: "band", fill: looks.get(line.name).colour,
        d: through(place([...line.high, ...[...line.low].reverse()])) + "Z"}));
    }
    for (const line of lines) {
      const own = looks.get(line.name), placed = place(line.mean);
      drawing.append(draw("path", {class: "curve", d: through(placed), stroke: own.colour}));
      const every = Math.max(1, Math.ceil(placed.length / 8));
      placed.filter((_, at) => at % every === 0 || at === placed.length - 1).forEach(([x, y]) =>
        drawing.append(draw("g", {transform: `translate(${x.toFixed(1)},${y.toFixed(1)})`},
          mark(own, 4))));
    }
    return drawing;
  };
  const [quality, cost] = study.reference;
  const rows = data.arms.map(arm => ({...arm, last: arm.hypervolume.at(-1)?.[1] ?? 0}));
  return section("search", "The search",
    el("p", {}, `Hypervolume is the area between the front and the point of quality ${
      fixed(quality)} and cost ${fixed(cost, 2)}, as a share of the ideal's: the higher, the better.`),
    figure("hypervolume", caption, paint, el("ul", {class: "legend"},
      lines.map(({name}) => el("li", {}, key(mark(looks.get(name), 6)), name)),
      isBanded ? el("li", {}, key(draw("path", {class: "band any", d: "M-10,-7H10V7H-10Z"}),
        draw("path", {class: "curve any", d: "M-10,0H10"})),
      "mean over seeds, and from the lowest to the highest seed") : null,
      data.baselines ? el("li", {}, key(draw("path", {class: "reference", d: "M-11,0H11"})),
        `${plural(data.baselines.count, "baseline")} together`) : null)).whole,
    table("strategies", [
      {label: "strategy", get: row => row.strategy},
      {label: "seed", number: true, get: row => row.seed},
      {label: "candidates", number: true, get: row => row.candidates},
      {label: "hypervolume", number: true, get: row => row.last, show: row => fixed(row.last, 4)},
    ], rows, {caption: "Strategies by seed"}));
}

function trainedSection() {
  if (!data.trials.length) return null;
  const many = unique(data.trials.map(trial => trial.settings)).length > 1;
  return section("trained", "Trained networks",
    el("p", {}, "Every candidate that was trained in full. Differences are to share_all, trained " +
      "the same way on the same foundation; p is Welch's, over seeds, corrected for all that were " +
      "trained (Holm)."),
    table("trained", [
      {label: "candidate", get: row => row.candidate, show: row => linkTo(byId.get(row.candidate))},
      {label: "settings", about: "short name of how it was trained", get: row => row.settings},
      {label: "seeds", number: true, get: row => row.seeds},
      {label: "split", get: row => row.split},
      {label: "mean accuracy", number: true, get: row => row.mean, show: row => fixed(row.mean)},
      {label: "std", about: "standard deviation over seeds", number: true, get: row => row.std,
        show: row => fixed(row.std)},
      {label: "difference", number: true, get: row => row.difference,
        show: row => signed(row.difference)},
      {label: "p", number: true, get: row => row.p, show: row => fixed(row.p)},
      {label: "proxy's quality", about: "as the search scored it", number: true,
        get: row => byId.get(row.candidate).quality,
        show: row => fixed(byId.get(row.candidate).quality)},
    ], data.trials, {caption: many ? "Full trainings, by settings" : "Full trainings"}),
    Object.keys(data.settings).map(settingsText));
}

function exportedSection() {
  if (!data.exports.length) return null;
  return section("exported", "Exports",
    table("exports", [
      {label: "candidate", get: row => row.candidate, show: row => byId.has(row.candidate) ?
        linkTo(byId.get(row.candidate)) : row.candidate},
      {label: "seed", number: true, get: row => row.seed},
      {label: "folder", get: row => row.path, show: row => el("code", {}, row.path)},
      {label: "formats", get: row => row.formats.join(" ")},
      {label: "when", get: row => new Date(1000 * row.time).toISOString(), show: row => when(row.time)},
      {label: "state", get: row => row.is_there ? "there" : "gone",
        about: "gone: the folder is there no more"},
    ], data.exports, {caption: "Where networks were exported to"}));
}

function teachersSection() {
  if (!data.tasks.length) return null;
  const whole = data.candidates.find(c => c.label === "share_all" && isScored(c));
  const best = byId.get(study.picks.best);
  const of = (candidate, task) => candidate?.accuracy?.[data.networks.indexOf(task.name)] ?? null;
  return section("tasks", "Tasks and teachers",
    el("p", {}, "A teacher is a network of a task's own, with every channel. Guessing is to answer " +
      "the commonest class always. Accuracies are on validation images."),
    table("tasks", [
      {label: "task", get: task => task.name},
      {label: "classes", number: true, get: task => task.classes},
      {label: "training images", number: true, get: task => task.images, show: task => short(task.images)},
      {label: "guessing", number: true, get: task => task.floor, show: task => fixed(task.floor)},
      {label: "teacher", number: true, get: task => task.teacher_accuracy,
        show: task => fixed(task.teacher_accuracy)},
      ...(whole ? [{label: "share_all", number: true, get: task => of(whole, task),
        show: task => fixed(of(whole, task))}] : []),
      ...(best ? [{label: "best candidate", number: true, get: task => of(best, task),
        show: task => fixed(of(best, task))}] : []),
    ], data.tasks, {caption: "Tasks"}));
}

function calibrationSection() {
  if (!data.calibration) return null;
  const words = sentence(data.calibration.verdict);
  const source = "data:image/png;base64," + data.calibration.picture;
  const link = el("a", {class: "button small", href: source,
    download: fileName(study.name, "calibration") + ".png"}, "PNG");
  return section("calibration", "Calibration", el("p", {}, words + "."),
    el("figure", {}, el("img", {src: source, alt: `The proxy's quality against that of full training. ${
      words}.`}), el("div", {class: "tools"}, el("figcaption", {}, "The proxy against full training"),
      link)));
}

function methodsSection() {
  if (!data.methods?.length) return null;
  const column = (name, show, label = name) => ({label, number: true, get: row => row[name],
    show: row => show(row[name])});
  return section("methods", "Methods",
    el("p", {}, "Means over tasks, then over seeds, of every method and level."),
    table("methods", [
      {label: "method", get: row => row.method},
      column("level", String), column("seeds", String),
      column("validation", fixed, "validation accuracy"), column("test", fixed, "test accuracy"),
      {...column("std", fixed), about: "standard deviation over seeds, of test accuracy where all " +
        "have it, else of validation accuracy"},
      {...column("parameters", short), about: "weights of a network, mean over tasks"},
      {...column("macs", short, "MACs"), about: "multiply-accumulates of a network for an image"},
      {...column("stored", short), about: "weights that all networks of the method keep together"},
    ], data.methods, {caption: "Methods by level", first: 60}));
}

function latencySection() {
  const layers = data.layers;
  const timed = data.exports.flatMap(one => one.latencies.map(row => ({...row, one})));
  if (!layers && !timed.length) return null;
  return section("latency", "Latency",
    layers ? [
      el("p", {}, `Layers of the undivided network, timed on ${layers.device} with ${
        plural(layers.batch, "image")} at a time and ${plural(layers.threads, "thread")}. Networks that ` +
        `were timed to try the table differ from it by ${percent(layers.error, 0)} (median).`),
      table("layers", [{label: "layer", get: row => row[0]},
        {label: "milliseconds", number: true, get: row => row[1], show: row => fixed(row[1], 4)}],
      Object.entries(layers.milliseconds), {caption: "Times of layers", first: 8})] : null,
    timed.length ? table("latency", [
      {label: "candidate", get: row => row.one.candidate},
      {label: "network", get: row => row.network},
      {label: "file", get: row => row.file},
      {label: "milliseconds", number: true, get: row => row.ms, show: row => fixed(row.ms)},
      {label: "undivided", about: "milliseconds of the network without masks", number: true,
        get: row => row.undivided_ms, show: row => fixed(row.undivided_ms)},
      {label: "relative", number: true, get: row => row.ms / row.undivided_ms,
        show: row => fixed(row.ms / row.undivided_ms, 2)},
    ], timed, {caption: "Exported networks, an image at a time on one thread"}) : null);
}

function failuresSection() {
  const failed = data.candidates.filter(c => c.error !== undefined);
  if (!failed.length) return null;
  const reasons = [...grouped(failed, c => c.error)].sort((a, b) => b[1].length - a[1].length);
  return section("failures", "Failures",
    el("p", {}, `${plural(failed.length, "candidate")} failed, for ${plural(reasons.length, "reason")}.`),
    el("ul", {class: "plain"}, reasons.slice(0, 10).map(([reason, own]) =>
      el("li", {}, el("b", {}, `${own.length} × `), reason))),
    table("failures", [
      {label: "candidate", get: c => c.id, show: linkTo},
      {label: "strategy", get: c => c.strategy},
      {label: "seed", number: true, get: c => c.seed},
      {label: "reason", long: true, get: c => c.error},
    ], failed, {caption: "Candidates that failed", first: 10}));
}

function reproduceSection() {
  const folder = quoted(study.folder), start = study.hasMethods ? "train" : "search";
  return section("reproduce", "How to reproduce it",
    command(`apportion ${start} ${quoted(study.folder + "/config.yaml")} --set ${
      quoted("name=" + study.name + "-again")}`, "Run it anew, under another name"),
    command(`apportion report ${folder}`, "Write this page anew"),
    command(`apportion front ${folder}`, "Print the front"),
    data.config ? el("details", {}, el("summary", {}, "config.yaml"),
      el("pre", {class: "text", tabindex: 0}, data.config),
      el("button", {type: "button", class: "small", click: () =>
        save("config.yaml", new Blob([data.config], {type: "text/yaml"}))}, "Save")) : null);
}
