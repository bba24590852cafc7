"use strict";
// Sizes as the text report writes them, for the scripts that show figures of their own.
(() => {
  const units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
  window.leakwatchBytes = (value) => {
    if (value === null || value === undefined) return "-";
    let left = Math.abs(value);
    const sign = value < 0 ? "-" : "";
    if (left < 1024) return sign + Math.round(left) + " B";
    let unit = "B";
    for (const next of units) {
      if (unit !== "B" && left < 1023.95) break;
      left /= 1024;
      unit = next;
    }
    return sign + left.toFixed(1) + " " + unit;
  };
})();
