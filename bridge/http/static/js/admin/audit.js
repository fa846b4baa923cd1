/** Audit: who changed what, when, and from where. */

import { query } from "../lib/api.js";
import { fill, h, icon } from "../lib/dom.js";
import { visible, whenExact, whenFull } from "../lib/format.js";
import { cell, row, table } from "../lib/table.js";
import { busy, button, download, emptyState, errorBox, focusOn, named, skeleton, toast } from "../lib/ui.js";
import { keyLink, requestPage } from "./links.js";
import { call } from "./session.js";

const PAGE = 50;
const ACTIONS = {
	key_created: "made the key",
	key_changed: "changed the key",
	key_revoked: "revoked the key",
	key_rotated: "rotated the key",
	key_disabled: "disabled the key",
	key_enabled: "enabled the key",
	credential_added: "added the credential",
	credential_changed: "changed the credential",
	credential_removed: "removed the credential",
	credential_enabled: "enabled the credential",
	credential_disabled: "disabled the credential",
	credential_reset: "let be tried again the credential",
	usage_reset: "reset the usage of",
	run_stopped: "stopped the request",
	logs_exported: "exported the log as",
	loop_suspected: "paused, for a suspected loop, the key",
	link_made: "made a link that logs in once",
	logged_in: "logged in",
	logged_out: "logged out",
	sessions_ended: "ended all sessions",
};
const ALONE = new Set(["link_made", "logged_in", "logged_out", "sessions_ended"]);

export const title = () => "Audit";

export function show({ head, body, query: given }) {
	const refresh = button("Refresh", () => load(null));
	const text = h("input", {
		type: "search",
		"aria-label": "Search the audit",
		placeholder: "Who or what",
		value: given.get("text") ?? "",
	});
	const saving = button("Save as JSONL", () => busy(saving, save));
	head.append(h("div.row", refresh, saving));
	const { element, body: rows } = table("Changes by admins", [["When"], ["Who"], ["What"], ["From"]]);
	const box = h("section.card.flush", skeleton(6));
	const older = button("Show older", () => busy(older, () => load(next)));
	const more = h("div.pager", { hidden: true }, older);
	const error = h("div");
	const form = h(
		"form.toolbar",
		{ role: "search", onsubmit: search },
		h("div.searchbox", icon("search"), text),
		button("Search"),
	);
	fill(body, h("div.stack", form, error, box));
	// Each look has a number: what an older one brings later is not shown.
	let turn = 0;
	let next = null;

	function search(event) {
		event.preventDefault();
		history.replaceState(null, "", `#/audit${query({ text: text.value.trim() })}`);
		load(null);
	}

	function ask(before, limit) {
		return call("GET", `/admin/audit${query({ limit, before, text: text.value.trim() })}`);
	}

	async function load(before) {
		const mine = before === null ? ++turn : turn;
		let answer;
		try {
			answer = await ask(before, PAGE);
		} catch (failure) {
			if (mine === turn)
				fill(error, errorBox(failure, () => load(before)));
			return;
		}
		if (mine !== turn) return;
		fill(error);
		if (before === null) rows.replaceChildren();
		const fresh = answer.audit.map(entryRow);
		rows.append(...fresh);
		if (rows.childElementCount) fill(box, element, more);
		else if (text.value.trim()) fill(box, emptyState("Nothing matches", "No change has this anywhere."));
		else
			fill(
				box,
				emptyState(
					"Nothing was changed yet",
					"Every change of a key, every log-in and every stopped request is written down here.",
				),
			);
		if (before !== null) focusOn(fresh[0]);
		next = answer.next;
		more.hidden = !next;
	}

	/** All entries that the search leaves, newest first, one a line. */
	async function save() {
		const lines = [];
		try {
			let before = null;
			do {
				const answer = await ask(before, 1000);
				lines.push(...answer.audit.map((entry) => `${JSON.stringify(entry)}\n`));
				before = answer.next;
			} while (before);
		} catch (failure) {
			toast(failure.message);
			return;
		}
		download("cli-bridge-audit.jsonl", "application/x-ndjson", lines);
	}

	load(null);
	return () => {
		turn += 1;
	};
}

function entryRow(entry) {
	const { keyName, ...before } = entry.action === "run_stopped" ? (entry.before ?? {}) : {};
	const changes = differences(entry.action === "run_stopped" ? before : entry.before, entry.after);
	return row(
		{ tabindex: "-1" },
		cell("When", h("time.nowrap", { datetime: entry.at, title: whenFull(entry.at) }, whenExact(entry.at))),
		cell("Who", named(entry.actor)),
		cell("", [
			h(
				"div",
				ACTIONS[entry.action] ?? visible(entry.action),
				" ",
				ALONE.has(entry.action) ? null : subject(entry),
				keyName && [" of the key ", keyLink(keyName)],
			),
			changes.map((change) => h("div.small.muted", h("bdi", change))),
		]),
		cell("From", h("span.mono", visible(entry.address || "this host"))),
	);
}

/** What was changed, with a link to it where it has a page. */
function subject({ action, subject: name }) {
	if (action.startsWith("key_") || action === "usage_reset" || action === "loop_suspected") return keyLink(name);
	if (action === "run_stopped") return h("a.mono", { href: requestPage(name) }, visible(name));
	return h("strong", named(name));
}

/** What is not the same before and after, one line each. */
function differences(before, after) {
	const [old, now] = [flat(before), flat(after)];
	return [...new Set([...Object.keys(old), ...Object.keys(now)])]
		.filter((name) => old[name] !== now[name])
		.map((name) => {
			const [was, is] = [old[name], now[name]].map((value) => (value === undefined ? null : visible(value)));
			if (was === null) return `${visible(name)}: ${is}`;
			return is === null ? `${visible(name)} was ${was}` : `${visible(name)}: ${was} → ${is}`;
		});
}

function flat(value, prefix = "") {
	if (value === null || value === undefined || value === "") return {};
	if (typeof value !== "object") return { [prefix || "value"]: String(value) };
	if (Array.isArray(value)) return { [prefix]: value.join(", ") || "none" };
	return Object.assign(
		{},
		...Object.entries(value).map(([name, each]) =>
			flat(each, prefix && prefix !== "limits" ? `${prefix}.${name}` : name),
		),
	);
}
