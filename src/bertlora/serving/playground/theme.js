// Light or dark: the system's theme until the reader chooses one. It runs before the page is drawn.
"use strict";

const root = document.documentElement;
const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
const stored = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
const store = (theme) => { try { localStorage.setItem("theme", theme); } catch { /* This visit only. */ } };

if (["light", "dark"].includes(stored())) root.dataset.theme = stored();

const isDark = () => (root.dataset.theme ?? (systemIsDark.matches ? "dark" : "light")) === "dark";

addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("theme");
  const showOther = () => { button.textContent = isDark() ? "Light theme" : "Dark theme"; };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    store(root.dataset.theme);
    showOther();
  });
  systemIsDark.addEventListener("change", showOther);
  showOther();
});
