"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const curve = data.curve; // [eps, duplicates], rising
const byId = (id) => document.getElementById(id);
const all = (selector, from = document) => [...from.querySelectorAll(selector)];
const slider = byId("eps");
const chart = byId("curve");
const start = curve.findIndex(([eps]) => eps === data.eps);
const count = new Intl.NumberFormat("en-US");
const percent = (part) => (data.rows ? (100 * part) / data.rows : 0).toFixed(1);
const formatEps = (eps) => String(Number(eps.toPrecision(6)));
const limitOf = (eps) => Math.fround(1 - eps); // scores are compared in float32
let at = start; // position in the curve

// The shortest text that drops the same clips.
function exactEps(eps) {
  for (let digits = 6; digits < 17; digits++) {
    const text = String(Number(eps.toPrecision(digits)));
    if (limitOf(Number(text)) === limitOf(eps)) return text;
  }
  return String(eps);
}

function quoted(text) {
  return /^[\w.\/:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

function make(name, attributes = {}, text = "") {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}

// Pictures are embedded once; other places show the same ones.
for (const image of all("img[data-same]")) image.src = document.querySelector(`img[data-clip="${image.dataset.same}"]`).src;

// The plot and the slider below it have one scale, from 0 to `range`: the smallest that leaves room to the right.
const ranges = [0.05, 0.2, 0.5, 1];
const smallest = (eps, part) => ranges.find((most) => eps <= part * most) || 1;
let range = smallest(data.eps, 0.7);

const SVG = "http://www.w3.org/2000/svg";
function draw(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  chart.append(element);
  return element;
}

const margin = { left: 46, right: 22, top: 10, bottom: 24 };
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
    draw("line", { class: "grid", x1: x(eps), x2: x(eps), y1: y(0), y2: y(0) + 5 });
    draw("text", { x: x(eps), y: height - 4, "text-anchor": "middle" }, formatEps(eps));
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
  slider.max = range;
  for (const button of all(".ranges button")) button.setAttribute("aria-pressed", String(Number(button.dataset.most) === range));
  update();
}

function update() {
  const [eps, dropped] = curve[at];
  slider.value = eps;
  byId("eps-value").textContent = formatEps(eps);
  byId("score-value").textContent = (1 - eps).toFixed(4);
  byId("n-kept").textContent = count.format(data.rows - dropped);
  byId("n-dropped").textContent = count.format(dropped);
  byId("p-kept").textContent = percent(data.rows - dropped);
  byId("p-dropped").textContent = percent(dropped);
  byId("command").textContent = `semdedup extract ${quoted(data.place)} --eps ${exactEps(eps)}`;
  byId("reset").disabled = at === start;
  slider.setAttribute("aria-valuetext", `${formatEps(eps)}: ${count.format(dropped)} near-duplicates`);
  for (const end of ["x1", "x2"]) marker.setAttribute(end, x(eps));
  dot.setAttribute("cx", x(eps));
  dot.setAttribute("cy", y(data.rows ? 1 - dropped / data.rows : 1));
  for (const bar of all("[data-low]")) bar.classList.toggle("reached", Number(bar.dataset.low) >= 1 - eps - 1e-9);
  for (const element of all(".elsewhere")) element.hidden = at === start;
  showPairs(eps);
}

function go(position) {
  at = Math.max(0, Math.min(curve.length - 1, position));
  const needed = smallest(curve[at][0], 1);
  if (needed > range) { range = needed; plot(); } else update();
}

function nearest(eps) {
  let best = 0;
  curve.forEach(([other], i) => { if (Math.abs(other - eps) < Math.abs(curve[best][0] - eps)) best = i; });
  return best;
}

const buttons = document.querySelector(".ranges");
for (const most of ranges.filter((most) => most === ranges[0] || curve[curve.length - 1][0] > ranges[ranges.indexOf(most) - 1])) {
  const button = make("button", { type: "button", "data-most": most }, `0 – ${most}`);
  button.addEventListener("click", () => {
    range = most;
    while (curve[at][0] > range) at--;
    plot();
  });
  buttons.append(button);
}

function follow(event) {
  const eps = ((event.clientX - chart.getBoundingClientRect().left - margin.left) / (width - margin.left - margin.right)) * range;
  go(nearest(Math.max(0, Math.min(range, eps))));
}
chart.addEventListener("pointerdown", (event) => { chart.setPointerCapture(event.pointerId); follow(event); });
chart.addEventListener("pointermove", (event) => { if (event.buttons) follow(event); });
slider.addEventListener("input", () => go(nearest(Number(slider.value))));
slider.addEventListener("keydown", (event) => {
  const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10, Home: -Infinity, End: Infinity };
  if (!(event.key in steps)) return;
  event.preventDefault();
  go(at + steps[event.key]);
});
byId("reset").addEventListener("click", () => go(start));
const recommended = byId("recommended");
if (recommended) {
  recommended.hidden = false;
  recommended.addEventListener("click", () => go(nearest(Number(recommended.dataset.eps))));
}

