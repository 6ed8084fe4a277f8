// SPDX-License-Identifier: GPL-2.0-or-later
// app.js - what is known, and what is shown of it: events come in (live.js), pictures are drawn (map.js, load.js, moves.js), orders go out

import * as load from "./load.js";
import * as map from "./map.js";
import * as moves from "./moves.js";
import { ask, enter, listen, useToken } from "./live.js";
import { by, bytes, clock, count, html, ms, percent, program, say } from "./words.js";

const HISTORY = 100;
const FEED = 60;
const CONNECTIONS_MS = 4000;
const TOAST_MS = 9000;

const nodes = new Map();
const units = new Map();
const ended = new Map();        // by trace_id
const commands = new Map();     // of units, also of those that have gone
const orders = new Map();       // ours, by id: { unit, host, toast }
let running = [];
let connections = [];
let chosen = null;              // "unit NAME", "node NAME"
let detailOf = null;            // what the detail shows, as text, so that it is made anew only when it differs
let asked = false;

const nameOf = (unit) => program(commands.get(unit)) === "?" ? unit : program(commands.get(unit));
const sortedNodes = () => [...nodes.values()].sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
const sortedUnits = () => [...units.values()].sort((a, b) => a.unit.localeCompare(b.unit, undefined, { numeric: true }));
const sortedMoves = () => [...ended.values()].sort((a, b) => b.began_ns - a.began_ns);
const hueClass = (name) => `h${Math.max(0, sortedNodes().findIndex((node) => node.name === name)) % 8}`;

// --- what happens, in words ---

function tell(...words) {
  tellOf(Date.now(), ...words);
}

function tellOf(now, ...words) {
  const feed = by("feed");
  feed.prepend(html("li", {}, html("time", { datetime: new Date(now).toISOString() }, clock(now)), html("span", {}, ...words)));
  while (feed.children.length > FEED) {
    feed.lastChild.remove();
  }
}

function toast(kind, ...children) {
  const close = html("button", { type: "button", class: "quiet small", "aria-label": "Dismiss", onclick: () => made.remove() }, "×");
  const made = html("div", { class: `toast ${kind}` }, html("p", {}, ...children), close);
  by("toasts").append(made);
  while (by("toasts").children.length > 4) {
    by("toasts").firstChild.remove();
  }
  return made;
}

function complain(what, error) {
  const made = toast("bad", html("b", {}, what));
  const reasons = error.refusals?.length ? error.refusals.map((r) => `${r.thing}: ${r.cause}${r.way_out ? ` — ${r.way_out}` : ""}`) : [error.message, error.wayOut ?? error.way_out].filter(Boolean);
  made.append(...reasons.slice(0, 4).map((text) => html("p", { class: "note" }, text)));
  say(`${what}. ${reasons.join(". ")}`);
}

// --- orders ---

async function move(unit, host, strategy) {
  const name = nameOf(unit);
  const back = units.get(unit)?.on;
  const made = toast("busy", html("b", {}, name), ` to ${host}: `, html("span", { class: "phase" }, "asked for"));
  try {
    const order = await ask("POST", "/v1/migrations", { unit, host, reason: "by hand, on the dashboard", ...(strategy ? { strategy } : {}) });
    const stop = html("button", { type: "button", class: "small", onclick: () => ask("DELETE", `/v1/migrations/${order.id}`).catch((error) => complain("Not interrupted", error)) }, "Interrupt");
    made.append(html("div", { class: "actions" }, stop));
    orders.set(order.id, { unit, host, back, toast: made });
    follow(order);
  } catch (error) {
    made.remove();
    complain(`${name} does not move`, error);
  }
}

