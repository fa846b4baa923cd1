/** Limits as bars: what is used, what running requests hold, and what remains. */

import { h, keyed, say } from "./dom.js";
import { compact, count, money, percent, plural } from "./format.js";
import { LIMITS } from "./registry.js";

/** From here on a bar warns. */
const CLOSE = 0.8;

/**
 * The limits that hold and of which a part is used: {limit, label, unit, used, reserved, most, window}. With
 * `running`, also how many requests run at once, which has no window.
 */
export function levels(limits, usage, { running = false } = {}) {
	return LIMITS.filter((row) => limits[row.name] > 0 && (row.window === "reserved" ? running : row.window)).map(
		(row) => ({
			limit: row.name,
			label: row.title,
			unit: row.unit,
			window: row.window === "reserved" ? null : row.window,
			used: Math.max(0, usage[row.window][row.field]),
			reserved: row.window === "reserved" ? 0 : Math.max(0, usage.reserved[row.field]),
			most: limits[row.name],
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

/** Where this month is going, for a limit of the month: a sentence; empty where it is too early to say. */
export function outlook(level, forecast) {
	if (level.window !== "thisMonth" || !forecast) return "";
	const { field } = LIMITS.find((row) => row.name === level.limit);
	const most = forecast[field];
	const over = most > level.most ? ": more than the limit" : "";
	return `At this pace about ${amount(level.unit, most)} by the end of the month${over}`;
}

/** Bring the bars in an element in step with some levels; `options` are those of `bar`. */
export function showBars(container, all, options) {
	keyed(container, all, "limit", () => bar(options));
}

/**
 * A bar: {element, update(level)}. `full` also writes out what is reserved and what remains; `note(level)`
 * gives a text below it. A level's `line` (0 to 1), if it has one, is marked on it.
 */
export function bar({ full = false, note = null } = {}) {
	const label = h("span.bar-label");
	const figures = h("span.bar-figures");
	const used = h("span.bar-used");
	const held = h("span.bar-held");
	const line = h("span.bar-line", { hidden: true });
	const track = h("div.bar-track", { role: "meter", "aria-valuemin": "0", "aria-valuemax": "100" }, used, held);
	const rest = full ? h("div.bar-rest") : null;
	const below = note ? h("div.bar-rest") : null;
	const element = h("div.bar", h("div.bar-head", label, figures), h("div.bar-scale", track, line), rest, below);

	function update(level) {
		const show = level.unit === "dollars" ? money : count;
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
		line.hidden = typeof level.line !== "number";
		if (!line.hidden) line.style.left = `${100 * level.line}%`;
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