// What becomes of both clips of a pair. By its score alone a clip goes where any better-ranked one is as like it; under
// the other rules that does not tell all, but where the result was made it is known.
function fate(pair, eps) {
  const least = limitOf(eps);
  const reached = pair.score >= least;
  const other = data.rule !== "across" && pair.chain.length > 0 && pair.chain[0][0] >= least;
  const names = (goes) => (goes ? "goes" : "stays");
  if (pair.gone && eps === data.eps) return { right: names(pair.gone[0]), left: names(pair.gone[1]), known: true };
  if (data.rule === "witness") return { right: reached ? (other ? "may" : "goes") : "stays", left: other ? "may" : "stays" };
  const best = pair.chain.length > 0 && pair.chain[0][1] === ""; // it was compared with no better-ranked clip
  if (data.rule === "components") return { right: reached ? "goes" : "may", left: other ? "goes" : best ? "stays" : "may" };
  return { right: names(reached), left: names(other) };
}

const WORDS = { goes: "goes", stays: "stays", may: "stays or goes" };

function chainText(pair, eps, found) {
  const score = (value) => value.toFixed(4);
  if (found.known && found.right === "goes") {
    return pair.witness ? `Goes for the sake of ${pair.witness[0]} (${score(pair.witness[1])}), its witness, which stays.` : "";
  }
  if (found.known) return found.left === "goes" && pair.score >= limitOf(eps) ? "Stays: the better-ranked clip goes, and no clip that stays is as like it." : "";
  if (data.rule === "components" && found.right === "may") return "Goes where other clips, each like the next, lead from it to a better-ranked one.";
  if (found.left === "stays" || found.right === "stays" || data.rule === "components") return "";
  const links = [];
  for (const [own, next] of pair.chain) {
    if (own < limitOf(eps)) break;
    links.push(`${next} (${score(own)})`);
  }
  const text = `The better-ranked clip is itself like ${links.slice(0, 3).join(", that one like ")}${links.length > 3 ? ", and so on" : ""}.`;
  return data.rule === "witness" ? `${text} By the rule witness this one goes if a clip that stays is as like it.` : `${text} So it goes, too.`;
}

const list = document.querySelector(".list");
const cards = all("article.pair");
const N_EACH_SIDE = 6;
let showsAll = false;

function showPairs(eps) {
  if (!list) return;
  const least = limitOf(eps);
  const above = cards.filter((card) => data.pairs[card.dataset.pair].score >= least).length; // highest scores first
  cards.forEach((card, i) => {
    card.hidden = !showsAll && (i < above - N_EACH_SIDE || i >= above + N_EACH_SIDE);
    const pair = data.pairs[card.dataset.pair];
    const found = fate(pair, eps);
    for (const side of ["left", "right"]) {
      const figure = card.querySelector(`.${side}`);
      for (const name of ["goes", "stays", "may"]) figure.classList.toggle(name, found[side] === name);
      figure.querySelector(".fate").textContent = WORDS[found[side]];
    }
    card.querySelector(".chain").textContent = chainText(pair, eps, found);
  });
  const edge = document.querySelector(".edge");
  edge.hidden = false;
  edge.textContent = `ε ${formatEps(eps)}: scores of ${(1 - eps).toFixed(4)} and more are above this line` +
    (above === 0 ? "; no pair is" : above === cards.length ? "; all pairs are" : "");
  list.insertBefore(edge, cards[above] || null);
}
if (list) {
  const button = byId("all");
  button.hidden = false;
  button.addEventListener("click", () => {
    showsAll = !showsAll;
    button.setAttribute("aria-pressed", String(showsAll));
    button.textContent = showsAll ? "show the nearest only" : `show all ${cards.length} pairs`;
    showPairs(curve[at][0]);
  });
}

