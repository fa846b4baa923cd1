/** Audit: who changed what, when, and from where. */

import { query } from "../lib/api.js";
import { fill, h } from "../lib/dom.js";
import { visible, whenExact, whenFull } from "../lib/format.js";
import { table } from "../lib/table.js";
import { button, download, emptyState, named, searchBox, toast } from "../lib/ui.js";
import { keyLink, requestPage } from "./links.js";
import { pages } from "./more.js";
import { call } from "./session.js";

/** What was done, where its name does not say so: `key_rotated` is "rotated the key". */
const ACTIONS = {
	key_created: "made the key",
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

export function show({ head, body, query: given }) {
	const search = searchBox("Search the audit", "Who or what", look, given.get("text") ?? "");
	head.append(h("div.row", button("Refresh", () => entries.load()), button("Save as JSONL", save)));
	const list = table("Changes by admins", [["When"], ["Who"], ["What", "block"], ["From"]]);
	const entries = pages(list.body, ask, draw);
	const toolbar = h("div.toolbar", { role: "search" }, search.element);
	fill(body, h("div.stack", toolbar, entries.error, h("section.card.flush", list.element)));
	entries.load();

	function look() {
		history.replaceState(null, "", `#/audit${query({ text: search.text() })}`);
		entries.load();
	}

	async function ask(wanted) {
		const path = `/admin/audit${query({ ...wanted, text: search.text() })}`;
		const { audit: lines, next } = await call("GET", path);
		return { lines, next };
	}

	function draw(lines) {
		list.show(lines.map(entryRow), nothing(), entries.pager);
	}

	function nothing() {
		if (search.text()) return emptyState("Nothing matches", "No change has this anywhere.");
		return emptyState(
			"Nothing was changed yet",
			"Every change of a key, every log-in and every stopped request is written down here.",
		);
	}

	function entryRow(entry) {
		const { action, at } = entry;
		const { keyName, ...before } = (action === "run_stopped" && entry.before) || {};
		const changes = differences(action === "run_stopped" ? before : entry.before, entry.after);
		return list.row(
			{ tabindex: "-1" },
			h("time.nowrap", { datetime: at, title: whenFull(at) }, whenExact(at)),
			named(entry.actor),
			[
				h(
					"div",
					ACTIONS[action] ?? visible(action.replace(/(.+)_(.+)/, "$2 the $1")),
					" ",
					!ALONE.has(action) && subject(entry),
					keyName && [" of the key ", keyLink(keyName)],
				),
				changes.map((change) => h("div.small.muted", h("bdi", change))),
			],
			h("span.mono", visible(entry.address || "this host")),
		);
	}

	/** All entries that the search leaves, newest first, one a line. */
	async function save() {
		const saved = [];
		try {
			let before = null;
			do {
				const { lines, next } = await ask({ before, limit: 1000 });
				saved.push(...lines.map((entry) => `${JSON.stringify(entry)}\n`));
				before = next;
			} while (before);
		} catch (failure) {
			toast(failure.message);
			return;
		}
		download("cli-bridge-audit.jsonl", "application/x-ndjson", saved);
	}

	return entries.stop;
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
	const names = Object.keys({ ...old, ...now }).filter((name) => old[name] !== now[name]);
	return names.map((name) => {
		if (old[name] === undefined) return visible(`${name}: ${now[name]}`);
		return visible(now[name] === undefined ? `${name} was ${old[name]}` : `${name}: ${old[name]} → ${now[name]}`);
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
