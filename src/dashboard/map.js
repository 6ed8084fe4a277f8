// SPDX-License-Identifier: GPL-2.0-or-later
// map.js - the nodes as cards with their units in them; a unit flies when it moves, and can be dragged

import { CARD, DOT, PILL, curve, place, tray } from "./layout.js";
import { cpuOf, memOf, samples } from "./load.js";
import { by, bytes, count, percent, program, set, svg } from "./words.js";

const FLIGHT_MS = 1100;
const STEP_MS = 280;
const DRAG_PX = 6;
const still = matchMedia("(prefers-reduced-motion: reduce)");

const root = by("map");
const layers = Object.fromEntries(["ground", "links", "nodes", "trails", "flights", "units", "tags"].map((name) => [name, root.appendChild(svg("g", { class: `layer-${name}` }))]));
const cards = new Map();        // node: { x, y, height, g, parts }
const pills = new Map();        // unit: { g, x, y, on, run }
let world = null;               // what was drawn last
let act = null;                 // { choose, move, askMove }
let drag = null;

export function begin(actions) {
  act = actions;
  new ResizeObserver(() => world && draw(world)).observe(by("canvas"));
  addEventListener("keydown", (event) => event.key === "Escape" && drag && drop(null));
}

const hue = (name) => `h${Math.max(0, world.nodes.findIndex((node) => node.name === name)) % 8}`;
const shorten = (text, max) => (text.length > max ? `${text.slice(0, max - 1)}…` : text);

// --- nodes ---

function bar(y, kind) {
  return svg("g", {}, svg("rect", { class: "rail", x: 54, y, width: CARD - 112, height: 6, rx: 3 }), svg("rect", { class: `fill ${kind}`, x: 54, y, width: 0, height: 6, rx: 3 }),
    svg("text", { class: "soft", x: 14, y: y + 7 }, kind === "cpu" ? "CPU" : "mem"), svg("text", { class: "soft value", x: CARD - 14, y: y + 7, "text-anchor": "end" }));
}

function makeCard(name) {
  const parts = { card: svg("rect", { class: "card", width: CARD, rx: 14 }), spark: svg("path", { class: "spark" }), hue: svg("rect", { class: "hue", x: 14, y: 15, width: 11, height: 11, rx: 3.5 }),
    name: svg("text", { class: "name", x: 32, y: 26 }), about: svg("text", { class: "soft", x: CARD - 14, y: 25, "text-anchor": "end" }), cpu: bar(42, "cpu"), mem: bar(58, "mem"), more: svg("text", { class: "soft", x: 14 }) };
  const g = svg("g", { class: "node", tabindex: 0, role: "button", "data-node": name }, ...Object.values(parts));
  g.addEventListener("click", () => act.choose("node", name));
  g.addEventListener("keydown", (event) => nodeKey(event, name));
  layers.nodes.append(g);
  return { g, parts };
}

function spark(name, height) {
  const list = samples(name).slice(-90);
  if (list.length < 3) {
    return "";
  }
  const x = (i) => 1 + i / (list.length - 1) * (CARD - 2);
  return `M1 ${height - 14}${list.map((s, i) => `L${x(i).toFixed(1)} ${(height - 14 - s.cpu * 34).toFixed(1)}`).join("")}L${CARD - 1} ${height - 14}z`;
}

function drawCard(node, where, units) {
  const made = cards.get(node.name) ?? makeCard(node.name);
  const { g, parts } = made;
  const answers = node.state !== "unreachable" && node.indices;
  const cpu = cpuOf(node);
  const mem = memOf(node);
  cards.set(node.name, Object.assign(made, where));
  set(g, { transform: `translate(${where.x} ${where.y})`, class: `node ${node.error ? "gone" : ""} ${world.chosen === `node ${node.name}` ? "chosen" : ""}`,
    "aria-label": `Node ${node.name}, ${node.state}, CPU ${percent(cpu)}, memory ${percent(mem)}, ${count(units.length, "unit")}` });
  set(parts.card, { height: where.height });
  parts.hue.setAttribute("class", `hue ${hue(node.name)}`);
  parts.name.textContent = shorten(node.name, 14);
  parts.about.textContent = answers ? node.state === "ok" ? `${count(Math.round(node.indices.cores), "core")} · ${bytes(node.indices.maxmem * 1048576)}` : node.state : node.state;
  for (const [part, value] of [[parts.cpu, cpu], [parts.mem, mem]]) {
    part.children[1].setAttribute("width", answers ? Math.max(value * (CARD - 112), 3) : 0);
    part.querySelector(".value").textContent = answers ? percent(value) : "–";
  }
  const more = tray(units.length).more;
  parts.more.textContent = more ? `and ${more} more` : units.length ? "" : "no units";
  parts.more.setAttribute("y", more ? where.height - 10 : 100);
  parts.spark.setAttribute("d", spark(node.name, where.height));
}

