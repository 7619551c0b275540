// What every part of the page is built with. Text of users becomes text nodes and attributes only.

const data = JSON.parse(document.getElementById("data").textContent);
const study = data.study;
const SVG = "http://www.w3.org/2000/svg";

/** An element. Attributes that are functions listen; null ones are left out. */
function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** An element of a drawing. */
function draw(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined));
  return node;
}

const isNumber = value => typeof value === "number" && Number.isFinite(value);
const fixed = (value, digits = 3) => isNumber(value) ? value.toFixed(digits) : "–";
const percent = (value, digits = 1) => isNumber(value) ? (100 * value).toFixed(digits) + " %" : "–";
const signed = (value, digits = 3) =>
  isNumber(value) ? (value > 0 ? "+" : "") + value.toFixed(digits).replace("-", "−") : "–";
const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
const mean = values => values.reduce((sum, value) => sum + value, 0) / values.length;
const unique = values => [...new Set(values)];
const sentence = text => text ? text[0].toUpperCase() + text.slice(1) : text;
const when = seconds => new Date(1000 * seconds).toLocaleString("en-GB", {
  day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit"});

/** A large count in few characters. */
function short(value) {
  if (!isNumber(value)) return "–";
  const [unit, letter] = value >= 1e9 ? [1e9, " G"] : value >= 1e6 ? [1e6, " M"] : value >= 1e4
    ? [1e3, " k"] : [1, ""];
  return unit === 1 ? value.toLocaleString("en") : (value / unit).toPrecision(3) + letter;
}

function duration(seconds) {
  if (!isNumber(seconds)) return "–";
  if (seconds < 90) return seconds.toFixed(1) + " s";
  return seconds < 5400 ? (seconds / 60).toFixed(1) + " min" : (seconds / 3600).toFixed(1) + " h";
}

/** A word of a command line, as a shell reads it. */
function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}

function save(name, content) {
  const link = el("a", {href: URL.createObjectURL(content), download: name});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const fileName = (...parts) => parts.join("-").replace(/[^\w.-]+/g, "_");

/** What screen readers say without being asked. */
const announcer = el("div", {class: "unseen", role: "status"});
function announce(text) {
  announcer.textContent = text;
}

/** A command with a button that copies it. */
function command(text, about) {
  const button = el("button", {class: "small", type: "button", "aria-label": `Copy: ${about}`}, "Copy");
  button.addEventListener("click", async () => {
    const done = await copied(text);
    button.textContent = done ? "Copied" : "Select it";
    announce(done ? "Copied" : "Could not copy: select the text");
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  return el("div", {class: "command"}, el("span", {class: "about"}, about),
    el("pre", {tabindex: 0, role: "group", "aria-label": about}, el("code", {}, text)), button);
}

/** Pages from a disk may not use the clipboard's interface in every browser, but a selection. */
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const box = el("textarea", {class: "unseen"});
    box.value = text;
    document.body.append(box);
    box.select();
    const done = document.execCommand("copy");
    box.remove();
    return done;
  }
}

/**
 * A table that is sorted by a click and kept as CSV.
 *
 * A column has a label, get(row) and perhaps show(row) (text or an element), about (a title), number
 * (whether it is one), long (whether its text may fill several lines) and kept (whether it is in the
 * CSV only).
 */
function table(name, everything, rows, {first = 25, caption = name} = {}) {
  const columns = everything.filter(column => !column.kept);
  let order = rows, sorted = null, limit = first;
  const body = el("tbody");
  const heads = columns.map(column => el("th", {scope: "col", class: column.number ? "number" : null},
    el("button", {type: "button", title: column.about ?? column.label, click: () => sortBy(column)},
      column.label)));
  const more = el("button", {type: "button", class: "small", click: () => {
    limit = Infinity;
    fill();
  }});
  function fill() {
    body.replaceChildren(...order.slice(0, limit).map(row => el("tr", {}, columns.map((column, at) => {
      const shown = column.show ? column.show(row) : column.get(row) ?? "–";
      return el(at ? "td" : "th", {scope: at ? null : "row", title: at ? null : String(column.get(row)),
        class: column.number ? "number" : column.long ? "long" : null},
      shown instanceof Node ? shown : String(shown));
    }))));
    more.hidden = order.length <= limit;
    more.textContent = `Show all ${order.length.toLocaleString("en")}`;
  }
  function sortBy(column) {
    const falling = sorted === column ? heads[columns.indexOf(column)].ariaSort === "ascending" :
      Boolean(column.number);
    sorted = column;
    heads.forEach((head, at) => {
      head.ariaSort = columns[at] === column ? (falling ? "descending" : "ascending") : null;
    });
    const missing = row => column.get(row) === null || column.get(row) === undefined;
    order = [...rows].sort((a, b) => {
      if (missing(a) || missing(b)) return missing(a) - missing(b);
      const [one, other] = [column.get(a), column.get(b)];
      const less = column.number ? one - other : String(one).localeCompare(String(other), "en");
      return falling ? -less : less;
    });
    fill();
  }
  fill();
  const csv = el("button", {type: "button", class: "small", "aria-label": `${caption}: save as CSV`,
    click: () => save(fileName(study.name, name) + ".csv", new Blob([asCsv(everything, rows)],
      {type: "text/csv"}))}, "CSV");
  return el("div", {class: "table"},
    el("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": caption},
      el("table", {}, el("caption", {}, caption), el("thead", {}, el("tr", {}, heads)), body)),
    el("div", {class: "tools"}, more, csv));
}

function asCsv(columns, rows) {
  const cell = value => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [columns.map(column => cell(column.label)),
    ...rows.map(row => columns.map(column => cell(column.get(row))))]
    .map(line => line.join(",") + "\r\n").join("");
}
