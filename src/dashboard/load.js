// SPDX-License-Identifier: GPL-2.0-or-later
// load.js - CPU and memory of each node over the last minutes, as events have told; a stripe where a unit came or left

import { by, clock, html, percent, svg } from "./words.js";

const KEPT_MS = 600000;
const WIDTH = 300;
const HEIGHT = 80;
const past = new Map();         // node: [{ at, cpu, mem }]
const stripes = new Map();      // node: [at]

export const cpuOf = (node) => Math.min(1, node.indices?.ut ?? 0);
export const memOf = (node) => (node.indices?.maxmem ? Math.max(0, 1 - node.indices.mem / node.indices.maxmem) : 0);
export const samples = (name) => past.get(name) ?? [];

function keep(map, name, value, atOf) {
  const list = map.get(name) ?? [];
  const begin = Date.now() - KEPT_MS;
  list.push(value);
  while (list.length && atOf(list[0]) < begin) {
    list.shift();
  }
  map.set(name, list);
}

export function note(node) {
  if (node.indices && node.state !== "unreachable") {
    keep(past, node.name, { at: Date.now(), cpu: cpuOf(node), mem: memOf(node) }, (sample) => sample.at);
  }
}

export function mark(name) {
  keep(stripes, name, Date.now(), (at) => at);
}

function chart(node) {
  const list = samples(node.name);
  const now = Date.now();
  const begin = Math.min(list[0]?.at ?? now, now - 60000);
  const x = (at) => (at - begin) / (now - begin) * WIDTH;
  const y = (part) => HEIGHT - part * (HEIGHT - 4);
  const line = (key) => list.map((s, i) => `${i ? "L" : "M"}${x(s.at).toFixed(1)} ${y(s[key]).toFixed(1)}`).join("");
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
    "aria-label": `${node.name}: CPU ${percent(cpuOf(node))}, memory ${percent(memOf(node))} now` });
  for (const part of [0, 0.5, 1]) {
    picture.append(svg("path", { class: "grid", d: `M0 ${y(part)}H${WIDTH}` }));
  }
  for (const at of stripes.get(node.name) ?? []) {
    if (at >= begin) {
      picture.append(svg("path", { class: "stripe", d: `M${x(at).toFixed(1)} 0V${HEIGHT}` }));
    }
  }
  if (list.length > 1) {
    picture.append(svg("path", { class: "under", d: `${line("cpu")}L${x(list.at(-1).at)} ${HEIGHT}L${x(list[0].at)} ${HEIGHT}z` }), svg("path", { class: "mem", d: line("mem") }), svg("path", { class: "cpu", d: line("cpu") }));
  }
  const caption = html("span", {}, `CPU ${percent(cpuOf(node))} · memory ${percent(memOf(node))}`);
  const hair = svg("path", { class: "hair", d: "" });
  picture.append(hair);
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const at = begin + (event.clientX - box.left) / box.width * (now - begin);
    const nearest = list.reduce((best, s) => (Math.abs(s.at - at) < Math.abs(best.at - at) ? s : best), list[0]);
    if (nearest) {
      hair.setAttribute("d", `M${x(nearest.at)} 0V${HEIGHT}`);
      caption.textContent = `${clock(nearest.at)} · CPU ${percent(nearest.cpu)} · memory ${percent(nearest.mem)}`;
    }
  });
  return html("figure", { class: "chart", "data-node": node.name }, html("figcaption", {}, html("b", {}, node.name), caption), picture);
}

export function show(nodes) {
  const box = by("charts");
  if (box.matches(":hover") && box.children.length === nodes.length) {
    return;     // somebody reads a figure
  }
  box.replaceChildren(...nodes.map(chart));
}
