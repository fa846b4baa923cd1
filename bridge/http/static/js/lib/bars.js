/** Limits as bars: what is used, what running requests hold, and what remains. */

import { h, say } from "./dom.js";
import { compact, count, money, percent } from "./format.js";

/** From here on a bar warns. */
const CLOSE = 0.8;

const WINDOWS = [
  ["maxCostPerDay", "Cost today", "costUsd", "today"],
  ["maxCostPerMonth", "Cost this month", "costUsd", "thisMonth"],
  ["maxTokensPerDay", "Tokens today", "tokens", "today"],
  ["maxTokensPerMonth", "Tokens this month", "tokens", "thisMonth"],
  ["maxRequestsPerDay", "Requests today", "requests", "today"],
  ["maxRequestsPerMonth", "Requests this month", "requests", "thisMonth"],
];

const LABELS = Object.fromEntries(WINDOWS.map(([name, label]) => [name, label]));

/** The caps per day and month that are set: {limit, label, used, reserved, most, window}. */
export function levels(limits, usage) {
  return WINDOWS.filter(([name]) => limits[name] > 0).map(([name, label, what, window]) => ({
    limit: name,
    label,
    window,
    used: Math.max(0, usage[window][what]),
    reserved: Math.max(0, usage.reserved[what]),
    most: limits[name],
  }));
}

/** How many requests of a key run, as a bar of its own that has no window; none where their number has no limit. */
export function concurrency(limits, usage) {
  const most = limits.maxConcurrent;
  const used = Math.max(0, usage.reserved.requests);
  return most > 0 ? [{ limit: "maxConcurrent", label: "Running now", window: null, used, reserved: 0, most }] : [];
}

/** What a limit is called above its bar. */
export function labelOf(limit) {
  return LABELS[limit] ?? limit;
}

/** How much of the cap that is closest is used or held: 0 for none, above 1 where a cap was lowered. */
export function nearest(limits, usage) {
  return Math.max(0, ...levels(limits, usage).map((level) => (level.used + level.reserved) / level.most));
}

/**
 * A bar: {element, update(level)}. `full` also writes out what is reserved and what remains; `note(level)`
 * gives a line below it.
 */
export function bar({ full = false, note = null } = {}) {
  const label = h("span.bar-label");
  const figures = h("span.bar-figures");
  const used = h("span.bar-used");
  const held = h("span.bar-held");
  const track = h("div.bar-track", { role: "meter", "aria-valuemin": "0", "aria-valuemax": "100" }, used, held);
  const rest = full ? h("div.bar-rest") : null;
  const below = note ? h("div.bar-rest") : null;
  const element = h("div.bar", {}, h("div.bar-head", {}, label, figures), track, rest, below);

  function update(level) {
    const show = level.limit.startsWith("maxCost") ? money : count;
    const brief = show === money || full ? show : compact;
    const share = level.used / level.most;
    const both = (level.used + level.reserved) / level.most;
    const left = Math.max(0, level.most - level.used - level.reserved);
    say(label, level.label);
    say(figures, `${brief(level.used)} of ${brief(level.most)}`);
    if (rest) {
      say(
        rest,
        [level.reserved > 0 && `${show(level.reserved)} reserved`, `${show(left)} left`].filter(Boolean).join(" · "),
      );
    }
    if (below) say(below, note(level));
    used.style.width = `${100 * Math.min(1, share)}%`;
    held.style.width = `${100 * Math.max(0, Math.min(1, both) - Math.min(1, share))}%`;
    element.dataset.state = left === 0 ? "full" : both >= CLOSE ? "close" : "";
    track.setAttribute("aria-label", level.label);
    track.setAttribute("aria-valuenow", String(Math.round(100 * Math.min(1, both))));
    track.setAttribute(
      "aria-valuetext",
      `${show(level.used)} used, ${show(level.reserved)} reserved, ${show(left)} left of ${show(level.most)} (${percent(both)})`,
    );
    element.title = track.getAttribute("aria-valuetext");
  }

  return { element, update };
}
