/** Keys: everybody's limits and usage at one glance; making, disabling, finding. */

import { bars, levels, nearest } from "../lib/bars.js";
import { fill, h, icon, say } from "../lib/dom.js";
import { ago, compact, count, money, plural, timeElement, visible } from "../lib/format.js";
import { poll } from "../lib/poll.js";
import { table } from "../lib/table.js";
import { badge, button, emptyState, searchBox, select } from "../lib/ui.js";
import { createKey } from "./keyform.js";
import { keyLink, keyPage, keyPath } from "./links.js";
import { PAGE, focusRow, showMore } from "./more.js";
import { act, look } from "./session.js";

const EVERY_MS = 5000;
const ORDERS = {
	closest: ["Closest to a cap", (key) => -nearest(key.limits, key.usage)],
	name: ["Name", () => 0],
	today: ["Cost today", (key) => -key.usage.today.costUsd],
	month: ["Cost this month", (key) => -key.usage.thisMonth.costUsd],
	used: ["Last used", (key) => -Date.parse(key.lastUsedAt ?? 0)],
};

export function show({ head, body }) {
	const search = searchBox("Search keys", "Search by name or note", arrange);
	const sort = select(
		Object.entries(ORDERS).map(([id, [label]]) => [id, `Sort: ${label}`]),
		"closest",
		{ "aria-label": "Sort keys", onchange: arrange },
	);
	const revoked = h("input", { type: "checkbox", onchange: () => watch.now() });
	const summary = h("span.muted.small", { role: "status" });
	head.append(button([icon("plus"), "New key"], make, ".primary"));
	const list = table("Keys", [
		["Key", "block"],
		["Limits", "block"],
		["Today", "num"],
		["This month", "num"],
		["Last used"],
		["", "num.block"],
	]);
	const bar = h(
		"div.toolbar",
		search.element,
		sort,
		h("label.check.small", revoked, "Show revoked keys"),
		h("span.row.end", summary),
	);
	fill(body, h("div", bar, h("section.card.flush", list.element)));
	let keys = null;
	let order = [];
	let most = PAGE;
	/** Name -> what its row says, and the row: of hundreds, only those that say something else are made anew. */
	const made = new Map();

	const watch = poll(
		async (signal) => {
			const answer = await look(`/admin/keys${revoked.checked ? "?revoked=1" : ""}`, signal);
			const others = keys === null || namesOf(answer.keys) !== namesOf(keys);
			keys = answer.keys;
			// Rows keep their places while figures change; only a new choice or another set of keys sorts anew.
			if (others) arrange();
			else render();
		},
		EVERY_MS,
		list.element,
	);

	function arrange() {
		if (keys === null) return;
		most = PAGE;
		const worth = ORDERS[sort.value][1];
		order = keys
			.filter((key) => search.finds(key.name, key.note))
			.sort((one, other) => worth(one) - worth(other) || (one.name < other.name ? -1 : 1))
			.map((key) => key.name);
		render();
	}

	function render() {
		const byName = new Map(keys.map((key) => [key.name, key]));
		const found = order.map((name) => byName.get(name)).filter(Boolean);
		const all = plural(keys.length, "key");
		say(summary, found.length === keys.length ? all : `${count(found.length)} of ${all}`);
		const shown = found.slice(0, most).map((key) => [key, saying(key)]);
		const rows = shown.map(([key, says]) => {
			const [said, row] = made.get(key.name) ?? [];
			return said === says && row.parentNode === list.body ? row : keyRow(key);
		});
		list.show(rows, nothing(), showMore(found.length - most, "key", grow));
		shown.forEach(([key, says], place) => made.set(key.name, [says, list.body.children[place]]));
	}

	/** All that its row is made of. */
	function saying({ status, note, limits, usage, lastUsedAt }) {
		return JSON.stringify([status, note, limits, usage, lastUsedAt, lastUsedAt && ago(lastUsedAt)]);
	}

	function nothing() {
		if (keys.length) return emptyState("No key matches", "Try a part of its name or of its note.");
		return emptyState(
			"There are no keys yet",
			"So nobody can use the bridge. Make a key for each person or script; each has limits of its own.",
			button([icon("plus"), "Make the first key"], make, ".primary"),
		);
	}

	function grow() {
		const first = most;
		most += PAGE;
		render();
		focusRow(list.body, first);
	}

	async function make() {
		const name = await createKey();
		if (name) location.hash = keyPage(name);
		else watch.now();
	}

	function keyRow(key) {
		const { today, thisMonth } = key.usage;
		const caps = levels(key.limits, key.usage);
		const used = `${plural(today.requests, "request")}, ${plural(today.tokens, "token", compact)}`;
		const toggle = key.status === "disabled" ? "Enable" : "Disable";
		const turn = () => change(key.name, toggle.toLowerCase(), watch);
		return list.row(
			{ key: key.name },
			[h("div.row", keyLink(key.name), keyBadge(key)), h("div.small.muted", visible(key.note))],
			caps.length ? h("div.bars", bars(caps)) : h("span.small.muted", "No cap per day or month"),
			h("div", money(today.costUsd), h("div.small.muted", used)),
			money(thisMonth.costUsd),
			h("span.nowrap", key.lastUsedAt ? timeElement(key.lastUsedAt) : "never"),
			key.status !== "revoked" && button(toggle, turn, ".small", { "aria-label": `${toggle} ${key.name}` }),
		);
	}

	return watch.stop;
}

/** What is not usual of a key, as a label. */
export function keyBadge({ status }) {
	return status !== "active" && badge(status, status === "revoked" ? "" : "warn");
}

function namesOf(keys) {
	return keys.map((key) => key.name).sort().join();
}

/** Disable or enable a key, and offer to take it back. */
export async function change(name, action, watch) {
	const [other, besides] = action === "disable" ? ["enable", "; what it has running goes on"] : ["disable", ""];
	const undo = () => change(name, other, watch);
	await act("POST", keyPath(name, `/${action}`), `${name} is ${action}d${besides}.`, { undo, subject: `key ${name}` });
	watch.now();
}
