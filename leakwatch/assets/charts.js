"use strict";
// Memory over time with what it may go with, on one axis; and the curve of each call site that is opened. The values come
// from the page itself; uPlot draws them.
(() => {
  const bytes = window.leakwatchBytes;
  const whole = (value) => (value === null || value === undefined ? "-" : String(Math.round(value)));
  const time = (seconds) => {
    if (seconds === null || seconds === undefined) return "-";
    if (seconds < 120) return Number(seconds.toFixed(1)) + " s";
    if (seconds < 7200) return Number((seconds / 60).toFixed(1)) + " min";
    return Number((seconds / 3600).toFixed(1)) + " h";
  };
  // Steps that are round in binary, and in seconds.
  const powers = Array.from({ length: 62 }, (_, power) => 2 ** power);
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
  const counts = [];
  for (let ten = 1; ten < 1e15; ten *= 10) counts.push(ten, 2 * ten, 5 * ten);

  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  let printing = false;
  const colours = () => {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(name).trim();
    return printing
      ? { ink: "#000", dim: "#444", line: "#ddd", lines: ["#1f5fbf", "#6f7883", "#c9772b"] }
      : { ink: of("--ink"), dim: of("--dim"), line: of("--line"), lines: [of("--site-0"), of("--reason-1"), of("--given-back")] };
  };

  const axis = (colour, more) => ({
    stroke: colour.dim,
    grid: { stroke: colour.line, width: 1 },
    ticks: { stroke: colour.line, width: 1 },
    font: "12px system-ui, sans-serif",
    ...more,
  });

  // One chart. `lines` are { name, values }.
  const chart = (into, t, lines, { height, figure, increments, key, from, bare }) => {
    const colour = colours();
    let end = t.length - 1;
    while (end > 0 && lines.every((line) => line.values[end] === null)) end -= 1;
    const options = {
      width: Math.max(into.clientWidth, 160),
      height,
      cursor: { sync: key ? { key } : undefined, drag: { x: true, y: false } },
      legend: { show: !bare, live: true },
      scales: {
        x: { time: false },
        y: {
          range: (_, least, most) => {
            const low = from === undefined ? least : from;
            const high = most > low ? most : low + 1;
            return [low, high + (high - low) * 0.06];
          },
        },
      },
      axes: [
        axis(colour, { values: (_, ticks) => ticks.map(time), incrs: steps, size: 28 }),
        axis(colour, { values: (_, ticks) => ticks.map(figure), incrs: increments, size: 82, space: 26 }),
      ],
      // Where the cursor is nowhere, the legend tells the end.
      hooks: {
        ready: [(plot) => plot.setLegend({ idx: end })],
        setCursor: [(plot) => { if (plot.cursor.left < 0) plot.setLegend({ idx: end }); }],
      },
      series: [
        { label: "at", value: (_, value) => time(value) },
        ...lines.map((line, index) => ({
          label: line.name,
          stroke: colour.lines[index % colour.lines.length],
          fill: index === 0 && from === 0 ? colour.lines[0] + "22" : undefined,
          width: index === 0 ? 2 : 1.5,
          spanGaps: true,
          points: { show: t.length < 40 ? undefined : false, size: 4 },
          value: (_, value) => figure(value),
        })),
      ],
    };
    return new uPlot(options, [t, ...lines.map((line) => line.values)], into);
  };

  let drawn = [];
  const draw = () => {
    for (const it of drawn) it.plot.destroy();
    drawn = [];
    const add = (into, ...rest) => drawn.push({ into, plot: chart(into, ...rest) });
    for (const into of document.querySelectorAll("#charts .chart")) {
      const lines = into.chartLines;
      const memory = into.dataset.chart === "memory";
      add(into, into.chartTimes, lines, {
        height: memory ? 260 : 110,
        figure: memory ? bytes : whole,
        increments: memory ? powers : counts,
        key: "window",
        from: undefined,
      });
    }
    for (const into of document.querySelectorAll(".site[open] .large-curve")) curve(into, add);
  };

  const numbers = (text) => (text ? text.split(" ").map(Number) : []);
  const curve = (into, add) => {
    const t = [0, ...numbers(into.dataset.t)];
    const held = [0, ...numbers(into.dataset.held)];
    add(into, t, [{ name: "kept", values: held }], { height: 150, figure: bytes, increments: powers, from: 0, bare: false });
  };

  const series = document.getElementById("series");
  const charts = document.getElementById("charts");
  if (series && charts) {
    const { t, memory, counts: counted } = JSON.parse(series.textContent);
    const panel = (kind, title, lines) => {
      if (lines.length === 0) return;
      const heading = document.createElement("h3");
      heading.textContent = title;
      const into = document.createElement("div");
      into.className = "chart";
      into.dataset.chart = kind;
      into.chartLines = lines;
      into.chartTimes = t;
      charts.append(heading, into);
    };
    panel("memory", "memory", memory);
    // Each on an axis of its own: ten threads would lie flat below ten thousand connections.
    for (const line of counted) panel("count", line.name, [line]);
  }
  draw();

  let width = window.innerWidth;
  const resize = () => {
    for (const { into, plot } of drawn) {
      plot.setSize({ width: Math.max(into.clientWidth, 160), height: plot.height });
    }
  };
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) {
      width = window.innerWidth;
      resize();
    }
  });
  dark.addEventListener("change", draw);
  window.addEventListener("beforeprint", () => { printing = true; draw(); });
  window.addEventListener("afterprint", () => { printing = false; draw(); });
  document.addEventListener(
    "toggle",
    (event) => {
      if (event.target.classList && event.target.classList.contains("site")) {
        for (const into of event.target.querySelectorAll(".large-curve")) {
          const there = drawn.findIndex((it) => it.into === into);
          if (event.target.open && there < 0) curve(into, (at, ...rest) => drawn.push({ into: at, plot: chart(at, ...rest) }));
          if (!event.target.open && there >= 0) drawn.splice(there, 1)[0].plot.destroy();
        }
      }
    },
    true,
  );
})();
