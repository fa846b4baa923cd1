/** Limits as bars: what is used, what running requests hold, and what remains. */

import { h } from "./dom.js";
import { compact, count, money, percent, plural, resets } from "./format.js";
import { LIMITS } from "./registry.js";

/** From here on a bar warns. */
const CLOSE = 0.8;

/**
 * The limits that hold and of which a part is used: {limit, label, unit, used, reserved, most, window}. With
 * `running`, also how many requests run at once, which has no window.
 */
export function levels(limits, usage, { running = false } = {}) {
	return LIMITS.filter(({ name, window }) => limits[name] > 0 && (window === "reserved" ? running : window)).map(
		({ name, title, unit, window, field }) => ({
			limit: name,
			label: title,
			unit,
			window: window === "reserved" ? null : window,
			used: Math.max(0, usage[window][field]),
			reserved: window === "reserved" ? 0 : Math.max(0, usage.reserved[field]),
			most: limits[name],
		}),
	);
}

/** The other limits that hold, in words: "20 requests per minute". `shown` are the levels that have a bar. */
export function otherLimits(limits, shown) {
	const bars = shown.map((level) => level.limit);
	return LIMITS.filter((row) => limits[row.name] > 0 && !bars.includes(row.name)).map(
		(row) => `${amount(row.unit, limits[row.name])} ${row.label}`,
	);
}

function amount(unit, value) {
	return unit === "dollars" ? money(value) : plural(value, unit.replace(/s$/, ""));
}

/** How much of the cap that is closest is used or held: 0 for none, above 1 where a cap was lowered. */
export function nearest(limits, usage) {
	return Math.max(0, ...levels(limits, usage).map((level) => (level.used + level.reserved) / level.most));
}

/** When the window of a level resets, and where the month is going, as far as that can be said. */
export function levelNote({ limit, unit, window, most }, { resetsAt, forecast }, zone) {
	const ends = resets(resetsAt[window], zone);
	if (window !== "thisMonth" || !forecast) return ends;
	const { field } = LIMITS.find((row) => row.name === limit);
	const over = forecast[field] > most ? ": more than the limit" : "";
	return `${ends}. At this pace about ${amount(unit, forecast[field])} by the end of the month${over}`;
}

/**
 * A bar for each of some levels. `full` also writes out what is reserved and what remains; `note(level)` gives a text
 * below it. A level's `line` (0 to 1), if it has one, is marked on it.
 */
export function bars(all, { full = false, note = null } = {}) {
	return all.map((level) => bar(level, full, note));
}

function bar(level, full, note) {
	const show = level.unit === "dollars" ? money : count;
	const brief = show === money || full ? show : compact;
	const used = Math.min(1, level.used / level.most);
	const both = (level.used + level.reserved) / level.most;
	const left = Math.max(0, level.most - level.used - level.reserved);
	const rest = [level.reserved > 0 && `${show(level.reserved)} reserved`, `${show(left)} left`].filter(Boolean);
	const figures = [`${show(level.used)} used`, `${show(level.reserved)} reserved`, `${show(left)} left`];
	const inWords = `${figures.join(", ")} of ${show(level.most)} (${percent(both)})`;
	const meter = {
		role: "meter",
		"aria-valuemin": "0",
		"aria-valuemax": "100",
		"aria-label": level.label,
		"aria-valuenow": Math.round(100 * Math.min(1, both)),
		"aria-valuetext": inWords,
	};
	return h(
		"div.bar",
		{ key: level.limit, title: inWords, "data-state": left === 0 ? "full" : both >= CLOSE ? "close" : "" },
		h(
			"div.bar-head",
			h("span.bar-label", level.label),
			h("span.bar-figures", `${brief(level.used)} of ${brief(level.most)}`),
		),
		h(
			"div.bar-scale",
			h("div.bar-track", meter, part("used", "width", used), part("held", "width", Math.min(1, both) - used)),
			level.line !== undefined && part("line", "left", level.line),
		),
		full && h("div.bar-rest", rest.join(" · ")),
		note && h("div.bar-rest", note(level)),
	);
}

/** A part of a bar, with a share from 0 to 1 as its width or place. */
function part(name, side, share) {
	return h(`span.bar-${name}`, { style: { [side]: `${100 * Math.max(0, share)}%` } });
}
