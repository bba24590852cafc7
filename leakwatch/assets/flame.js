"use strict";
// Zoom and search of the flame graph that inferno has drawn: each frame is a <g> with a title, a rectangle that says from
// where to where it reaches in bytes (fg:x, fg:w), and a text.
(() => {
  const graph = document.getElementById("flame-graph");
  const all = document.getElementById("frames");
  if (!graph || !all) return;
  const total = Number(all.dataset.total);
  const details = document.getElementById("flame-details");
  const reset = document.getElementById("flame-reset");
  const search = document.getElementById("flame-search");
  const matched = document.getElementById("flame-matched");
  const differences = graph.classList.contains("differences");
  const bytes = (size) => window.leakwatchBytes(size) + all.dataset.unit;

  const frames = [...all.children].map((g) => {
    const rect = g.querySelector("rect");
    const title = g.querySelector("title");
    const text = g.querySelector("text");
    const from = Number(rect.getAttribute("fg:x"));
    const size = Number(rect.getAttribute("fg:w"));
    // Everything before the figures that inferno puts behind a name.
    const whole = title.textContent;
    const figures = Math.max(whole.lastIndexOf(" ("), 0);
    const name = whole.slice(0, figures) || whole;
    // Of a difference, the last of them; only innermost frames have one.
    const change = differences ? Number((/; ([+-][\d.]+)%\)$/.exec(whole.slice(figures)) || [])[1] || 0) : 0;
    text.textContent = "";
    return { g, rect, text, from, size, y: Number(rect.getAttribute("y")), name, change, lower: name.toLowerCase() };
  });
  if (frames.length === 0) return;
  const byElement = new Map(frames.map((frame) => [frame.g, frame]));
  const percent = (size) => ((100 * size) / total).toFixed(1) + " %";
  const changed = (change) =>
    change === 0 ? "" : `; ${change > 0 ? "grew" : "shrank"} by ${Math.abs(change).toFixed(1)} % of the whole`;
  const words = (frame) => `${frame.name}: ${bytes(frame.size)}, ${percent(frame.size)}${changed(frame.change)}`;
  for (const frame of frames) {
    // A colour by the name, so that equal names look alike. Those of differences tell what changed: inferno's deepest is
    // for the greatest change however small it is, here it is for a fifth of the whole. Less than 0.5 % has none.
    if (differences) {
      const faint = Math.round(225 - 125 * Math.min(Math.abs(frame.change) / 20, 1));
      const colour =
        Math.abs(frame.change) < 0.5 ? "250,250,250" : frame.change > 0 ? `255,${faint},${faint}` : `${faint},${faint},255`;
      frame.rect.setAttribute("fill", `rgb(${colour})`);
    } else {
      let hash = 0;
      for (const letter of frame.name) hash = (hash * 31 + letter.codePointAt(0)) >>> 0;
      frame.g.classList.add("h" + (hash % 6));
    }
    frame.g.setAttribute("tabindex", "-1");
    frame.g.setAttribute("role", "button");
    frame.g.setAttribute("aria-label", words(frame));
    frame.g.querySelector("title").textContent = words(frame);
  }

  // The width of a letter is the same for all.
  const sample = frames[0].text;
  sample.textContent = "MMMMMMMMMM";
  const letter = sample.getComputedTextLength() / 10 || 7.2;
  sample.textContent = "";

  let zoomed = null;
  const lay = () => {
    const width = graph.clientWidth;
    const [from, size] = zoomed ? [zoomed.from, zoomed.size] : [0, total];
    for (const frame of frames) {
      const around = zoomed !== null && frame.y > zoomed.y && frame.from <= from && frame.from + frame.size >= from + size;
      const within = zoomed === null || (frame.y <= zoomed.y && frame.from >= from && frame.from + frame.size <= from + size);
      frame.shown = around || within;
      frame.g.classList.toggle("off", !frame.shown);
      frame.g.classList.toggle("above", around);
      if (!frame.shown) continue;
      const left = around ? 0 : (100 * (frame.from - from)) / size;
      const part = around ? 100 : (100 * frame.size) / size;
      frame.rect.setAttribute("x", left + "%");
      frame.rect.setAttribute("width", part + "%");
      frame.text.setAttribute("x", left + (300 / Math.max(width, 1)) + "%");
      const room = Math.floor(((width * part) / 100 - 6) / letter);
      frame.text.textContent =
        room < 3 ? "" : frame.name.length <= room ? frame.name : frame.name.slice(0, room - 1) + "…";
    }
    reset.disabled = zoomed === null;
  };
  const tell = (frame) => { details.textContent = frame ? words(frame) : "\u00a0"; };
  const zoom = (frame) => {
    zoomed = frame && frame.size < total ? frame : null;
    lay();
    find();
  };

  // Bytes that lie in any frame that was found; one within another counts once.
  const find = () => {
    const term = search.value.trim().toLowerCase();
    let sum = 0;
    let until = 0;
    const hits = [];
    for (const frame of frames) {
      const hit = term !== "" && frame.lower.includes(term);
      frame.g.classList.toggle("hit", hit);
      if (hit) hits.push(frame);
    }
    hits.sort((a, b) => a.from - b.from || b.size - a.size);
    for (const hit of hits) {
      const start = Math.max(hit.from, until);
      const end = hit.from + hit.size;
      if (end > start) {
        sum += end - start;
        until = end;
      }
    }
    matched.textContent = term === "" ? "" : `${hits.length} found: ${bytes(sum)}, ${percent(sum)}`;
  };

  const frameOf = (target) => (target instanceof Element ? byElement.get(target.closest("#frames > g")) : undefined);
  graph.addEventListener("click", (event) => {
    const frame = frameOf(event.target);
    if (frame) {
      focus(frame);
      zoom(frame);
    }
  });
  graph.addEventListener("mouseover", (event) => tell(frameOf(event.target)));
  graph.addEventListener("mouseleave", () => tell(frameOf(document.activeElement)));
  reset.addEventListener("click", () => { zoom(null); search.focus(); });
  search.addEventListener("input", find);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      search.value = "";
      find();
    }
  });

  // One frame can be reached by Tab; from there the arrow keys go on.
  let current = frames.reduce((best, frame) => (frame.y > best.y ? frame : best));
  current.g.setAttribute("tabindex", "0");
  const focus = (frame) => {
    current.g.setAttribute("tabindex", "-1");
    current = frame;
    current.g.setAttribute("tabindex", "0");
    current.g.focus({ preventScroll: true });
    current.g.scrollIntoView({ block: "nearest" });
    tell(frame);
  };
  const shown = () => frames.filter((frame) => frame.shown);
  const inside = (inner, outer) => inner.from >= outer.from && inner.from + inner.size <= outer.from + outer.size;
  const next = {
    ArrowUp: () => shown().filter((it) => it.y < current.y && inside(it, current)).sort((a, b) => b.y - a.y || b.size - a.size)[0],
    ArrowDown: () => shown().filter((it) => it.y > current.y && inside(current, it)).sort((a, b) => a.y - b.y)[0],
    ArrowLeft: () => shown().filter((it) => it.y === current.y && it.from < current.from).sort((a, b) => b.from - a.from)[0],
    ArrowRight: () => shown().filter((it) => it.y === current.y && it.from > current.from).sort((a, b) => a.from - b.from)[0],
  };
  graph.addEventListener("focusin", (event) => tell(frameOf(event.target)));
  graph.addEventListener("keydown", (event) => {
    if (next[event.key]) {
      const frame = next[event.key]();
      if (frame) focus(frame);
    } else if (event.key === "Enter" || event.key === " ") {
      zoom(current);
    } else if (event.key === "Escape") {
      zoom(null);
    } else {
      return;
    }
    event.preventDefault();
  });

  let width = 0;
  new ResizeObserver(() => {
    if (graph.clientWidth !== width) {
      width = graph.clientWidth;
      lay();
    }
  }).observe(graph);
  lay();
})();
