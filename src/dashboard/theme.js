// SPDX-License-Identifier: GPL-2.0-or-later
// theme.js - light or dark, before anything is drawn: as was chosen here, or as the system has it
"use strict";
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try { chosen = localStorage.getItem("godwit-theme"); } catch { /* storage is forbidden here: as the system */ }
  const apply = () => { document.documentElement.dataset.theme = chosen ?? (system.matches ? "dark" : "light"); };
  system.addEventListener("change", apply);
  globalThis.godwitTheme = {
    name: () => chosen ?? "system",
    next() {
      chosen = { null: "dark", dark: "light", light: null }[chosen];
      try { if (chosen) localStorage.setItem("godwit-theme", chosen); else localStorage.removeItem("godwit-theme"); } catch { /* until it is reloaded */ }
      apply();
    },
  };
  apply();
})();