// --- units ---

function makePill(unit) {
  const g = svg("g", { class: "unit", tabindex: -1, role: "button", "data-unit": unit.unit }, svg("rect", { class: "pill" }), svg("rect", { class: "hue" }), svg("text", { y: 16 }), svg("title", {}));
  g.addEventListener("pointerdown", (event) => grab(event, unit.unit));
  g.addEventListener("click", (event) => { event.stopPropagation(); act.choose("unit", unit.unit); });
  g.addEventListener("keydown", (event) => unitKey(event, unit.unit));
  layers.units.append(g);
  return { g };
}

function shape(pill, unit, dots) {
  const [back, dot, text, title] = pill.g.children;
  const name = program(unit.command);
  set(back, dots ? { width: DOT, height: DOT, rx: 8 } : { width: PILL.width, height: PILL.height, rx: 12 });
  set(dot, dots ? { x: 4, y: 4, width: 8, height: 8, rx: 4 } : { x: 8, y: 7, width: 10, height: 10, rx: 5 });
  dot.setAttribute("class", `hue ${hue(unit.home)}`);
  text.textContent = dots ? "" : shorten(name, 11);
  text.setAttribute("x", 24);
  title.textContent = `${name} (${unit.unit}) on ${unit.on}`;
  const moving = world.running.some((move) => move.unit === unit.unit);
  const faint = world.filter && !world.filter(unit);
  const keep = [...pill.g.classList].filter((c) => c === "dragged" || c === "arrived");
  pill.g.setAttribute("class", ["unit", moving && "moving", faint && "faint", world.chosen === `unit ${unit.unit}` && "chosen", ...keep].filter(Boolean).join(" "));
  pill.g.setAttribute("aria-label", `Unit ${name}, ${unit.unit}, on ${unit.on}, home ${unit.home}${moving ? ", moving" : ""}. M moves it.`);
}

function put(pill, x, y) {
  pill.x = x;
  pill.y = y;
  pill.g.setAttribute("transform", `translate(${x.toFixed(2)} ${y.toFixed(2)})`);
}

const ease = (t) => (t < 0.5 ? 4 * t * t * t : 1 - (-2 * t + 2) ** 3 / 2);

// Runs step(0 to 1) for so long; what runs for the pill already ends.
function animate(pill, duration, step, done = () => {}) {
  const began = performance.now();
  const mine = Symbol("run");
  pill.run = mine;
  const frame = (now) => {
    if (pill.run !== mine) {
      return;
    }
    const t = Math.min(1, (now - began) / duration);
    step(ease(t));
    if (t < 1) {
      requestAnimationFrame(frame);
    } else {
      pill.run = null;
      done();
    }
  };
  requestAnimationFrame(frame);
}

function slide(pill, x, y) {
  const [fx, fy] = [pill.x, pill.y];
  animate(pill, STEP_MS, (t) => put(pill, fx + (x - fx) * t, fy + (y - fy) * t));
}

// From card to card in an arc, with a trail that fades.
function fly(pill, x, y) {
  const [fx, fy] = [pill.x, pill.y];
  const mx = (fx + x) / 2 - (y - fy) * 0.18;
  const my = (fy + y) / 2 + (x - fx) * 0.18 - 24;
  const half = pill.dots ? DOT / 2 : PILL.height / 2;
  const at = (t) => [(1 - t) ** 2 * fx + 2 * t * (1 - t) * mx + t * t * x, (1 - t) ** 2 * fy + 2 * t * (1 - t) * my + t * t * y];
  const trail = svg("path", { class: "trail" });
  layers.trails.append(trail);
  layers.units.append(pill.g);
  animate(pill, FLIGHT_MS, (t) => {
    put(pill, ...at(t));
    const tail = Array.from({ length: 9 }, (_, i) => at(Math.max(0, t - 0.3 * (1 - i / 8))));
    trail.setAttribute("d", tail.map(([px, py], i) => `${i ? "L" : "M"}${(px + 14).toFixed(1)} ${(py + half).toFixed(1)}`).join(""));
    trail.setAttribute("opacity", (0.55 * Math.sin(Math.PI * Math.min(t, 0.999))).toFixed(3));
  }, () => {
    trail.remove();
    pill.g.classList.add("arrived");
    setTimeout(() => pill.g.classList.remove("arrived"), 1700);
  });
}

