// SPDX-License-Identifier: GPL-2.0-or-later
// moves.js - the moves of the cluster, each with its phases to scale; opened, step by step

import { bytes, by, clock, count, html, ms, percent, program, svg } from "./words.js";

const SHOWN = 40;
const WIDTH = 1000;

// Steps of the source (docs/how-it-works.md) by what a person wants to tell apart.
export const PHASES = [
  { name: "agree", steps: ["begin", "hello", "offer"], words: "offer: it runs, nothing is touched" },
  { name: "prepare", steps: ["agent", "content", "prepare"], words: "prepare: the destination builds it" },
  { name: "rounds", steps: ["rounds"], words: "pages ahead" },
  { name: "freeze", steps: ["freeze", "go"], words: "freeze" },
  { name: "commit", steps: ["commit", "home"], words: "commit: it runs there" },
  { name: "push", steps: ["push"], words: "push and faults" },
  { name: "release", steps: ["release"], words: "release" },
];

const phaseOf = (step) => PHASES.find((phase) => phase.steps.includes(step))?.name ?? "agree";
const stepsOf = (move) => (move.spans ?? []).filter((span) => span.parent_span_id && span.name !== "frozen");
const frozenOf = (move) => (move.spans ?? []).find((span) => span.name === "frozen");
const millis = (ns) => ns / 1e6;

export function legend() {
  by("phases").replaceChildren(...PHASES.flatMap((phase) => [html("span", { class: `key box ${phase.name}` }), html("span", { class: "w" }, phase.words)]));
}

// A bar of its phases; whole: what the full width is, in ms.
function track(move, whole) {
  const total = Math.max(move.total_ms, 0.001);
  const x = (ns) => Math.max(0, millis(ns - move.began_ns)) / whole * WIDTH;
  const g = svg("svg", { class: "track", viewBox: `0 0 ${WIDTH} 22`, preserveAspectRatio: "none", role: "img", "aria-label": sentence(move) });
  g.append(svg("rect", { class: "wait", x: 0, y: 5, width: total / whole * WIDTH, height: 12, rx: 2 }));
  for (const span of stepsOf(move)) {
    const width = Math.max(x(span.end_ns || Date.now() * 1e6) - x(span.start_ns), 0.6);
    g.append(svg("rect", { class: phaseOf(span.name), x: x(span.start_ns), y: 5, width, height: 12 }, svg("title", {}, `${span.name}: ${ms(millis(span.end_ns - span.start_ns))}`)));
  }
  const frozen = frozenOf(move);
  if (frozen) {
    g.append(svg("rect", { class: "frozen", x: x(frozen.start_ns) - 1, y: 0, width: Math.max(x(frozen.end_ns) - x(frozen.start_ns), 3), height: 22 },
      svg("title", {}, `stood still for ${ms(millis(frozen.end_ns - frozen.start_ns))}`)));
  }
  return g;
}

function sentence(move) {
  return `${stepsOf(move).map((span) => `${span.name} ${ms(millis(span.end_ns - span.start_ns))}`).join(", ")}${move.freeze_us ? `; stood still for ${ms(move.freeze_us / 1000)}` : ""}`;
}

function gantt(move) {
  const rows = [...stepsOf(move), frozenOf(move)].filter(Boolean);
  const x = (ns) => millis(ns - move.began_ns) / Math.max(move.total_ms, 0.001) * WIDTH;
  return html("div", { class: "gantt" }, ...rows.flatMap((span) => [
    html("span", {}, span.name),
    svg("svg", { viewBox: `0 0 ${WIDTH} 14`, preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { class: span.name === "frozen" ? "freeze" : phaseOf(span.name), x: Math.min(x(span.start_ns), WIDTH - 4), y: 2, width: Math.max(x(span.end_ns) - x(span.start_ns), 4), height: 10, rx: 2 })),
    html("span", { class: "t" }, ms(millis(span.end_ns - span.start_ns))),
  ]));
}

function sums(move) {
  const parts = [`${clock(move.began_ns / 1e6)}, ${move.strategy}`];
  if (move.reason) {
    parts.push(`why: ${move.reason}`);
  }
  if (move.pages_total) {
    parts.push(`of ${count(move.pages_total, "page")} ${move.pages_sent} were sent (${bytes(move.bytes_sent)}), ${move.pages_skipped_file} are in files there, ${move.pages_skipped_zero} zero`);
    parts.push(`${count(move.pages_faulted, "fault")} before the push had come so far`);
  }
  if (move.rounds) {
    parts.push(count(move.rounds, "round"));
  }
  if (move.attempts > 1) {
    parts.push(`${move.attempts} attempts`);
  }
  return html("p", { class: "sums" }, `${parts.join(" · ")}.`, move.error ? ` ${move.error}` : "");
}

function figures(move) {
  if (!move.outcome) {
    return html("span", { class: "figures" }, html("b", {}, move.phase || "begins"), ` · ${ms(move.total_ms)}${move.pages_total ? ` · ${percent(Math.min(1, (move.pages_sent + move.pages_skipped_file + move.pages_skipped_zero) / move.pages_total))}` : ""}`);
  }
  if (move.outcome !== "moved") {
    return html("span", { class: "figures" }, html("b", { class: "bad" }, move.outcome), ` after ${ms(move.total_ms)}`);
  }
  return html("span", { class: "figures" }, "froze ", html("b", {}, ms(move.freeze_us / 1000)), ` of ${ms(move.total_ms)} · ${bytes(move.bytes_sent)}`);
}

function row(move, whole, commands) {
  const name = commands.get(move.unit) ? program(commands.get(move.unit)) : move.unit;
  const details = html("details", { class: "move", "data-id": move.trace_id },
    html("summary", {},
      html("span", { class: "who" }, html("b", {}, name), html("span", { class: "way" }, ` ${move.from} → ${move.to || "?"}`)),
      track(move, whole), figures(move)));
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) {
      details.append(gantt(move), sums(move));
    }
  });
  return details;
}

// running first, then what has ended, the newest first. What is open stays open.
export function show({ running, ended, commands, oneScale }) {
  const list = [...running, ...ended].slice(0, SHOWN);
  const longest = Math.max(...list.map((move) => move.total_ms), 0.001);
  const box = by("moves");
  const open = new Set([...box.querySelectorAll("details[open]")].map((element) => element.dataset.id));
  const focused = document.activeElement?.closest?.(".move")?.dataset.id;
  if (!list.length) {
    box.replaceChildren(html("p", { class: "empty" }, "Nothing has moved since the nodes' daemons began."));
    return;
  }
  box.replaceChildren(...list.map((move) => {
    const made = row(move, oneScale ? longest : Math.max(move.total_ms, 0.001), commands);
    made.open = open.has(move.trace_id);
    return made;
  }));
  if (focused) {
    box.querySelector(`[data-id="${CSS.escape(focused)}"] summary`)?.focus({ preventScroll: true });
  }
}

export function medianFreeze(ended) {
  const all = ended.filter((move) => move.outcome === "moved").map((move) => move.freeze_us / 1000).sort((a, b) => a - b);
  return all.length ? all[all.length >> 1] : null;
}
