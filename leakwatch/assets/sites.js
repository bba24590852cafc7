"use strict";
// The ranking sorts by the figure whose name is pressed: the greatest first, what is not known last; call sites by rank.
(() => {
  const ranking = document.getElementById("ranking");
  const head = document.querySelector(".sites-head");
  if (!ranking || !head) return;
  head.classList.add("sortable");
  const buttons = head.querySelectorAll("button[data-sort]");
  const mark = (chosen) => {
    for (const button of buttons) {
      // "share" sorts as "live" does, so only the pressed one is marked.
      button.setAttribute("aria-pressed", String(button === chosen));
    }
  };
  for (const button of buttons) {
    button.disabled = false;
    button.addEventListener("click", () => {
      const key = button.dataset.sort;
      const value = (row) => (row.dataset[key] === undefined ? -Infinity : Number(row.dataset[key]));
      const order = key === "rank" ? (a, b) => value(a) - value(b) : (a, b) => value(b) - value(a);
      ranking.append(...[...ranking.children].sort((a, b) => order(a, b) || Number(a.dataset.rank) - Number(b.dataset.rank)));
      mark(button);
    });
  }
  // A link to a row opens it.
  const open = () => {
    const row = /^#site-\d+$/.test(location.hash) ? document.getElementById(location.hash.slice(1)) : null;
    if (row) row.open = true;
  };
  window.addEventListener("hashchange", open);
  open();
})();