function drawUnit(unit, x, y, dots) {
  const known = pills.get(unit.unit);
  const pill = known ?? makePill(unit);
  pills.set(unit.unit, pill);
  const moved = known && pill.on !== unit.on;
  const near = known && pill.tx === x && pill.ty === y;
  Object.assign(pill, { on: unit.on, dots, tx: x, ty: y });
  shape(pill, unit, dots);
  if (drag?.unit === unit.unit && drag.moves) {
    return;
  }
  if (!known || still.matches) {
    pill.run = null;
    put(pill, x, y);
    if (moved) {
      pill.g.classList.add("arrived");
      setTimeout(() => pill.g.classList.remove("arrived"), 1700);
    }
  } else if (moved) {
    fly(pill, x, y);
  } else if (!near) {
    slide(pill, x, y);
  }
}

// --- lines ---

// How many connections there are between two nodes, and who needs whom.
function drawLinks() {
  const pairs = new Map();
  const add = (kind, a, b) => {
    if (cards.has(a) && cards.has(b) && a !== b) {
      const key = kind === "link" ? [kind, ...[a, b].sort()].join(" ") : [kind, a, b].join(" ");
      pairs.set(key, (pairs.get(key) ?? 0) + 1);
    }
  };
  for (const connection of world.connections) {
    if (connection.peer_on) {
      add("link", connection.on, connection.peer_on);
    }
    for (const needed of connection.needs) {
      add("needs", connection.on, needed);
    }
  }
  const unit = world.chosen?.startsWith("unit ") && world.units.find((one) => `unit ${one.unit}` === world.chosen);
  if (unit) {
    add("home", unit.on, unit.home);
  }
  layers.links.replaceChildren(...[...pairs].flatMap(([key, n]) => {
    const [kind, a, b] = key.split(" ");
    const line = curve(cards.get(a), cards.get(b), kind === "link" ? 0.06 : kind === "needs" ? -0.1 : -0.2);
    const [x, y] = line.at(0.5);
    const words = kind === "link" ? count(n, "connection") : kind === "needs" ? `needs ${b}` : `home: ${b}`;
    const width = words.length * 6 + 14;
    return [svg("path", { class: `link ${kind === "link" ? "" : kind}`, d: line.d }),
      svg("g", { class: "count", transform: `translate(${x - width / 2} ${y - 9})` }, svg("rect", { width, height: 18, rx: 9 }), svg("text", { class: "soft", x: width / 2, y: 13, "text-anchor": "middle" }, words))];
  }));
}

function drawFlights() {
  const moving = world.running.filter((move) => cards.has(move.from) && cards.has(move.to) && move.from !== move.to);
  layers.flights.replaceChildren(...moving.map((move) => svg("path", { class: "flight", d: curve(cards.get(move.from), cards.get(move.to), 0.14).d })));
  layers.tags.replaceChildren(...moving.map((move) => {
    const [x, y] = curve(cards.get(move.from), cards.get(move.to), 0.14).at(0.5);
    const known = move.pages_sent + move.pages_skipped_file + move.pages_skipped_zero;
    const words = `${move.phase || "begins"}${move.pages_total ? ` ${percent(Math.min(1, known / move.pages_total))}` : ""}`;
    const width = words.length * 6.6 + 16;
    return svg("g", { class: "tag", transform: `translate(${x - width / 2} ${y - 10})` }, svg("rect", { width, height: 20, rx: 10 }), svg("text", { x: width / 2, y: 14, "text-anchor": "middle" }, words));
  }));
}

// The ring in which the nodes stand, and the bird whose name this is.
function drawGround(middle) {
  const key = JSON.stringify(middle);
  if (layers.ground.dataset.key !== key) {
    layers.ground.dataset.key = key;
    layers.ground.replaceChildren(...(middle ? [svg("ellipse", { class: "orbit", cx: middle.x, cy: middle.y, rx: middle.rx, ry: middle.ry }),
      svg("use", { href: "/dashboard/icon.svg#bird", class: "watermark", transform: `translate(${middle.x - 60} ${middle.y - 36}) scale(2.5)` })] : []));
  }
}

// --- all ---

// next: { nodes, units, running, connections, chosen, filter }
export function draw(next) {
  world = next;
  const width = Math.max(300, by("canvas").clientWidth);
  const of = world.nodes.map((node) => world.units.filter((unit) => unit.on === node.name));
  const { cards: places, height, middle } = place(of.map((units) => units.length), width);
  set(root, { viewBox: `0 0 ${width} ${height}`, height });
  drawGround(middle);
  for (const [name, card] of cards) {
    if (!world.nodes.some((node) => node.name === name)) {
      card.g.remove();
      cards.delete(name);
    }
  }
  const shown = new Set();
  world.nodes.forEach((node, i) => {
    drawCard(node, places[i], of[i]);
    const { at, dots } = tray(of[i].length);
    of[i].slice(0, at.length).forEach((unit, k) => {
      shown.add(unit.unit);
      drawUnit(unit, places[i].x + at[k][0], places[i].y + at[k][1], dots);
    });
  });
  for (const [name, pill] of pills) {
    if (!shown.has(name)) {
      pill.g.remove();
      pills.delete(name);
    }
  }
  drawLinks();
  drawFlights();
  if (drag?.moves) {
    showTargets();
  }
}