// One of our own orders, as it is now.
function follow(order) {
  const mine = orders.get(order.id);
  if (!mine || !mine.toast) {
    return;
  }
  const name = nameOf(mine.unit);
  if (order.state === "running") {
    mine.toast.querySelector(".phase").textContent = order.progress?.phase || "begins";
    return;
  }
  mine.toast.remove();
  mine.toast = null;
  if (order.state !== "moved") {
    complain(`${name}: ${order.state}`, order.error ?? {});
    return;
  }
  const made = toast("", html("b", {}, name), ` now runs on ${order.result.to}. It stood still for `, html("b", {}, ms(order.result.freeze_us / 1000)), ".");
  if (mine.back && nodes.has(mine.back) && mine.back !== order.result.to) {
    made.append(html("div", { class: "actions" }, html("button", { type: "button", class: "small", onclick: () => { made.remove(); move(mine.unit, mine.back); } }, `Back to ${mine.back}`)));
  }
  setTimeout(() => made.remove(), TOAST_MS);
}

async function drain(node, on) {
  try {
    await ask(on ? "POST" : "DELETE", `/v1/nodes/${node}/drain`);
    toast("", on ? `${node} is being emptied.` : `${node} takes units again.`);
  } catch (error) {
    complain(`${node}: not done`, error);
  }
}

function askMove(name) {
  const unit = units.get(name);
  if (!unit) {
    return;
  }
  const others = sortedNodes().filter((node) => node.name !== unit.on);
  const dialog = by("move-dialog");
  dialog.dataset.unit = name;
  by("move-title").textContent = `Move ${nameOf(name)}`;
  by("move-what").textContent = `${name}, on ${unit.on}`;
  by("move-nodes").replaceChildren(...others.map((node, i) => html("label", {},
    html("input", { type: "radio", name: "node", value: node.name, disabled: node.state !== "ok", required: true }),
    html("b", {}, node.name, node.name === unit.home ? " (home)" : ""),
    html("span", {}, node.state === "ok" ? `CPU ${percent(load.cpuOf(node))} · memory ${percent(load.memOf(node))}` : node.state))));
  by("move-go").disabled = !others.some((node) => node.state === "ok");
  const first = by("move-nodes").querySelector("input:enabled");
  if (first) {
    first.checked = true;
  }
  dialog.showModal();
  first?.focus();
}

// --- the side ---

const fact = (name, value) => (value === undefined || value === "" ? [] : [html("dt", {}, name), html("dd", {}, value)]);

function unitDetail(unit) {
  const last = sortedMoves().find((one) => one.unit === unit.unit);
  const box = html("div", {},
    html("dl", { class: "facts" },
      ...fact("name", html("span", { class: "mono" }, unit.unit)), ...fact("program", unit.command), ...fact("on", `${unit.on}, as process ${unit.pid}`),
      ...fact("home", unit.stub ? `${unit.home}, where process ${unit.stub} stands in for it` : unit.home), ...fact("state", unit.state), ...fact("moves", unit.moves),
      ...fact("last from", unit.from), ...fact("why", unit.reason), ...fact("last freeze", last?.freeze_us ? ms(last.freeze_us / 1000) : undefined),
      ...fact("copies", unit.protect_copies ? `${unit.protect_have ?? 0} of ${unit.protect_copies}, every ${ms(unit.protect_every_ms)}` : undefined), ...fact("user", unit.uid)),
    html("div", { class: "actions" },
      html("button", { type: "button", class: "primary", onclick: () => askMove(unit.unit) }, "Move…"),
      html("button", { type: "button", onclick: (event) => explain(unit.unit, event.target) }, "Would it move by itself?")));
  return box;
}

async function explain(unit, button) {
  let words;
  try {
    const said = await ask("GET", `/v1/units/${encodeURIComponent(unit).replaceAll("%3A", ":")}/explain`);
    words = said.text ?? said.why ?? JSON.stringify(said);
  } catch (error) {
    words = error.message;
  }
  const box = button.closest("div").parentElement;
  box.querySelector(".reason")?.remove();
  box.append(html("p", { class: "reason", role: "status" }, words));
}

