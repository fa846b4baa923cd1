/** Who spent what on what: a choice of days, and a table of what they add up to, dearest first. */

import { fill, h } from "./dom.js";
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
	const { element, body, row, show } = table(caption, [
		[label, "block"],
		["Cost", "num"],
		["Share", "num"],
		["Requests", "num"],
		["Tokens", "num"],
		["Errors", "num"],
	]);
	const foot = h("tfoot", { role: "rowgroup" });
	body.after(foot);
	const empty = emptyState("Nothing was used", "No request in these days has cost anything or been counted.");
	let shown = null;

	function update(answer, by) {
		const now = JSON.stringify([answer, by]);
		if (now === shown) return;
		shown = now;
		const opened = new Set([...body.querySelectorAll("[aria-expanded=true]")].map((each) => each.dataset.name));
		const left = document.activeElement.dataset.name;
		body.replaceChildren();
		show(answer.rows.map((share) => shareRow(share, by, answer.total, opened)), empty);
		fill(foot, figuresRow(h("span.strong", "Total"), answer.total, answer.total, "total"));
		[...body.querySelectorAll("button")].find((each) => each.dataset.name === left)?.focus();
	}

	function shareRow(share, by, total, opened) {
		const known = share[by] !== null;
		const name = link && known ? h("a.key-name", { href: link(share) }, nameOf(by, share)) : nameOf(by, share);
		if (!open) return figuresRow(name, share, total);
		if (!known) return figuresRow([h("span.expand"), name], share, total);
		const id = JSON.stringify(share[by]);
		const button = h("button.expand", {
			"aria-expanded": "false",
			"aria-label": `What ${share[by]} is made of`,
			"data-name": id,
			onclick: toggle,
		});
		const line = figuresRow([button, name], share, total);
		let below = [];

		async function toggle() {
			const opens = button.getAttribute("aria-expanded") !== "true";
			button.setAttribute("aria-expanded", String(opens));
			for (const each of below) each.remove();
			below = [];
			const inner = opens && (await open(share));
			if (!inner || button.getAttribute("aria-expanded") !== "true" || below.length) return;
			below = inner.rows.map((each) => figuresRow(h("span.inner-name", nameOf(inner.by, each)), each, share, "inner"));
			line.after(...below);
		}

		if (opened.has(id)) toggle();
		return line;
	}

	function figuresRow(name, share, total, kind = "") {
		const part = total.costUsd > 0 ? share.costUsd / total.costUsd : 0;
		const width = { style: { width: `${100 * part}%` } };
		const line = row(
			{ class: `spent ${kind}` },
			h("div.row.nowrap-row", name),
			money(share.costUsd),
			[h("span.share-bar", { "aria-hidden": "true" }, h("span", width)), h("span", percent(part))],
			count(share.requests),
			compact(share.tokens),
			share.errors ? count(share.errors) : "–",
		);
		// On a narrow screen the number has its unit behind it.
		line.querySelector("[data-label=Requests]").dataset.unit = share.requests === 1 ? "request" : "requests";
		return line;
	}

	return { element, update };
}
