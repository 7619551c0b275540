// What is known of candidates beyond their rows: picks, trainings, exports, equal designs, masks.

const byId = new Map(data.candidates.map(candidate => [candidate.id, candidate]));
const grouped = (rows, by) => {
  const found = new Map();
  for (const row of rows) found.set(by(row), [...found.get(by(row)) ?? [], row]);
  return found;
};
const trainingsOf = grouped(data.trainings, one => one.candidate);
const exportsOf = grouped(data.exports, one => one.candidate);
const equalDesigns = new Map();
for (const candidate of data.candidates) {
  if (candidate.design === undefined || candidate.error) continue;
  if (!equalDesigns.has(candidate.design)) equalDesigns.set(candidate.design, []);
  equalDesigns.get(candidate.design).push(candidate);
}

const isScored = candidate => candidate.error === undefined && !candidate.stopped;
const isBaseline = candidate => candidate.label !== undefined;
const lookOf = candidate => isBaseline(candidate) ? null : looks.get(candidate.strategy);
const titleOf = candidate => isBaseline(candidate) ? `${candidate.label} (${candidate.id})` :
  candidate.id;
const isTrained = candidate => trainingsOf.has(candidate.id);
const isExported = candidate => exportsOf.has(candidate.id);
const equalsOf = candidate => (equalDesigns.get(candidate.design) ?? [])
  .filter(other => other !== candidate);
/** Whether other strategies proposed the same design. */
const isShared = candidate => equalsOf(candidate).some(o => o.strategy !== candidate.strategy);
const rungReached = candidate => candidate.rungs.length;

/** The baseline of a label on the same trunk and teachers. */
function baselineOf(candidate, label) {
  const alike = data.candidates.filter(c => c.label === label && isScored(c));
  return alike.find(c => c.foundation === candidate.foundation) ?? null;
}

/** Names of networks that a candidate has accuracies of. */
const networksOf = candidate => data.networks
  .map((name, at) => ({name, at}))
  .filter(({at}) => isNumber(candidate.accuracy?.[at]) || isNumber(candidate.use?.[at]));

/** The task of a network, which carries the level behind its name. */
const taskOf = name => data.tasks.find(task => task.name === name) ??
  data.tasks.find(task => name.startsWith(task.name + "@"));

function bits(text) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  return at => bytes[at >> 3] >> (7 - at % 8) & 1;
}

/** Masks by group: read[row][channel], and changed where some channels are read only. */
function masksOf(candidate) {
  const design = data.designs[candidate.design], layout = data.layouts[design.layout];
  const total = layout.groups.reduce((sum, group) => sum + group.width, 0);
  const [read, changed] = [design.read, design.changed].map(text => text && bits(text));
  let start = 0;
  return layout.groups.map(group => {
    const rows = source => layout.networks.map((_, row) => Array.from({length: group.width},
      (_, channel) => source(row * total + start + channel)));
    const own = {...group, networks: layout.networks, tasks: layout.tasks, read: rows(read),
      changed: changed ? rows(changed) : null};
    start += group.width;
    return own;
  });
}

/** The P that masks have: the share of a group's channels that each two networks both read. */
function realised(group) {
  return group.read.map(one => group.read.map(other =>
    one.reduce((sum, bit, at) => sum + (bit & other[at]), 0) / group.width));
}

/** A matrix from its upper triangle. */
function square(upper) {
  const size = Math.round((Math.sqrt(8 * upper.length + 1) - 1) / 2);
  const found = Array.from({length: size}, () => Array(size));
  let at = 0;
  for (let i = 0; i < size; i++) {
    for (let j = i; j < size; j++) found[i][j] = found[j][i] = upper[at++];
  }
  return found;
}

const averaged = matrices => matrices[0].map((row, i) => row.map((_, j) =>
  mean(matrices.map(matrix => matrix[i][j]))));

/** The P that was asked for of a group, or of all on average; null where none was. */
function askedOf(candidate, group = null) {
  if (!candidate.asked) return null;
  const names = data.layouts[data.designs[candidate.design].layout].groups.map(g => g.name)
    .filter(name => candidate.asked[name] !== undefined && (group === null || group === name));
  return names.length ? averaged(names.map(name => square(data.targets[candidate.asked[name]])))
    : null;
}

/** Badges: what a candidate is, in words. */
function badges(candidate) {
  const found = [];
  if (candidate.id === study.picks.best) found.push("best: the highest quality");
  if (candidate.id === study.picks.knee) found.push("knee: the front's bend");
  if (candidate.front) found.push("on the front");
  if (isBaseline(candidate)) found.push("baseline");
  if (isTrained(candidate)) found.push("trained");
  if (isExported(candidate)) found.push("exported");
  if (candidate.stopped) found.push(`stopped at rung ${rungReached(candidate)}`);
  if (candidate.error) found.push("failed");
  if (candidate.repeats) found.push(`scored as ${candidate.repeats}`);
  return found;
}