function nodeDetail(node) {
  const i = node.indices;
  const here = sortedUnits().filter((unit) => unit.on === node.name);
  const drained = node.state.startsWith("drain") || node.state === "drained";
  return html("div", {},
    html("dl", { class: "facts" },
      ...fact("state", node.state), ...fact("", node.error), ...fact("address", html("span", { class: "mono" }, node.address)), ...fact("kernel", node.kernel), ...fact("labels", node.labels),
      ...(i ? [...fact("cores", `${i.cores}, speed ${i.speed.toFixed(2)}`), ...fact("run queue", `${i.r15s.toFixed(2)} · ${i.r1m.toFixed(2)} · ${i.r15m.toFixed(2)}`),
        ...fact("memory", `${bytes(i.mem * 1048576)} free of ${bytes(i.maxmem * 1048576)}`),
        ...fact("pressure", `CPU ${percent(i.psicpu)}, memory ${percent(i.psimem)}, disk ${percent(i.psiio)}`)] : []),
      ...fact("units", here.length ? here.map((unit) => nameOf(unit.unit)).join(", ") : "none")),
    html("div", { class: "actions" },
      drained ? html("button", { type: "button", onclick: () => drain(node.name, false) }, "Take units again") :
        html("button", { type: "button", onclick: () => drain(node.name, true) }, "Empty it (drain)")));
}

function showDetail() {
  const [kind, name] = chosen?.split(" ") ?? [];
  const what = kind === "unit" ? units.get(name) : kind === "node" ? nodes.get(name) : null;
  by("detail").hidden = !what;
  by("feed").hidden = Boolean(what);
  by("side-close").hidden = !what;
  by("side-title").textContent = what ? kind === "unit" ? nameOf(name) : name : "What happens";
  const now = JSON.stringify([kind, what, kind === "node" ? sortedUnits().length : 0]);
  if (what && detailOf !== now && !(by("detail").contains(document.activeElement) && detailOf?.startsWith(JSON.stringify([kind]).slice(0, -1)))) {
    by("detail").replaceChildren(kind === "unit" ? unitDetail(what) : nodeDetail(what));
    detailOf = now;
  }
  if (!what) {
    detailOf = null;
  }
}

function choose(kind, name, byKey = false) {
  const next = `${kind} ${name}`;
  chosen = chosen === next && !byKey ? null : next;
  detailOf = null;
  draw();
  if (byKey) {
    by("side-title").focus({ preventScroll: true });
  }
}

// --- tables ---

function matching() {
  const text = by("filter").value.trim().toLowerCase();
  return text ? (unit) => `${unit.unit} ${unit.command} ${unit.on} ${unit.home}`.toLowerCase().includes(text) : null;
}

function cell(name, ...children) {
  return html("td", { "data-th": name, class: ["Moves", "Last freeze"].includes(name) ? "n" : null }, html("span", {}, ...children));
}

function showUnits() {
  const filter = matching();
  const list = sortedUnits().filter((unit) => !filter || filter(unit));
  const focused = document.activeElement?.closest?.("#units tr")?.dataset.unit;
  const freezes = new Map([...ended.values()].sort((a, b) => a.began_ns - b.began_ns).filter((one) => one.outcome === "moved").map((one) => [one.unit, one.freeze_us / 1000]));
  by("units").replaceChildren(...list.map((unit) => html("tr", { "data-unit": unit.unit, class: chosen === `unit ${unit.unit}` ? "chosen" : null },
    cell("Unit", html("span", { class: "mono" }, unit.unit)), cell("Program", unit.command),
    cell("On", html("span", { class: `swatch ${hueClass(unit.on)}` }), unit.on), cell("Home", html("span", { class: `swatch ${hueClass(unit.home)}` }), unit.home),
    cell("State", running.some((one) => one.unit === unit.unit) ? "moving" : unit.state), cell("Moves", unit.moves ?? 0), cell("Last freeze", freezes.has(unit.unit) ? ms(freezes.get(unit.unit)) : "–"),
    html("td", { "data-th": "" }, html("button", { type: "button", class: "small", "aria-label": `Move ${nameOf(unit.unit)}`, onclick: () => askMove(unit.unit) }, "Move…")))));
  if (focused) {
    by("units").querySelector(`[data-unit="${CSS.escape(focused)}"] button`)?.focus({ preventScroll: true });
  }
  by("no-units").hidden = list.length > 0;
  by("no-units").textContent = units.size ? "No unit is called so." : "No units that you may see. A process becomes one when it is moved, or started with godwit run.";
}