// Previews play in place of the frames.
function play(figure, on) {
  const preview = data.previews[figure.dataset.key];
  const button = figure.querySelector(".play");
  if (!preview || !button) return;
  figure.querySelector("video")?.remove();
  button.setAttribute("aria-pressed", String(on));
  button.textContent = on ? "■ stop" : "▶ play";
  if (!on) return;
  const video = make("video", { src: preview[0], loop: "", playsinline: "" });
  video.muted = true;
  figure.prepend(video);
  if (preview[1] > 1.05) button.textContent += `, ${preview[1].toFixed(1)} times as fast`;
  video.play().catch(() => { video.controls = true; }); // a browser that wants to be asked
}
document.addEventListener("click", (event) => {
  const button = event.target.closest(".play");
  if (button) play(button.closest("figure"), button.getAttribute("aria-pressed") !== "true");
});
for (const button of all(".play")) button.hidden = !(button.closest("figure").dataset.key in data.previews);

function copy(text, button) {
  const before = button.textContent;
  const say = (words) => { button.textContent = words; setTimeout(() => { button.textContent = before; }, 1500); };
  const byHand = () => {
    const area = make("textarea", {}, text);
    (button.closest("dialog") || document.body).append(area);
    area.select();
    say(document.execCommand("copy") ? "copied" : "select it by hand");
    area.remove();
    button.focus();
  };
  if (navigator.clipboard) navigator.clipboard.writeText(text).then(() => say("copied"), byHand);
  else byHand();
}
for (const button of all(".copy")) button.hidden = false;
document.addEventListener("click", (event) => { // also of pairs that are copied to be judged
  const button = event.target.closest(".copy");
  if (button) copy((button.dataset.copy ? byId(button.dataset.copy) : button.previousElementSibling).textContent, button);
});

// Judging.
const stage = byId("stage");
const reduced = matchMedia("(prefers-reduced-motion: reduce)");
const STORE = `semdedup verdicts ${data.key}`;
let verdicts = {}; // position of a pair: same, not, unsure
let turn = 0; // position in data.judge
let playing = !reduced.matches;

function remember() {
  try { localStorage.setItem(STORE, JSON.stringify(verdicts)); } catch { /* a browser that keeps nothing */ }
}

function recall() {
  try {
    const found = JSON.parse(localStorage.getItem(STORE)) || {};
    for (const i of data.judge) if (["same", "not", "unsure"].includes(found[i])) verdicts[i] = found[i];
  } catch { verdicts = {}; }
}

const judged = () => data.judge.filter((i) => verdicts[i] === "same" || verdicts[i] === "not");

function verdictFile() {
  const entry = (i) => ({ id: data.pairs[i].id, max_id: data.pairs[i].max_id, score: data.pairs[i].score, same: verdicts[i] === "same" });
  const content = { format: data.format, result: data.place, embedder: data.embedder, bands: data.bands, verdicts: judged().map(entry) };
  return JSON.stringify(content, null, 1);
}

const ANSWERS = { same: "the same", not: "not the same", unsure: "unsure: it does not count" };

