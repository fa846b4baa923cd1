/** A request of the log as a row of a table, and what is said of it the same way on every page. */

import { h } from "./dom.js";
import { cost, count, duration, visible, whenExact, whenFull } from "./format.js";
import { table } from "./table.js";
import { named, statusBadge } from "./ui.js";

/**
 * A table of requests, as `table` makes it, but for `row(line, open, {key, tokens, asked})`, which makes the row
 * of one that `open()` shows in full; `asked` is a text, else the prompt is shown. `keys`: whether they are of several
 * keys, each with an element for its own, which leaves less room for the others.
 */
export function lineTable(caption, { keys = false } = {}) {
	const all = table(caption, [
		["When"],
		...(keys ? [["Key"]] : []),
		["Model"],
		["Status"],
		["Tokens", keys ? "num.roomy" : "num"],
		["Cost", "num"],
		["Took", "num"],
		["Prompt", "prompt.block"],
	]);

	function lineRow(line, open, { key = null, tokens, asked = null }) {
		const prompt = line.userPrompt === null ? h("span.muted", "not kept") : visible(line.userPrompt);
		const pressed = (event) => event.target.closest("a, button") || String(getSelection()) || open();
		return all.row(
			{ class: "line log-row", key: line.id, "data-id": line.id, onclick: pressed },
			h("button.link-button.nowrap", { title: whenFull(line.timestamp), onclick: open }, whenExact(line.timestamp)),
			...(keys ? [key] : []),
			h("span.nowrap", named(line.model)),
			statusBadge(line),
			count(tokens),
			cost(line.costUsd),
			line.durationMs ? duration(line.durationMs) : "–",
			h("bdi.truncate.small.muted", asked ?? prompt),
		);
	}

	return { ...all, row: lineRow };
}

/** How it ended: [term, text, what is shown]. */
export function statusOf(line) {
	return ["Status", `${line.status}${line.code ? ` ${visible(line.code)}` : ""}`, statusBadge(line)];
}

/** What it cost. */
export function costOf(line) {
	return `${cost(line.costUsd)}${line.assumed ? " (assumed: it broke off without a bill)" : ""}`;
}

/** An id, to be shown as such. */
export function mono(text) {
	return text && h("span.mono", visible(text));
}