// --- by keyboard ---

const unitsOn = (node) => world.units.filter((unit) => unit.on === node && pills.has(unit.unit));

function nodeKey(event, name) {
  const names = world.nodes.map((node) => node.name);
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (event.key === "Enter" || event.key === " ") {
    act.choose("node", name, true);
  } else if (step) {
    cards.get(names[(names.indexOf(name) + step + names.length) % names.length]).g.focus();
  } else if (event.key === "ArrowDown" && unitsOn(name).length) {
    pills.get(unitsOn(name)[0].unit).g.focus();
  } else {
    return;
  }
  event.preventDefault();
}

function unitKey(event, name) {
  const unit = world.units.find((one) => one.unit === name);
  const mates = unit ? unitsOn(unit.on).map((one) => one.unit) : [];
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1 }[event.key];
  const i = mates.indexOf(name);
  if (event.key === "Enter" || event.key === " ") {
    act.choose("unit", name, true);
  } else if (event.key === "m" || event.key === "M") {
    act.askMove(name);
  } else if (step) {
    pills.get(mates[(i + step + mates.length) % mates.length]).g.focus();
  } else if (event.key === "ArrowUp" && unit) {
    cards.get(unit.on).g.focus();
  } else {
    return;
  }
  event.preventDefault();
  event.stopPropagation();
}

export function focusUnit(name) {
  pills.get(name)?.g.focus({ preventScroll: true });
}

// --- by hand ---

const point = (event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(root.getScreenCTM().inverse());

function nodeAt({ x, y }) {
  for (const [name, card] of cards) {
    if (x >= card.x && x <= card.x + CARD && y >= card.y && y <= card.y + card.height) {
      return name;
    }
  }
  return null;
}

function mayTake(name) {
  const node = world.nodes.find((one) => one.name === name);
  return node && name !== drag.on && node.state === "ok";
}

function showTargets(over = null) {
  for (const [name, card] of cards) {
    card.g.classList.toggle("may", mayTake(name) && name !== over);
    card.g.classList.toggle("no", !mayTake(name) && name !== drag.on);
    card.g.classList.toggle("over", name === over && mayTake(name));
  }
}

function grab(event, name) {
  if (event.button !== 0 || drag) {
    return;
  }
  const pill = pills.get(name);
  const from = point(event);
  drag = { unit: name, pill, on: pill.on, from, dx: from.x - pill.x, dy: from.y - pill.y, moves: false, pointer: event.pointerId };
  if (layers.units.lastChild !== pill.g) {
    layers.units.append(pill.g);        // on top; before it is captured, since it would be lost by that
  }
  pill.g.setPointerCapture(event.pointerId);
  pill.g.addEventListener("pointermove", pull);
  pill.g.addEventListener("pointerup", letGo);
  pill.g.addEventListener("pointercancel", cancel);
}

function pull(event) {
  const at = point(event);
  if (!drag.moves && Math.hypot(at.x - drag.from.x, at.y - drag.from.y) > DRAG_PX) {
    drag.moves = true;
    drag.pill.run = null;
    drag.pill.g.classList.add("dragged");
  }
  if (drag.moves) {
    put(drag.pill, at.x - drag.dx, at.y - drag.dy);
    showTargets(nodeAt(at));
  }
}

const cancel = () => drop(null);

function letGo(event) {
  drop(drag.moves ? nodeAt(point(event)) : null);
}

// A drag that was one is no click.
function swallow(event) {
  event.stopPropagation();
  event.preventDefault();
}

function drop(to) {
  const { pill, unit, moves, on } = drag;
  const takes = to && mayTake(to);
  pill.g.classList.remove("dragged");
  pill.g.removeEventListener("pointermove", pull);
  pill.g.removeEventListener("pointerup", letGo);
  pill.g.removeEventListener("pointercancel", cancel);
  for (const card of cards.values()) {
    card.g.classList.remove("may", "no", "over");
  }
  drag = null;
  if (moves) {
    root.addEventListener("click", swallow, { capture: true, once: true });
    setTimeout(() => root.removeEventListener("click", swallow, { capture: true }), 0);
    slide(pill, pill.tx, pill.ty);
    if (takes && to !== on) {
      act.move(unit, to);
    }
  }
}
