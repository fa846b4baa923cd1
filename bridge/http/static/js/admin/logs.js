/** Logs: every request, newest first, with filters, sums, and exports. */

import { ApiError, query } from "../lib/api.js";
import { fill, h, say } from "../lib/dom.js";
import { compact, count, money, plural, when } from "../lib/format.js";
import { poll } from "../lib/poll.js";
import { PROVIDERS } from "../lib/registry.js";
import { busy, button, emptyState, errorBox, field, select, textInput } from "../lib/ui.js";
import { logTable } from "./logtable.js";
import { call, look } from "./session.js";

const PAGE = 50;
const MOST_ROWS = 1000;
const FOLLOW_MS = 2000;
const STATUSES = [["", "Any"], ["ok", "Answered"], ["error", "Not answered"]];
/** Where the codes of errors stand in the list, which has them by the names that the table shows. */
const GROUPS = [
	["Caps and pace (429)", (status) => status === 429],
	["The request, the key or the answer (4xx)", (status) => status < 500 && status !== 429],
	["The CLI or the bridge (5xx)", (status) => status >= 500],
];

export const title = () => "Logs";

export function show({ head, body, query: given, session }) {
	const names = h("datalist", { id: "key-names" });
	const asked = given.get("status") ?? "";
	const inputs = {
		text: h("input", { type: "search", value: given.get("text") ?? "", placeholder: "Prompt or id" }),
		key: textInput({ list: "key-names", value: given.get("key") ?? "", placeholder: "Any" }),
		provider: select(
			[["", "Any"], ...Object.entries(PROVIDERS).map(([name, { title }]) => [name, title])],
			given.get("provider") ?? "",
		),
		status: select(statuses(session.codes, asked), asked),
		from: h("input", { type: "date", value: given.get("from") ?? "" }),
		to: h("input", { type: "date", value: given.get("to") ?? "" }),
	};
	const form = h(
		"form",
		{ onsubmit: search, oninput: setExports, "aria-label": "Filters", role: "search" },
		h(
			"div.filters",
			field("Text", inputs.text),
			field("Key", inputs.key),
			field("Status", inputs.status),
			field("Provider", inputs.provider),
			field("From", inputs.from),
			field("Until", inputs.to),
			h("div.row", button("Show", null, ".primary"), button("Clear", clear)),
		),
		h("p.hint.filter-foot", "Text is looked for in prompts, errors, models and ids. Days are those of your time zone. Exports take what stands here."),
		names,
	);
	const wide = window.matchMedia("(min-width: 641px)").matches;
	const fold = h("details.card.fold", { open: wide || isFiltered() }, h("summary", "Filters"), form);
	const csv = h("a.button", { download: true }, "Export CSV");
	const jsonl = h("a.button", { download: true }, "Export JSONL");
	const follow = button("Follow", toggleFollow, "", { "aria-pressed": "false" });
	const refresh = button("Refresh", () => load());
	head.append(h("div.row", follow, refresh, csv, jsonl));
	const table = logTable("Requests");
	const older = button("Show older", () => busy(older, showOlder));
	const more = h("div.pager", { hidden: true }, older);
	const sums = h("p.sums", { role: "status" });
	const error = h("div");
	fill(body, fold, error, h("section.card.flush", sums, table.element, more));
	const controller = new AbortController();
	let turn = 0;
	let next = null;
	let rows = 0;
	let keys = null;
	let following = null;

	for (const each of [inputs.provider, inputs.status]) each.addEventListener("change", search);
	window.addEventListener("scrollend", remember);
	setExports();
	load(history.state);
	suggest();

	function values() {
		return Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value.trim()]));
	}

	function isFiltered() {
		return Object.values(values()).some(Boolean);
	}

	/** The filters as the API wants them: days become moments, the last one included. */
	function filters() {
		const { from, to, ...rest } = values();
		const until = to && new Date(`${to}T00:00`);
		if (until) until.setDate(until.getDate() + 1);
		return { ...rest, since: from && new Date(`${from}T00:00`).toISOString(), until: until && until.toISOString() };
	}

	/** Show what the filters say. They stand in the address, and the focus stays where it is. */
	function search(event) {
		event?.preventDefault();
		const address = `#/logs${query(values())}`;
		if (address !== location.hash) history.pushState(null, "", address);
		setExports();
		load();
	}

	function clear(event) {
		for (const input of Object.values(inputs)) input.value = "";
		if (!form.contains(event.target)) inputs.text.focus();
		search();
	}

	function setExports() {
		for (const [link, format] of [[csv, "csv"], [jsonl, "jsonl"]])
			link.href = `/admin/logs/export${query({ ...filters(), format })}`;
	}

	function ask(wanted, background = false) {
		const path = `/admin/logs${query({ ...filters(), prompts: "preview", ...wanted })}`;
		return background ? look(path, controller.signal) : call("GET", path, { signal: controller.signal });
	}

	/** The first page; `before` is what was remembered of it, when somebody comes back to it. */
	async function load(before = null) {
		const mine = ++turn;
		const { from, to } = values();
		if (from && to && from > to) {
			fill(error, errorBox(new ApiError(400, { error: "The first day lies after the last one.", hint: "Swap them." })));
			return;
		}
		try {
			const limit = Math.min(MOST_ROWS, Math.max(PAGE, before?.rows ?? 0));
			const page = await ask({ limit, sums: 0 });
			if (mine !== turn) return;
			fill(error);
			rows = page.logs.length;
			table.update(page.logs, nothing());
			shownUpTo(page);
			if (before?.top) window.scrollTo(0, before.top);
			say(sums, "");
			const { sums: found } = await ask({ limit: 1 });
			if (mine === turn) say(sums, inWords(found));
		} catch (failure) {
			if (mine !== turn || controller.signal.aborted) return;
			fill(error, errorBox(failure, () => load()));
		}
	}

	async function showOlder() {
		const mine = turn;
		try {
			const page = await ask({ before: next, limit: PAGE });
			if (mine !== turn) return;
			rows += page.logs.length;
			const first = table.append(page.logs);
			first?.querySelector("button").focus();
			shownUpTo(page);
		} catch (failure) {
			if (!controller.signal.aborted) fill(error, errorBox(failure));
		}
	}

	function shownUpTo(page) {
		next = page.next;
		more.hidden = !next;
		remember();
	}

	/** How much is shown, and where, for somebody who comes back to this address. */
	function remember() {
		if (location.hash.split("?")[0] === "#/logs") history.replaceState({ rows, top: window.scrollY }, "");
	}

	function toggleFollow() {
		const on = following === null;
		follow.setAttribute("aria-pressed", String(on));
		if (!on) {
			following.stop();
			following = null;
			return;
		}
		following = poll(
			async () => {
				const page = await ask({ limit: PAGE, sums: 0 }, true);
				if (following) rows += table.prepend(page.logs);
			},
			FOLLOW_MS,
			error,
		);
	}

	function nothing() {
		const { key } = values();
		if (key && keys && !keys.includes(key)) {
			const like = keys.filter((each) => each.toLowerCase().includes(key.toLowerCase())).slice(0, 5);
			return emptyState(
				`No key is named ${key}`,
				like.length ? "The key has to be named in full. One of these?" : "The key has to be named in full.",
				h("div.row", like.map((each) => button(h("bdi", each), () => use(each)))),
			);
		}
		return isFiltered()
			? emptyState("Nothing matches", "No request in the log fits these filters.", button("Clear the filters", clear))
			: emptyState("The log is empty", "Every request is listed here, also those that a cap has refused.");
	}

	function use(key) {
		inputs.key.value = key;
		search();
		inputs.key.focus();
	}

	async function suggest() {
		try {
			const answer = await call("GET", "/admin/keys?revoked=1", { background: true, signal: controller.signal });
			keys = answer.keys.map((key) => key.name);
			fill(names, keys.map((key) => h("option", { value: key })));
			if (rows === 0 && values().key) load();
		} catch {
			// Only a help for typing.
		}
	}

	return () => {
		controller.abort();
		window.removeEventListener("scrollend", remember);
		following?.stop();
	};
}

/** Sums in words: 1,234 requests, 12 of them not answered, $3.20, 1.2M tokens. */
function inWords({ requests, errors, tokens, costUsd, since }) {
	if (!requests) return "";
	const failed = errors ? `, ${count(errors)} of them not answered` : "";
	const from = since ? ` since ${when(since)} (what is older was not added up)` : "";
	return `${plural(requests, "request")}${failed}, ${money(costUsd)}, ${plural(tokens, "token", compact)}${from}`;
}

/** The choices of the status: every code of an error, and whatever else the address names. */
function statuses(codes, asked) {
	const groups = GROUPS.map(([label, fits]) => [
		label,
		codes.filter(({ status }) => fits(status)).map(({ code }) => [code, code]),
	]);
	const known = [...STATUSES.map(([value]) => value), ...codes.map(({ code }) => code)];
	return [...STATUSES, ...groups, ...(known.includes(asked) ? [] : [[asked, asked]])];
}