function showJudged() {
  const n = judged().length;
  const same = judged().filter((i) => verdicts[i] === "same").length;
  byId("n-judged").textContent = n ? `${n} of ${data.judge.length} judged: ${same} the same, ${n - same} not` + (n < 30 && data.judge.length > 30 ? "; 30 are enough to begin with" : "") : "";
  byId("begin").textContent = n === 0 ? "Judge pairs" : n < data.judge.length ? "Go on judging" : "Look at the verdicts";
  byId("progress").value = data.judge.filter((i) => verdicts[i]).length;
  byId("hand-over").hidden = byId("tally").hidden = n === 0;
  byId("verdicts").value = n ? verdictFile() : "";
  const rows = data.band_names.map((name, band) => {
    const of = judged().filter((i) => data.pairs[i].band === band);
    const cells = [name, count.format(data.sizes[band]), of.length, of.filter((i) => verdicts[i] === "same").length];
    const row = make("tr");
    cells.forEach((cell, i) => row.append(make(i ? "td" : "th", i ? { class: "number" } : { scope: "row" }, String(cell))));
    return data.sizes[band] && data.judge.some((i) => data.pairs[i].band === band) ? row : "";
  });
  byId("tally").tBodies[0].replaceChildren(...rows);
  for (const card of cards) {
    const verdict = verdicts[card.dataset.pair];
    card.querySelector(".judged").textContent = verdict ? `judged ${ANSWERS[verdict].split(":")[0]}` : "";
  }
}

function showTurn() {
  const i = data.judge[turn];
  const sides = cards[i].querySelector(".sides").cloneNode(true);
  for (const figure of all("figure", sides)) {
    figure.classList.remove("goes", "stays", "may");
    figure.querySelector("video")?.remove();
  }
  stage.querySelector(".sides").replaceWith(sides);
  for (const figure of all("figure", sides)) play(figure, playing);
  const plays = all(".play:not([hidden])", sides).length > 0;
  byId("play-both").hidden = !plays;
  byId("position").textContent = `${turn + 1} of ${data.judge.length}`;
  stage.querySelector(".answer").textContent = verdicts[i] ? `You said: ${ANSWERS[verdicts[i]]}` : "";
  for (const button of all("[data-verdict]", stage)) button.setAttribute("aria-pressed", String(button.dataset.verdict === verdicts[i]));
  stage.querySelector('[data-step="-1"]').disabled = turn === 0;
  stage.querySelector('[data-step="1"]').disabled = turn === data.judge.length - 1;
}

function step(by) {
  turn = Math.max(0, Math.min(data.judge.length - 1, turn + by));
  showTurn();
}

function judge(verdict) {
  verdicts[data.judge[turn]] = verdict;
  remember();
  showJudged();
  if (data.judge.every((i) => verdicts[i])) stage.close();
  else step(1);
}

function playBoth() {
  playing = !playing;
  for (const figure of all("figure", stage)) play(figure, playing);
}

if (stage) {
  recall();
  byId("begin").hidden = false;
  byId("begin").addEventListener("click", () => {
    const open = data.judge.findIndex((i) => !verdicts[i]);
    turn = open < 0 ? 0 : open;
    stage.showModal();
    showTurn();
    stage.querySelector('[data-verdict="same"]').focus();
  });
  byId("close").addEventListener("click", () => stage.close());
  stage.addEventListener("close", () => { for (const figure of all("figure", stage)) play(figure, false); });
  for (const button of all("[data-verdict]", stage)) button.addEventListener("click", () => judge(button.dataset.verdict));
  for (const button of all("[data-step]", stage)) button.addEventListener("click", () => step(Number(button.dataset.step)));
  byId("play-both").addEventListener("click", playBoth);
  stage.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("video")) return;
    const keys = {
      s: () => judge("same"), n: () => judge("not"), u: () => judge("unsure"), p: playBoth,
      arrowleft: () => step(-1), arrowright: () => step(1),
    };
    const action = keys[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  });
  byId("calibrate").textContent = `semdedup calibrate ${quoted(data.place)} verdicts.json`;
  byId("copy-verdicts").addEventListener("click", (event) => copy(verdictFile(), event.currentTarget));
  byId("download").addEventListener("click", () => {
    const url = URL.createObjectURL(new Blob([verdictFile()], { type: "application/json" }));
    const link = make("a", { href: url, download: "verdicts.json" });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  });
  byId("forget").addEventListener("click", () => {
    if (!confirm("Forget all verdicts on this page?")) return;
    verdicts = {};
    remember();
    showJudged();
    byId("begin").focus();
  });
  showJudged();
}

new ResizeObserver(plot).observe(chart.parentElement);
plot();
