"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const curve = data.curve; // [eps, duplicates], rising
const byId = (id) => document.getElementById(id);
const slider = byId("eps");
const chart = byId("curve");
const start = curve.findIndex(([eps]) => eps === data.eps);
const count = new Intl.NumberFormat("en-US");
const percent = (part) => (data.rows ? (100 * part) / data.rows : 0).toFixed(1);
const formatEps = (eps) => String(Number(eps.toPrecision(6)));

// The range of the plot: the smallest that leaves room to the right of the threshold.
const ranges = [0.05, 0.2, 0.5, 1];
let range = ranges.find((most) => data.eps <= 0.7 * most) || 1;

const SVG = "http://www.w3.org/2000/svg";
function draw(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  chart.append(element);
  return element;
}

const margin = { left: 46, right: 12, top: 10, bottom: 26 };
let marker, dot, x, y, width;

function plot() {
  width = Math.max(200, chart.clientWidth);
  const height = chart.clientHeight || 260;
  chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
  chart.replaceChildren();
  x = (eps) => margin.left + (eps / range) * (width - margin.left - margin.right);
  y = (part) => margin.top + (1 - part) * (height - margin.top - margin.bottom);
  for (const part of [0, 0.25, 0.5, 0.75, 1]) {
    draw("line", { class: "grid", x1: margin.left, x2: width - margin.right, y1: y(part), y2: y(part) });
    draw("text", { x: margin.left - 8, y: y(part) + 4, "text-anchor": "end" }, `${100 * part}%`);
  }
  const ticks = width < 480 ? 4 : 5;
  for (let i = 0; i <= ticks; i++) {
    const eps = (range * i) / ticks;
    draw("text", { x: x(eps), y: height - 6, "text-anchor": i === ticks ? "end" : i ? "middle" : "start" }, formatEps(eps));
  }
  const inside = curve.filter(([eps]) => eps <= range);
  const beyond = curve.find(([eps]) => eps > range);
  if (beyond) {
    const [last, lastCount] = inside[inside.length - 1];
    const along = (range - last) / (beyond[0] - last);
    inside.push([range, lastCount + along * (beyond[1] - lastCount)]);
  }
  const points = inside.map(([eps, n]) => `${x(eps).toFixed(1)},${y(data.rows ? 1 - n / data.rows : 1).toFixed(1)}`);
  const right = x(inside[inside.length - 1][0]).toFixed(1);
  draw("path", { class: "area", d: `M${margin.left},${y(0)}L${points.join("L")}L${right},${y(0)}Z` });
  draw("path", { class: "line", d: `M${points.join("L")}` });
  if (data.eps <= range) draw("line", { class: "start", x1: x(data.eps), x2: x(data.eps), y1: y(1), y2: y(0) });
  marker = draw("line", { class: "marker", y1: y(1), y2: y(0) });
  dot = draw("circle", { class: "dot", r: 6 });
  update();
}

function update() {
  const [eps, dropped] = curve[slider.value];
  const limit = Math.fround(1 - eps); // scores are compared in float32
  byId("eps-value").textContent = formatEps(eps);
  byId("score-value").textContent = (1 - eps).toFixed(4);
  byId("n-kept").textContent = count.format(data.rows - dropped);
  byId("n-dropped").textContent = count.format(dropped);
  byId("p-kept").textContent = percent(data.rows - dropped);
  byId("p-dropped").textContent = percent(dropped);
  byId("command").textContent = `semdedup extract ${quoted(data.place)} --eps ${eps}`;
  byId("reset").disabled = Number(slider.value) === start;
  slider.setAttribute("aria-valuetext", `${formatEps(eps)}: ${count.format(dropped)} near-duplicates`);
  const at = x(Math.min(eps, range));
  for (const end of ["x1", "x2"]) marker.setAttribute(end, at);
  dot.setAttribute("cx", at);
  dot.setAttribute("cy", y(data.rows ? 1 - dropped / data.rows : 1));
  for (const element of document.querySelectorAll("[data-score]")) {
    const isDropped = Number(element.dataset.score) >= limit;
    element.classList.toggle("stays", !isDropped);
    element.querySelector(".verdict").textContent = isDropped ? "dropped" : "kept";
  }
  for (const bar of document.querySelectorAll("[data-low]")) {
    bar.classList.toggle("reached", Number(bar.dataset.low) >= 1 - eps - 1e-9);
  }
}

function quoted(text) {
  return /^[\w.\/:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

function nearest(eps) {
  let best = 0;
  curve.forEach(([other], i) => { if (Math.abs(other - eps) < Math.abs(curve[best][0] - eps)) best = i; });
  return best;
}

const buttons = document.querySelector(".ranges");
for (const most of ranges) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = `0 – ${most}`;
  button.setAttribute("aria-pressed", String(most === range));
  button.addEventListener("click", () => {
    range = most;
    for (const other of buttons.children) other.setAttribute("aria-pressed", String(other === button));
    plot();
  });
  buttons.append(button);
}

function follow(event) {
  const eps = ((event.clientX - chart.getBoundingClientRect().left - margin.left) / (width - margin.left - margin.right)) * range;
  slider.value = nearest(Math.max(0, Math.min(range, eps)));
  update();
}
chart.addEventListener("pointerdown", (event) => { chart.setPointerCapture(event.pointerId); follow(event); });
chart.addEventListener("pointermove", (event) => { if (event.buttons) follow(event); });
slider.addEventListener("input", update);
byId("reset").addEventListener("click", () => { slider.value = start; update(); });
new ResizeObserver(plot).observe(chart.parentElement);
slider.value = start;
plot();
