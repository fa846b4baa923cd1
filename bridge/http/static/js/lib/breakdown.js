/** Who spent what on what: a choice of days, and a table of what they add up to, dearest first. */

import { h, redraw } from "./dom.js";
import { calendarDay, compact, count, day, money, percent } from "./format.js";
import { table } from "./table.js";
import { emptyState, field, named, segmented } from "./ui.js";

/** Ranges of days up to today: name in the address, label, days; this month and other days have no number of them. */
const RANGES = [
	["today", "Today", 1],
	["7", "7 days", 7],
	["30", "30 days", 30],
	["90", "90 days", 90],
	["month", "This month"],
	["days", "From – to"],
];
const USUAL = "7";

/**
 * {element, range()}: buttons for ranges of days, and fields for others. `zone` is the one in which the server's days
 * begin; `given` has what the address says (`range`, `from`, `to`); `changed(values)` gets what it shall say.
 */
export function dayRange(zone, given, changed) {
	let chosen = RANGES.some(([name]) => name === given.range) ? given.range : USUAL;
	const today = calendarDay(zone);
	const from = h("input", { type: "date", max: today, value: given.from || calendarDay(zone, 6), onchange: told });
	const to = h("input", { type: "date", max: today, value: given.to || today, onchange: told });
	const fields = h("div.row.day-fields", { hidden: chosen !== "days" }, field("From", from), field("To", to));
	const problem = h("p.notice.warn", { role: "alert", hidden: true }, "The first day lies after the last one.");
	const choice = segmented("Days", RANGES, chosen, (next) => {
		chosen = next;
		fields.hidden = chosen !== "days";
		told();
	});

	/** The first and the last day. */
	function range() {
		const now = calendarDay(zone);
		if (chosen === "days") return { from: from.value || now, to: to.value || now };
		if (chosen === "month") return { from: `${now.slice(0, 8)}01`, to: now };
		const [, , days] = RANGES.find(([name]) => name === chosen);
		return { from: calendarDay(zone, days - 1), to: now };
	}

	function told() {
		const { from: first, to: last } = range();
		problem.hidden = first <= last;
		if (problem.hidden) changed(chosen === "days" ? { range: chosen, from: first, to: last } : { range: chosen });
	}

	return { element: h("div.stack.tight", choice, fields, problem), range };
}

/** The days of a range in words. */
export function rangeText({ from, to }, zone) {
	const days = from === to ? day(from) : `${day(from)} to ${day(to)}`;
	return `${days}, midnight to midnight in ${zone}`;
}

/** What a row is about, by what it is broken down by; what is not known says why. */
function nameOf(by, share) {
	const name = share[by];
	const provider = by === "model" && share.provider && h("span.small.muted.provider-name", ` ${share.provider}`);
	if (name !== null) return h("span", named(name), provider);
	const text = by === "credential" ? "not named" : "not known";
	return h("span.muted", { title: "Of days before this was kept, or from another program" }, text);
}

/**
 * A table of a breakdown: {element, update(answer, by)}. `open(share)` gives the breakdown below a row, as the API
 * answers it, and by what it is; without it rows do not open. `link(share)` is the address that a name leads to.
 */
export function breakdownTable(caption, label, { open = null, link = null } = {}) {
	const figures = ["Cost", "Share", "Requests", "Tokens", "Errors"].map((each) => [each, "num"]);
	const { element, body, row, show } = table(caption, [[label, "block"], ...figures]);
	const foot = h("tfoot", { role: "rowgroup" });
	body.after(foot);
	const empty = emptyState("Nothing was used", "No request in these days has cost anything or been counted.");
	/** What the rows are made of that are open, by their keys; null while that is on its way. */
	const opened = new Map();
	let current = {};
	let shown = "";

	function update(answer, by) {
		const now = JSON.stringify([answer, by]);
		if (now === shown) return;
		shown = now;
		if (by !== current.by) opened.clear();
		current = { ...answer, by };
		for (const share of answer.rows) if (opened.has(keyOf(share))) load(share);
		draw();
	}

	/** What tells a row from the others: two providers may have had the same name of a model. */
	function keyOf(share) {
		return JSON.stringify([share.provider, share[current.by]]);
	}

	function toggle(share) {
		const key = keyOf(share);
		if (!opened.delete(key)) {
			opened.set(key, null);
			load(share);
		}
		draw();
	}

	async function load(share) {
		const outer = current;
		const inner = await open(share);
		// Where other days are shown by now, they were asked about anew.
		if (!inner || outer !== current || !opened.has(keyOf(share))) return;
		opened.set(keyOf(share), inner);
		draw();
	}

	function draw() {
		const { rows, total } = current;
		show(rows.map(shareRows), empty);
		redraw(foot, figuresRow(h("span.strong", "Total"), total, total, { class: "spent total" }));
	}

	/** The row of a share, and those of what it is made of where it is open. */
	function shareRows(share) {
		const { by, total } = current;
		const key = keyOf(share);
		const known = share[by] !== null;
		const attributes = {
			"aria-expanded": String(opened.has(key)),
			"aria-label": `What ${share[by]} is made of`,
			onclick: () => toggle(share),
		};
		const expand = open && h(known ? "button.expand" : "span.expand", known ? attributes : {});
		const name = link && known ? h("a.key-name", { href: link(share) }, nameOf(by, share)) : nameOf(by, share);
		const inner = opened.get(key);
		return [
			figuresRow([expand, name], share, total, { class: "spent", key }),
			inner?.rows.map((each) =>
				figuresRow(h("span.inner-name", nameOf(inner.by, each)), each, share, { class: "spent inner" }),
			),
		];
	}

	function figuresRow(name, share, total, attributes) {
		const part = total.costUsd > 0 ? share.costUsd / total.costUsd : 0;
		const used = h("span.bar-used", { style: { width: `${100 * part}%` } });
		return row(
			attributes,
			h("div.row.nowrap-row", name),
			money(share.costUsd),
			[h("span.bar-track.share-bar", { "aria-hidden": "true" }, used), h("span", percent(part))],
			[count(share.requests), h("span.unit", share.requests === 1 ? " request" : " requests")],
			compact(share.tokens),
			share.errors ? count(share.errors) : "–",
		);
	}

	return { element, update };
}
