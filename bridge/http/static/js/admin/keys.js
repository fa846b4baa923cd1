/** Keys: everybody's limits and usage at one glance; making, disabling, finding. */

import { levels, nearest, showBars } from "../lib/bars.js";
import { fill, h, icon, keyed, refill, say } from "../lib/dom.js";
import { compact, count, money, plural, timeElement, visible } from "../lib/format.js";
import { poll } from "../lib/poll.js";
import { cell, row, table } from "../lib/table.js";
import { badge, busy, button, emptyState, searchBox, select, skeleton, toast } from "../lib/ui.js";
import { createKey } from "./keyform.js";
import { keyLink, keyPage, keyPath } from "./links.js";
import { call, look } from "./session.js";

const EVERY_MS = 5000;
/** Rows at once: more of them would hold the page up. */
const PAGE = 50;
const KINDS = { disabled: "warn", expired: "warn", revoked: "" };
const ORDERS = {
	closest: ["Closest to a cap", (key) => -nearest(key.limits, key.usage)],
	name: ["Name", () => 0],
	today: ["Cost today", (key) => -key.usage.today.costUsd],
	month: ["Cost this month", (key) => -key.usage.thisMonth.costUsd],
	used: ["Last used", (key) => -Date.parse(key.lastUsedAt ?? 0)],
};

export const title = () => "Keys";

export function show({ head, body, session }) {
	const search = searchBox("Search keys", "Search by name or note", arrange);
	const sort = select(
		Object.entries(ORDERS).map(([id, [label]]) => [id, `Sort: ${label}`]),
		"closest",
		{ "aria-label": "Sort keys", onchange: arrange },
	);
	const revoked = h("input", { type: "checkbox", onchange: () => watch.now() });
	const summary = h("span.muted.small", { role: "status" });
	head.append(button([icon("plus"), "New key"], make, ".primary"));
	const { element, body: rows } = table("Keys", [
		["Key"],
		["Limits"],
		["Today", "num"],
		["This month", "num"],
		["Last used"],
		[""],
	]);
	const box = h("section.card.flush", skeleton(6));
	fill(
		body,
		h(
			"div",
			h(
				"div.toolbar",
				search.element,
				sort,
				h("label.check.small", revoked, "Show revoked keys"),
				h("span.row.end", summary),
			),
			box,
		),
	);
	const more = button("Show more", showMore);
	const pager = h("div.pager", { hidden: true }, more);
	let keys = null;
	let order = [];
	let most = PAGE;

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
		box,
	);

	function arrange() {
		if (keys === null) return;
		most = PAGE;
		const wanted = search.text().toLowerCase();
		const worth = ORDERS[sort.value][1];
		order = keys
			.filter((key) => `${key.name}\n${key.note}`.toLowerCase().includes(wanted))
			.sort((one, other) => worth(one) - worth(other) || (one.name < other.name ? -1 : 1))
			.map((key) => key.name);
		render();
	}

	function render() {
		const byName = new Map(keys.map((key) => [key.name, key]));
		const shown = order.map((name) => byName.get(name)).filter(Boolean);
		say(
			summary,
			shown.length === keys.length
				? plural(keys.length, "key")
				: `${count(shown.length)} of ${plural(keys.length, "key")}`,
		);
		pager.hidden = shown.length <= most;
		say(more, `Show ${plural(Math.min(PAGE, shown.length - most), "more key")}`);
		if (shown.length) {
			if (!element.isConnected) fill(box, element, pager);
		} else if (keys.length) {
			fill(box, emptyState("No key matches", "Try a part of its name or of its note."));
		} else {
			fill(
				box,
				emptyState(
					"There are no keys yet",
					"So nobody can use the bridge. Make a key for each person or script; each has limits of its own.",
					button([icon("plus"), "Make the first key"], make, ".primary"),
				),
			);
		}
		keyed(rows, shown.slice(0, most), "name", (key) => keyRow(key, watch));
	}

	function showMore() {
		const first = most;
		most += PAGE;
		render();
		rows.children[first]?.querySelector("a").focus();
	}

	async function make() {
		const name = await createKey(session);
		if (name) location.hash = keyPage(name);
		else watch.now();
	}

	return watch.stop;
}

function namesOf(keys) {
	return keys.map((key) => key.name).sort().join();
}

function keyRow(first, watch) {
	const state = h("span");
	const note = h("div.small.muted");
	const bars = h("div.bars");
	const unlimited = h("span.small.muted");
	const [today, requests, month, used] = [h("div"), h("div.small.muted"), h("span"), h("span.nowrap")];
	const toggle = h("button.button.small", { onclick: () => busy(toggle, act) });
	let key = first;

	async function act() {
		const action = key.status === "disabled" ? "enable" : "disable";
		try {
			await change(first.name, action, watch);
		} catch (error) {
			toast(error.message);
		}
	}

	return {
		element: row(
			{},
			cell("", [h("div.row", keyLink(first.name), state), note]),
			cell("", [bars, unlimited]),
			cell("Today", h("div", today, requests), "num"),
			cell("This month", month, "num"),
			cell("Last used", used),
			cell("", toggle, "num"),
		),
		update(now) {
			key = now;
			refill(state, key.status, key.status !== "active" && badge(key.status, KINDS[key.status]));
			say(note, visible(key.note));
			const shown = levels(key.limits, key.usage);
			showBars(bars, shown);
			say(unlimited, shown.length ? "" : "No cap per day or month");
			say(today, money(key.usage.today.costUsd));
			say(
				requests,
				`${plural(key.usage.today.requests, "request")}, ${plural(key.usage.today.tokens, "token", compact)}`,
			);
			say(month, money(key.usage.thisMonth.costUsd));
			fill(used, key.lastUsedAt ? timeElement(key.lastUsedAt) : "never");
			toggle.hidden = key.status === "revoked";
			say(toggle, key.status === "disabled" ? "Enable" : "Disable");
			toggle.setAttribute("aria-label", `${toggle.textContent} ${key.name}`);
		},
	};
}

/** Disable or enable a key, and offer to take it back. Throws ApiError. */
export async function change(name, action, watch) {
	await call("POST", keyPath(name, `/${action}`));
	watch.now();
	const other = action === "disable" ? "enable" : "disable";
	const undo = { label: "Undo", run: () => change(name, other, watch).catch((error) => toast(error.message)) };
	toast(`${name} is ${action}d${action === "disable" ? "; what it has running goes on" : ""}.`, undo, `key ${name}`);
}