function showConnections() {
  by("connections").replaceChildren(...connections.map((c) => html("tr", {}, cell("Address", html("span", { class: "mono" }, `${c.protocol} ${c.address}`)), cell("Peer", html("span", { class: "mono" }, c.peer || c.kind)), cell("On", c.on),
    cell("Other end", c.peer_on ?? "–"), cell("Route", c.route), cell("Depends on", c.needs.join(", ") || "nobody"))));
  by("no-connections").hidden = connections.length > 0;
}

async function lookAtConnections() {
  if (!document.hidden && by("gate").hidden) {
    try {
      const said = await ask("GET", "/v1/connections");
      connections = said.connections;
      by("connections-of").textContent = `as ${said.node} knows them`;
      by("no-connections").textContent = "None.";
    } catch (error) {
      connections = [];
      by("no-connections").textContent = error.code === "permission" ? "All connections are shown to root, and to members of the group in [access] of godwit.conf." : error.message;
    }
    showConnections();
    draw();
  }
  setTimeout(lookAtConnections, CONNECTIONS_MS);
}

// --- all ---

function tile(id, value, unit = "") {
  by(id).replaceChildren(value, ...(unit ? [html("small", {}, unit)] : []));
}

function drawNow() {
  asked = false;
  const list = sortedNodes();
  const all = sortedUnits();
  const self = list.find((node) => node.self);
  const freeze = moves.medianFreeze(sortedMoves());
  by("where").textContent = self ? `seen from ${self.name}` : "";
  tile("tile-nodes", String(list.filter((node) => !node.error).length), `of ${list.length}`);
  tile("tile-units", String(all.length));
  tile("tile-away", String(all.filter((unit) => unit.on !== unit.home).length));
  tile("tile-moving", String(running.length));
  by("tile-moving").parentElement.classList.toggle("hot", running.length > 0);
  tile("tile-freeze", ...(freeze === null ? ["–"] : ms(freeze).split(" ")));
  map.draw({ nodes: list, units: all, running, connections: by("show-connections").checked ? connections : [], chosen, filter: matching() });
  load.show(list);
  moves.show({ running, ended: sortedMoves(), commands, oneScale: by("one-scale").checked });
  showUnits();
  showDetail();
}

function draw() {
  if (!asked) {
    asked = true;
    requestAnimationFrame(drawNow);
  }
}

// What was before this page was opened.
function recall() {
  for (const one of sortedMoves().slice(0, FEED / 3).reverse()) {
    tellOf(one.ended_ns / 1e6, html("b", {}, nameOf(one.unit)), ...(one.outcome === "moved" ? [` moved from ${one.from} to ${one.to}${one.reason ? ` (${one.reason})` : ""}`] : [` to ${one.to || "?"}: `, html("span", { class: "bad" }, one.outcome)]));
  }
}

// --- events ---

function takeUnit(unit) {
  units.set(unit.unit, unit);
  if (unit.command) {
    commands.set(unit.unit, unit.command);
  }
}

function takeNode(node) {
  const before = nodes.get(node.name);
  nodes.set(node.name, node);
  load.note(node);
  if (before && before.state !== node.state) {
    tell(html("b", {}, node.name), ` is ${node.state}`);
    say(`${node.name} is ${node.state}`);
  }
}

