/** Logs: every request, newest first, with filters, sums, and exports. */

import { ApiError, query } from "../lib/api.js";
import { fill, h, redraw, say } from "../lib/dom.js";
import { compact, count, money, plural, when } from "../lib/format.js";
import { poll } from "../lib/poll.js";
import { PROVIDERS } from "../lib/registry.js";
import { button, emptyState, errorBox, field, select, textInput } from "../lib/ui.js";
import { logTable } from "./logtable.js";
import { PAGE, pages } from "./more.js";
import { call, look } from "./session.js";

const MOST_ROWS = 1000;
const FOLLOW_MS = 2000;
const STATUSES = [["", "Any"], ["ok", "Answered"], ["error", "Not answered"]];
/** Where the codes of errors stand in the list, which has them by the names that the table shows. */
const GROUPS = [
	["Caps and pace (429)", (status) => status === 429],
	["The request, the key or the answer (4xx)", (status) => status < 500 && status !== 429],
	["The CLI or the bridge (5xx)", (status) => status >= 500],
];

export function show({ head, body, query: given, session }) {
	const names = h("datalist", { id: "key-names" });
	const asked = given.get("status") ?? "";
	const date = (value) => h("input", { type: "date", value });
	const providers = Object.entries(PROVIDERS).map(([name, { title }]) => [name, title]);
	const filters = {
		text: ["Text", h("input", { type: "search", value: given.get("text"), placeholder: "Prompt or id" })],
		key: ["Key", textInput({ list: "key-names", value: given.get("key"), placeholder: "Any" })],
		status: ["Status", select(statuses(session.codes, asked), asked, { onchange: search })],
		provider: ["Provider", select([["", "Any"], ...providers], given.get("provider") ?? "", { onchange: search })],
		from: ["From", date(given.get("from"))],
		to: ["Until", date(given.get("to"))],
	};
	const form = h(
		"form",
		{ onsubmit: search, oninput: setExports, "aria-label": "Filters", role: "search" },
		h(
			"div.filters",
			Object.values(filters).map(([label, input]) => field(label, input)),
			h("div.row", button("Show", null, ".primary"), button("Clear", clear)),
		),
		h("p.hint.filter-foot", "Text is looked for in prompts, errors, models and ids. Days are those of your time zone. Exports take what stands here."),
		names,
	);
	const wide = window.matchMedia("(min-width: 641px)").matches;
	const fold = h("details.card.fold", { open: wide || isFiltered() }, h("summary", "Filters"), form);
	const saving = h("div.row");
	const follow = button("Follow", toggleFollow, "", { "aria-pressed": "false" });
	head.append(h("div.row", follow, button("Refresh", () => load()), saving));
	const table = logTable("Requests");
	const log = pages(table.rows, ask, draw);
	const sums = h("p.sums", { role: "status" });
	fill(body, fold, log.error, h("section.card.flush", sums, table.element, log.pager));
	let keys = null;
	let following = null;
	/** By what the lines that are shown were asked for: the fields may say something else by now. */
	let sought = {};
	/** Where the page shall be scrolled to when its lines are there. */
	let top = 0;

	window.addEventListener("scrollend", remember);
	setExports();
	load(history.state);
	suggest();

	function values() {
		return Object.fromEntries(Object.entries(filters).map(([name, [, input]]) => [name, input.value.trim()]));
	}

	function isFiltered() {
		return Object.values(values()).some(Boolean);
	}

	/** The filters as the API wants them: days become moments, the last one included. */
	function wanted() {
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
		for (const [, input] of Object.values(filters)) input.value = "";
		if (!form.contains(event.target)) filters.text[1].focus();
		search();
	}

	function setExports() {
		const path = (format) => `/admin/logs/export${query({ ...wanted(), format })}`;
		redraw(
			saving,
			["csv", "jsonl"].map((format) =>
				h("a.button", { download: true, href: path(format) }, `Export ${format.toUpperCase()}`),
			),
		);
	}

	async function ask(page, options) {
		const path = `/admin/logs${query({ ...sought, prompts: "preview", sums: 0, ...page })}`;
		const { logs: lines, ...rest } = await call("GET", path, options);
		return { lines, ...rest };
	}

	/** The first page; `before` is what was remembered of it, when somebody comes back to it. */
	function load(before = null) {
		const { from, to } = values();
		if (from && to && from > to) {
			const body = { error: "The first day lies after the last one.", hint: "Swap them." };
			fill(log.error, errorBox(new ApiError(400, body)));
			return;
		}
		sought = wanted();
		top = before?.top ?? 0;
		log.load(Math.min(MOST_ROWS, Math.max(PAGE, before?.rows ?? 0)));
	}

	async function draw(lines, isLast) {
		table.show(lines, nothing());
		if (top) window.scrollTo(0, top);
		top = 0;
		remember();
		if (!isLast) return;
		say(sums, "");
		const { sums: found } = await ask({ limit: 1, sums: null });
		if (isLast()) say(sums, inWords(found));
	}

	/** How much is shown, and where, for somebody who comes back to this address. */
	function remember() {
		if (location.hash.split("?")[0] === "#/logs")
			history.replaceState({ rows: log.shown(), top: window.scrollY }, "");
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
			async (signal) => {
				const before = sought;
				const { lines } = await ask({ limit: PAGE }, { signal, background: true });
				if (before === sought) log.add(lines);
			},
			FOLLOW_MS,
			log.error,
		);
	}

	function nothing() {
		const { key } = values();
		if (key && keys && !keys.includes(key)) {
			const like = keys.filter((each) => each.toLowerCase().includes(key.toLowerCase())).slice(0, 5);
			return emptyState(
				`No key is named ${key}`,
				`The key has to be named in full.${like.length ? " One of these?" : ""}`,
				h("div.row", like.map((each) => button(h("bdi", each), () => use(each)))),
			);
		}
		return isFiltered()
			? emptyState("Nothing matches", "No request in the log fits these filters.", button("Clear the filters", clear))
			: emptyState("The log is empty", "Every request is listed here, also those that a cap has refused.");
	}

	function use(key) {
		const [, input] = filters.key;
		input.value = key;
		search();
		input.focus();
	}

	async function suggest() {
		try {
			keys = (await look("/admin/keys?revoked=1")).keys.map((key) => key.name);
		} catch {
			// Only a help for typing.
			return;
		}
		fill(names, keys.map((key) => h("option", { value: key })));
		if (names.isConnected && log.shown() === 0 && values().key) load();
	}

	return () => {
		log.stop();
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
