// SPDX-License-Identifier: GPL-2.0-or-later
// words.js - elements without markup in strings, and figures as people read them

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) {
      element.addEventListener(name.slice(2), value);
    } else if (value === true || value === false) {
      element.toggleAttribute(name, value);
    } else if (value !== null && value !== undefined) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const html = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
export const svg = (name, attributes = {}, ...children) => fill(document.createElementNS(SVG, name), attributes, children);
export const by = (id) => document.getElementById(id);

export function set(element, attributes) {
  return fill(element, attributes, []);
}

export function ms(value) {
  if (value < 1) {
    return `${Math.round(value * 1000)} µs`;
  }
  if (value < 100) {
    return `${value.toFixed(value < 10 ? 2 : 1)} ms`;
  }
  return value < 1000 ? `${Math.round(value)} ms` : value < 120000 ? `${(value / 1000).toFixed(1)} s` : `${Math.round(value / 60000)} min`;
}

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  for (; value >= 1024 && i < units.length - 1; i++) {
    value /= 1024;
  }
  return `${value < 10 && i ? value.toFixed(1) : Math.round(value)} ${units[i]}`;
}

export const percent = (part) => `${Math.round(100 * part)} %`;
export const clock = (when) => new Date(when).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
export const count = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

// The name of a program, of its command line.
export function program(command) {
  const first = (command ?? "").split(" ")[0];
  return first.slice(first.lastIndexOf("/") + 1).replace(/:$/, "") || "?";
}

export function say(text) {
  by("say").textContent = text;
}