const on = {
  snapshot(all) {
    const first = !nodes.size;
    nodes.clear();
    units.clear();
    all.nodes.forEach(takeNode);
    all.units.forEach(takeUnit);
    all.history.forEach((one) => ended.set(one.trace_id, one));
    running = all.under_way;
    ask("GET", `/v1/history?last=${HISTORY}`).then((said) => { said.moves.forEach((one) => ended.set(one.trace_id, one)); draw(); if (first) { recall(); } }, () => {});
  },
  node: takeNode,
  "node-gone": ({ name }) => nodes.delete(name),
  "unit-appeared"(unit) {
    takeUnit(unit);
    tell(html("b", {}, nameOf(unit.unit)), ` appeared on ${unit.on}`);
  },
  "unit-changed": takeUnit,
  "unit-moved"({ unit, from, to, now }) {
    takeUnit(now);
    load.mark(from);
    load.mark(to);
    const why = now.reason ? ` (${now.reason})` : "";
    tell(html("b", {}, nameOf(unit)), ` moved from ${from} to ${to}${why}`);
    say(`${nameOf(unit)} moved from ${from} to ${to}`);
  },
  "unit-ended"({ unit, on: node }) {
    tell(html("b", {}, nameOf(unit)), ` ended on ${node}`);
    units.delete(unit);
  },
  migration: follow,
  "under-way"({ moves: list }) {
    running = list;
  },
  move(one) {
    if (!ended.has(one.trace_id) && one.outcome !== "moved") {
      tell(html("b", {}, nameOf(one.unit)), " to ", one.to || "?", ": ", html("span", { class: "bad" }, one.outcome));
    }
    ended.set(one.trace_id, one);
    running = running.filter((other) => other.trace_id !== one.trace_id);
    for (const old of sortedMoves().slice(2 * HISTORY)) {
      ended.delete(old.trace_id);
    }
  },
};

function state(now, why) {
  const words = { on: "live", wait: "connecting again", off: "no permission", gate: "no key" };
  by("live").dataset.state = now === "gate" ? "off" : now;
  by("live-text").textContent = words[now];
  if (now === "gate" || now === "off") {
    by("gate").hidden = false;
    if (now === "off") {
      by("gate-title").textContent = "You may not see this cluster";
      by("gate-text").textContent = why;
    } else if (location.protocol === "https:") {
      by("gate-title").textContent = "Who are you?";
      by("gate-text").textContent = "A token says so; godwit token add makes one, on the node.";
      by("token-form").hidden = false;
    }
  } else {
    by("gate").hidden = true;
  }
}

function setTheme() {
  by("theme").setAttribute("aria-label", `Theme: ${{ system: "as the system", light: "light", dark: "dark" }[globalThis.godwitTheme.name()]}`);
}

function wire() {
  moves.legend();
  map.begin({ choose, move, askMove });
  by("theme").addEventListener("click", () => { globalThis.godwitTheme.next(); setTheme(); });
  setTheme();
  by("help").addEventListener("click", () => by("help-dialog").showModal());
  by("side-close").addEventListener("click", () => { chosen = null; draw(); });
  by("filter").addEventListener("input", draw);
  by("show-connections").addEventListener("change", draw);
  by("one-scale").addEventListener("change", draw);
  by("move-cancel").addEventListener("click", () => by("move-dialog").close());
  by("move-form").addEventListener("submit", () => {
    const to = by("move-nodes").querySelector("input:checked")?.value;
    const how = by("move-strategy").value;
    if (to) {
      move(by("move-dialog").dataset.unit, to, how === "freeze-free" ? undefined : how);
    }
  });
  by("move-dialog").addEventListener("close", () => map.focusUnit(by("move-dialog").dataset.unit));
  addEventListener("keydown", (event) => {
    if (event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) {
      return;
    }
    if (event.key === "/") {
      by("filter").focus();
      event.preventDefault();
    } else if (event.key === "?") {
      by("help-dialog").showModal();
    } else if (event.key === "Escape" && chosen) {
      chosen = null;
      draw();
    } else if ((event.key === "m" || event.key === "M") && chosen?.startsWith("unit ")) {
      askMove(chosen.slice(5));
    }
  });
}

function begin() {
  listen((event, data) => {
    on[event]?.(data);
    draw();
  }, state);
}

wire();
by("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(by("token").value.trim());
  by("token").value = "";
  begin();
});
await enter();
setTimeout(lookAtConnections, 300);
begin();
