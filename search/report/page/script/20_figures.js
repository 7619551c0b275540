// Figures: axes, marks, and how a figure is saved.

/** Marks in a box from -1 to 1, as many as do not go evenly into the colours. */
const SHAPES = [
  "M-.9,0A.9,.9 0 1 1 .9,0A.9,.9 0 1 1 -.9,0Z",
  "M-.8,-.8H.8V.8H-.8Z",
  "M0,-1L1,.75H-1Z",
  "M0,-1.15L1.15,0L0,1.15L-1.15,0Z",
  "M0,1L1,-.75H-1Z",
  "M-.36,-1H.36V-.36H1V.36H.36V1H-.36V.36H-1V-.36H-.36Z",
  "M0,-1L.87,-.5V.5L0,1L-.87,.5V-.5Z",
];
const BASELINE = "M-1,-.55L-.55,-1L0,-.45L.55,-1L1,-.55L.45,0L1,.55L.55,1L0,.45L-.55,1L-1,.55L-.45,0Z";

/** Colour and shape of the strategies that search, by name. */
const looks = new Map(unique(data.candidates.filter(c => !c.label).map(c => c.strategy)).sort()
  .map((name, at) => [name, {
    colour: data.colours[at % data.colours.length], shape: SHAPES[at % SHAPES.length]}]));

function mark(look, size, attributes = {}) {
  return draw("path", {d: look ? look.shape : BASELINE, transform: `scale(${size})`,
    fill: look ? look.colour : null, class: look ? "mark" : "mark baseline", ...attributes});
}

/** A mark as it stands in a legend. */
function key(...nodes) {
  return draw("svg", {class: "key", viewBox: "-11 -11 22 22", width: 22, height: 22,
    "aria-hidden": "true"}, nodes);
}

/** About `count` round numbers within a range. */
function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map(each => each * power).find(each => each >= rough);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++) {
    found.push(at * step);
  }
  return {found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9) +
    (Math.abs(step / power - 2.5) < 1e-9 ? 1 : 0))};
}

/** Limits with a little room around values. */
function limits(values, room = 0.05) {
  const low = Math.min(...values), high = Math.max(...values);
  const span = high - low || Math.abs(high) * 0.1 || 1;
  return [low - room * span, high + room * span];
}

/** Axes with a grid; x and y are functions from values to pixels. */
function axes({width, height, x: [xLow, xHigh], y: [yLow, yHigh], xName, yName, whole = false}) {
  const left = 58, right = 14, top = 26, bottom = 46;
  const x = value => left + (value - xLow) / (xHigh - xLow) * (width - left - right);
  const y = value => height - bottom - (value - yLow) / (yHigh - yLow) * (height - top - bottom);
  const group = draw("g", {class: "axes", "aria-hidden": "true"});
  const xTicks = ticks(xLow, xHigh, Math.max(2, width / 110));
  const yTicks = ticks(yLow, yHigh, Math.max(2, height / 70));
  for (const at of xTicks.found.filter(value => !whole || Number.isInteger(value))) {
    group.append(draw("line", {class: "grid", x1: x(at), x2: x(at), y1: top, y2: height - bottom}),
      draw("text", {x: x(at), y: height - bottom + 18, "text-anchor": "middle"},
        at.toFixed(whole ? 0 : xTicks.digits)));
  }
  for (const at of yTicks.found) {
    group.append(draw("line", {class: "grid", x1: left, x2: width - right, y1: y(at), y2: y(at)}),
      draw("text", {x: left - 8, y: y(at) + 4, "text-anchor": "end"}, at.toFixed(yTicks.digits)));
  }
  group.append(
    draw("line", {class: "axis", x1: left, x2: width - right, y1: height - bottom,
      y2: height - bottom}),
    draw("text", {class: "name", x: width - right, y: height - 8, "text-anchor": "end"},
      clipped(xName + " →", width - left)),
    draw("text", {class: "name", x: 4, y: 14}, clipped("↑ " + yName, width)));
  return {group, x, y, left, right, top, bottom};
}

/** Text that is no wider than so many pixels, roughly. */
function clipped(text, width) {
  const most = Math.max(8, Math.floor(width / 6.6));
  return text.length > most ? text.slice(0, most - 1) + "…" : text;
}

/**
 * A figure that is drawn for the width there is, and saved as SVG and PNG.
 *
 * paint(width) gives a drawing.
 */
function figure(name, caption, paint, legend = null) {
  const place = el("div", {class: "drawing"});
  let width = 0;
  const repaint = () => {
    width = Math.floor(place.clientWidth);
    if (width === 0) return;
    const isFocused = place.contains(document.activeElement);
    place.replaceChildren(paint(width));
    if (isFocused) place.querySelector('[tabindex="0"]')?.focus({preventScroll: true});
  };
  new ResizeObserver(() => {
    if (Math.floor(place.clientWidth) !== width) repaint();
  }).observe(place);
  const tools = ["SVG", "PNG"].map(kind => el("button", {type: "button", class: "small",
    "aria-label": `${caption}: save as ${kind}`,
    click: () => saveFigure(place.querySelector("svg"), fileName(study.name, name), kind)}, kind));
  const whole = el("figure", {}, place, legend, el("div", {class: "tools"},
    el("figcaption", {}, caption), tools));
  return {whole, place, repaint};
}

const PAINTED = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity",
  "stroke-dasharray", "opacity", "font-family", "font-size", "font-weight", "text-anchor"];

/** A drawing by itself: with the colours that the page gives it now. */
function alone(drawing) {
  const copy = drawing.cloneNode(true);
  const from = [drawing, ...drawing.querySelectorAll("*")];
  const to = [copy, ...copy.querySelectorAll("*")];
  from.forEach((node, at) => {
    const style = getComputedStyle(node);
    for (const name of PAINTED) to[at].setAttribute(name, style.getPropertyValue(name));
  });
  const [width, height] = ["width", "height"].map(side => drawing.getAttribute(side));
  copy.setAttribute("xmlns", SVG);
  copy.prepend(draw("rect", {width, height,
    fill: getComputedStyle(document.body).backgroundColor}));
  return {width, height, text: new XMLSerializer().serializeToString(copy)};
}

function saveFigure(drawing, name, kind) {
  const {width, height, text} = alone(drawing);
  const content = new Blob([text], {type: "image/svg+xml"});
  if (kind === "SVG") return save(name + ".svg", content);
  const image = new Image(), url = URL.createObjectURL(content);
  image.onload = () => {
    const canvas = el("canvas", {width: 2 * width, height: 2 * height});
    canvas.getContext("2d").drawImage(image, 0, 0, 2 * width, 2 * height);
    canvas.toBlob(found => save(name + ".png", found));
    URL.revokeObjectURL(url);
  };
  image.src = url;
}

/** A path through points, in pixels. */
const through = points => points.map(([x, y], at) =>
  `${at ? "L" : "M"}${x.toFixed(1)},${y.toFixed(1)}`).join("");
