// SPDX-License-Identifier: GPL-2.0-or-later
// layout.js - where nodes and units are on the map: pure functions of how wide it is and what there is; units of length are pixels

export const CARD = 236;
export const PILL = { width: 100, height: 24 };
export const DOT = 16;
const GAP = 24;
const EDGE = 14;
const TRAY = 84;        // from the top of a card to its first unit
const PILLS_MAX = 10;   // more are dots
const DOTS_A_ROW = Math.floor((CARD - 2 * EDGE + 4) / (DOT + 4));
const DOTS_MAX = DOTS_A_ROW * 5;

// The places of n units in a card, from its corner: { dots, height, at: [[x, y]], more }.
export function tray(n) {
  const dots = n > PILLS_MAX;
  const shown = Math.min(n, dots ? DOTS_MAX : PILLS_MAX);
  const at = [];
  for (let i = 0; i < shown; i++) {
    at.push(dots ? [EDGE + (i % DOTS_A_ROW) * (DOT + 4), TRAY + Math.floor(i / DOTS_A_ROW) * (DOT + 4)] :
      [EDGE + (i % 2) * (CARD - 2 * EDGE - PILL.width), TRAY + Math.floor(i / 2) * (PILL.height + 6)]);
  }
  const rows = dots ? Math.ceil(shown / DOTS_A_ROW) * (DOT + 4) : Math.max(2, Math.ceil(shown / 2)) * (PILL.height + 6);
  return { dots, height: TRAY + rows + 10 + (n > shown ? 18 : 0), at, more: n - shown };
}

function ring(heights, width) {
  const n = heights.length;
  const tallest = Math.max(...heights);
  const rx = Math.min((width - CARD) / 2 - 4, 190 + 60 * n);
  const ry = tallest * (n <= 4 ? 0.82 : n === 5 ? 1.02 : 1.12) + 8;
  const cards = heights.map((height, i) => {
    const angle = -Math.PI / 2 + 2 * Math.PI * i / n;
    return { x: width / 2 + rx * Math.cos(angle) - CARD / 2, y: ry * Math.sin(angle) - height / 2, height };
  });
  const top = Math.min(...cards.map((card) => card.y));
  for (const card of cards) {
    card.y += 4 - top;
  }
  return { cards, middle: { x: width / 2, y: 4 - top, rx, ry } };
}

function grid(heights, width) {
  const columns = Math.max(1, Math.min(heights.length, Math.floor((width + GAP) / (CARD + GAP))));
  const gap = columns > 1 ? Math.min(120, (width - columns * CARD) / (columns - 1)) : 0;
  const left = (width - columns * CARD - (columns - 1) * gap) / 2;
  const cards = [];
  let y = 4;
  for (let i = 0; i < heights.length; i += columns) {
    const row = heights.slice(i, i + columns);
    row.forEach((height, k) => cards.push({ x: left + k * (CARD + gap), y, height }));
    y += Math.max(...row) + (columns === 1 ? 18 : 48);
  }
  return { cards, middle: null };
}

// { cards: [{ x, y, height }], height, middle: of the ring in which they stand, or null } for nodes with so many units each.
export function place(counts, width) {
  const heights = counts.map((n) => tray(n).height);
  const { cards, middle } = heights.length >= 3 && heights.length <= 6 && width >= 780 ? ring(heights, width) : grid(heights, width);
  return { cards, middle, height: Math.max(120, ...cards.map((card) => card.y + card.height)) + 8 };
}

const centre = (card) => [card.x + CARD / 2, card.y + card.height / 2];

// A bent line between two cards, from edge to edge; bend: how far its middle is off, in parts of its length.
export function curve(from, to, bend) {
  const [ax, ay] = centre(from);
  const [bx, by] = centre(to);
  const length = Math.hypot(bx - ax, by - ay) || 1;
  const mid = [(ax + bx) / 2 - (by - ay) * bend, (ay + by) / 2 + (bx - ax) * bend];
  const leave = (card, [x, y]) => {
    const [cx, cy] = centre(card);
    const scale = Math.min((CARD / 2 + 4) / Math.abs(x - cx || 1e-9), (card.height / 2 + 4) / Math.abs(y - cy || 1e-9), 1);
    return [cx + (x - cx) * scale, cy + (y - cy) * scale];
  };
  const [sx, sy] = leave(from, mid);
  const [ex, ey] = leave(to, mid);
  const at = (t) => [(1 - t) ** 2 * sx + 2 * t * (1 - t) * mid[0] + t * t * ex, (1 - t) ** 2 * sy + 2 * t * (1 - t) * mid[1] + t * t * ey];
  return { d: `M${sx.toFixed(1)} ${sy.toFixed(1)}Q${mid[0].toFixed(1)} ${mid[1].toFixed(1)} ${ex.toFixed(1)} ${ey.toFixed(1)}`, at, length };
}
