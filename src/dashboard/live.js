// SPDX-License-Identifier: GPL-2.0-or-later
// live.js - what is between this page and the API: the key to it, questions, and the stream of events (docs/api.md)

const SILENCE_MS = 40000;       // a comment comes every 15 s
const AGAIN_MS = [500, 1000, 2000, 5000, 10000];

export class Refused extends Error {
  constructor(status, error) {
    super(error?.message ?? `the server said ${status}`);
    this.status = status;
    this.code = error?.code ?? "failed";
    this.wayOut = error?.way_out ?? "";
    this.refusals = error?.refusals ?? [];
  }
}

let key = null;

// The address that `godwit dashboard` prints ends with a code that is good once; it is exchanged for a key, which this tab keeps. Over a forwarded socket of the API there is neither.
export async function enter() {
  const code = location.hash.match(/^#code=([0-9a-f]{16,})$/)?.[1];
  if (code) {
    history.replaceState(null, "", location.pathname);
    const said = await fetch("/session", { method: "POST", body: JSON.stringify({ code }) });
    if (said.ok) {
      sessionStorage.setItem("godwit-key", (await said.json()).key);
    }
  }
  key = sessionStorage.getItem("godwit-key");
}

// Over TLS the key is a token of the user's (docs/api.md).
export function useToken(token) {
  sessionStorage.setItem("godwit-key", token);
  key = token;
}

function headers(more = {}) {
  return key ? { Authorization: `Bearer ${key}`, ...more } : more;
}

export async function ask(method, path, body) {
  const said = await fetch(path, { method, headers: headers(body ? { "Content-Type": "application/json" } : {}), body: body ? JSON.stringify(body) : undefined, cache: "no-store" });
  const answer = await said.json().catch(() => ({}));
  if (!said.ok) {
    throw new Refused(said.status, answer.error);
  }
  return answer;
}

// Calls on(event, data) for each; state("on" | "wait" | "off" | "gate"). Goes on for ever, from where it was.
export async function listen(on, state) {
  let last = null;
  let failures = 0;
  for (;;) {
    const control = new AbortController();
    let watch = setTimeout(() => control.abort(), SILENCE_MS);
    try {
      const said = await fetch("/v1/events", { headers: headers(last ? { "Last-Event-ID": last } : {}), cache: "no-store", signal: control.signal });
      if (said.status === 401) {
        state("gate");
        return;
      }
      if (!said.ok) {
        throw new Refused(said.status, (await said.json()).error);
      }
      failures = 0;
      state("on");
      const reader = said.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
        clearTimeout(watch);
        watch = setTimeout(() => control.abort(), SILENCE_MS);
        const parts = (text + piece.value).split("\n\n");
        text = parts.pop();
        for (const part of parts) {
          const event = Object.fromEntries(part.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
          if (event.data) {
            last = event.id;
            on(event.event, JSON.parse(event.data));
          }
        }
      }
      state("wait");
    } catch (error) {
      state(error instanceof Refused && error.status === 403 ? "off" : "wait", error.message);
    }
    clearTimeout(watch);
    const ms = AGAIN_MS[Math.min(failures++, AGAIN_MS.length - 1)];
    await new Promise((done) => { setTimeout(done, ms); });
  }
}
