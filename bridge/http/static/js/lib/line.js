/** A request of the log as a row of a table, and what is said of it the same way on every page. */

import { h } from "./dom.js";
import { cost, count, duration, visible, whenExact, whenFull } from "./format.js";
import { cell, row } from "./table.js";
import { named, statusBadge } from "./ui.js";

/** The columns of a table of requests; `key`: whether they are of several keys, which leaves less room for the others. */
export function lineColumns({ key = false } = {}) {
	return [
		["When"],
		...(key ? [["Key"]] : []),
		["Model"],
		["Status"],
		["Tokens", key ? "num.roomy" : "num"],
		["Cost", "num"],
		["Took", "num"],
		["Prompt"],
	];
}

/** The row of a request, which `open()` shows in full. `key` is an element; `asked` a text, else the prompt is shown. */
export function lineRow(line, open, { key = null, tokens, asked = null }) {
	const prompt = line.userPrompt === null ? h("span.muted", "not kept") : visible(line.userPrompt);
	const time = h(
		"button.link-button.nowrap",
		{ title: whenFull(line.timestamp), onclick: open },
		whenExact(line.timestamp),
	);
	const pressed = (event) => event.target.closest("a, button") || String(getSelection()) || open();
	return row(
		{ class: "line log-row", "data-id": line.id, onclick: pressed },
		cell("When", time),
		key && cell("Key", key),
		cell("Model", h("span.nowrap", named(line.model))),
		cell("Status", statusBadge(line)),
		cell("Tokens", count(tokens), key ? "num.roomy" : "num"),
		cell("Cost", cost(line.costUsd), "num"),
		cell("Took", line.durationMs ? duration(line.durationMs) : "–", "num"),
		cell("", h("bdi.truncate.small.muted", asked ?? prompt), "prompt"),
	);
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
