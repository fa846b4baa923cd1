/** Credentials: the API keys of the providers, how each is doing and why, what it may spend, and what can be done. */

import { bars, levels } from "../lib/bars.js";
import { nowMs } from "../lib/clock.js";
import { fill, h, icon, redraw, say } from "../lib/dom.js";
import { count, money, plural, timeElement, visible, when } from "../lib/format.js";
import { poll } from "../lib/poll.js";
import { PROVIDERS } from "../lib/registry.js";
import { badge, button, emptyState, errorBox, factList, focusOn, formDialog, searchBox, select, skeleton, toast } from "../lib/ui.js";
import { addCredential, credentialPath, editCredential, test } from "./credentialform.js";
import { PAGE, focusRow, showMore } from "./more.js";
import { act, call, look } from "./session.js";

const EVERY_MS = 5000;
/** So few are found without a search. */
const FEW = 5;
/** Its states: in words, and the kind of the label. */
const STATES = {
	usable: ["usable", "good"],
	probing: ["being tried", "accent"],
	benched: ["limited", "warn"],
	blocked: ["blocked", "bad"],
	disabled: ["disabled"],
};
/** What became of the runs that used one: the words of the API, and those for people. */
const ENDS = {
	ok: "answered",
	limited: "limited (429)",
	rejected: "not accepted",
	overloaded: "provider overloaded",
	failed: "failed",
	stopped: "stopped",
};

export function show({ head, body, session }) {
	const summary = h("span.muted.small", { role: "status" });
	head.append(summary, button([icon("plus"), "Add an API key"], () => add(), ".primary"));
	const search = searchBox("Search credentials", "Name, note or ending", arrange);
	const states = Object.entries(STATES).map(([state, [words]]) => [state, words]);
	const only = select([["", "In every state"], ...states], "", {
		"aria-label": "Only those in this state",
		onchange: arrange,
	});
	const toolbar = h("div.toolbar", { hidden: true }, search.element, only);
	const notice = h("div");
	const groups = h("div.stack");
	fill(body, skeleton(8));
	/** What the server said last. */
	let now = null;
	/** Provider -> how many of its are shown, where that is more than a page. */
	let most = {};
	/** Provider and name -> what its last test here has found, or that it is on its way. */
	const tested = new Map();

	const watch = poll(
		async (signal) => {
			now = await look("/admin/credentials", signal);
			if (!groups.isConnected) fill(body, notice, toolbar, groups);
			render();
		},
		EVERY_MS,
		body,
	);

	function arrange() {
		most = {};
		render();
	}

	/** Whether it is what is looked for. */
	function matches(each) {
		return [each.state, ""].includes(only.value) && search.finds(each.name, each.note, each.group, each.last4);
	}

	function render() {
		const all = now.credentials;
		const usable = all.filter(isOpen).length;
		say(summary, all.length ? `${count(usable)} of ${plural(all.length, "credential")} usable` : "");
		toolbar.hidden = all.length <= FEW && !search.text() && !only.value;
		redraw(notice, now.problem && h("p.notice.warn", icon("warning"), now.problem));
		redraw(groups, Object.keys(PROVIDERS).map(group));
	}

	function group(name) {
		const { title, vendor } = PROVIDERS[name];
		const own = now.credentials.filter((each) => each.provider === name);
		const found = own.filter(matches);
		const first = most[name] ?? PAGE;

		function grow(event) {
			const list = event.target.closest(".card").querySelector("ul");
			most[name] = first + PAGE;
			render();
			focusRow(list, first);
		}

		return h(
			"section.card",
			{ "aria-label": `${title} (${vendor})` },
			h(
				"div.card-head",
				h("h2", title, " ", h("span.muted", `(${vendor})`)),
				own.length > 0 && !own.some(isOpen) && badge("none is usable: requests are refused", "bad"),
			),
			!own.length &&
				emptyState(
					`There is no API key of ${vendor} yet`,
					`Requests for ${title} are refused until you add one. The other provider works without it.`,
					button([icon("plus"), `Add one of ${vendor}`], () => add(name)),
				),
			own.length > found.length &&
				h("p.small.muted.matches", `${count(found.length)} of ${plural(own.length, "credential")} match.`),
			h("ul.credentials", found.slice(0, first).map(item)),
			showMore(found.length - first, "credential", grow),
		);
	}

	function item(credential) {
		const key = credentialPath(credential);
		const [words, kind] = STATES[credential.state] ?? [credential.state];
		const ending = credential.last4 && `…${visible(credential.last4)}`;
		const preferred = byPriority() && credential.priority >= firstOf(now.credentials, credential);
		const caps = budgets(credential, now.resetsAt, session.timezone);
		return h(
			"li.credential",
			{ key },
			h(
				"div.row",
				h("h3.key-name", visible(credential.name)),
				h("span.mono.muted", credential.kind === "login" ? "the CLI's own log-in" : ending),
				badge(words, kind),
				preferred && badge("preferred", "accent"),
			),
			h("p", sentence(credential)),
			credential.limitedModels.map((each) => h("p", `Limited for ${visible(each.model)}: `, again(each))),
			credential.note && h("p.small.muted", visible(credential.note)),
			h("div.bars.wide", bars(caps, { full: true, note: (level) => level.note })),
			factList(facts(credential)),
			credential.rateLimits && rateLimits(credential.rateLimits),
			h("div", { role: "status" }, tested.get(key)?.()),
			h("div.row", actions(credential)),
		);
	}

	function actions(credential) {
		const { name, state, priority } = credential;
		const own = credential.source === "file";
		const out = ["benched", "blocked", "probing"].includes(state) || credential.limitedModels.length > 0;
		const first = firstOf(now.credentials, credential);

		function press(label, onclick, { key = label, kind = "" } = {}) {
			return button(label, onclick, `.small${kind}`, { key, "aria-label": `${label} ${name}` });
		}

		/** A button for one change; `done` says what is so afterwards. */
		function change(label, method, tail, done, { key, body } = {}) {
			const send = async () => {
				await act(method, credentialPath(credential, tail), `${name} ${done}`, { body });
				watch.now();
			};
			return press(label, send, { key });
		}

		const toggle = { key: "toggle" };
		return [
			credential.kind === "api-key" && press("Test", () => tryOut(credential)),
			out && change("Try again now", "POST", "/reset", "is tried again with the next request."),
			credential.enabled
				? change("Disable", "POST", "/disable", "is disabled; what it has running goes on.", toggle)
				: change("Enable", "POST", "/enable", "is enabled.", toggle),
			own &&
				byPriority() &&
				priority < first &&
				change("Prefer", "PATCH", "", "comes first.", { body: { priority: first } }),
			own && press("Edit", async () => (await editCredential(credential)) && isOther(credential)),
			own && press("Remove", () => remove(credential), { kind: ".danger" }),
		];
	}

	/** Whether the server goes by priorities. */
	function byPriority() {
		return now.routing === "fill-first";
	}

	async function tryOut(credential) {
		const show = (found) => {
			tested.set(credentialPath(credential), found);
			render();
		};
		show(() => h("p.small.muted", "Asking the provider for its list of models. This costs nothing."));
		try {
			const message = await test(credential);
			show(() => h("p.notice.good", icon("check"), message));
		} catch (failure) {
			show(() => errorBox(failure));
		}
		watch.now();
	}

	/** Ask, with a look at what it does now, and remove it. */
	async function remove(credential) {
		const { name, running, usage } = credential;
		const runs = `${plural(running, "request")} of it ${running === 1 ? "is" : "are"} running now.`;
		const used = `This month it was used for ${money(usage.thisMonth.costUsd)}; the log keeps its name.`;
		const question = [
			h("p", "The bridge forgets the API key. This cannot be taken back; the key itself goes on at the provider."),
			h("p", `${running ? runs : "Nothing of it is running now."} ${used}`),
		];
		let force = "";

		async function send(sure) {
			try {
				await call("DELETE", credentialPath(credential) + force);
			} catch (failure) {
				if (failure.status === 409) {
					force = "&force=1";
					say(sure, "Remove it all the same");
				}
				throw failure;
			}
		}

		if (!(await formDialog(`Remove ${name}?`, question, "Remove it", send, { kind: ".danger" }))) return;
		toast(`${name} is removed.`);
		focusOn(null);
		isOther(credential);
	}

	/** It is not what it was: what its test has found is of no use, also to another that gets its name. */
	function isOther(credential) {
		tested.delete(credentialPath(credential));
		watch.now();
	}

	async function add(provider) {
		if (await addCredential(provider, now?.credentials ?? [])) watch.now();
	}

	return watch.stop;
}

/** Whether a run may get it now. */
export function isOpen(credential) {
	return credential.state === "usable" || credential.state === "probing";
}

/** The least priority that comes before all others of its provider; NaN where there are none. */
function firstOf(all, { provider, name }) {
	const others = all.filter((each) => each.provider === provider && each.name !== name);
	return others.length ? Math.max(...others.map((each) => each.priority)) + 1 : NaN;
}

/** How it is, why, and when it will be tried again: in words. */
function sentence(credential) {
	const { state, reason, until, running } = credential;
	const why = reason ? told(reason) : "";
	switch (state) {
		case "usable":
			return running ? `Takes requests; ${count(running)} running now.` : "Takes requests.";
		case "probing":
			return [why, "One request at a time is sent with it until one succeeds."];
		case "benched":
			return until ? again(credential) : [why, "It is tried again soon."];
		case "blocked":
			return until ? again(credential) : [why, "It is not tried again by itself."];
		default:
			return why || "An admin has disabled it; it gets no requests until it is enabled.";
	}
}

/** What a provider said, as a sentence before another one. */
function told(reason) {
	return `${visible(reason)}${/[.!?…]$/.test(reason) ? "" : "."} `;
}

/** Why it is out, and when it is tried again. */
function again({ reason, until, estimated }) {
	const guess = estimated ? ", by the bridge's own guess" : "";
	return [reason && told(reason), "It is tried again ", timeElement(until), ` (${when(until)}${guess}).`];
}

/** The caps as levels, with the line: what would be used by now if it were spent evenly. */
function budgets({ limits, usage }, resetsAt, timezone) {
	return levels(limits, usage).map((level) => {
		const end = resetsAt[level.window];
		const line = elapsed(level.window, end);
		const even = line * level.most;
		const gap = ahead(level.used + level.reserved - even);
		const resets = `Resets ${when(end)} (midnight in ${timezone}).`;
		return { ...level, line, note: `Spent evenly, it would be ${money(even)} by now (the line): ${gap}. ${resets}` };
	});
}

function ahead(gap) {
	if (Math.abs(gap) < 0.005) return "it is just that";
	return gap > 0 ? `it is ${money(gap)} more` : `it is ${money(-gap)} less`;
}

/** The share of a day or month that is over, of one that ends at `end`. */
function elapsed(window, end) {
	const ends = new Date(end);
	const began = new Date(ends);
	if (window === "thisMonth") {
		// From the second of a month to that of the last: months end on the first, by some clock or other.
		began.setUTCDate(began.getUTCDate() + 1);
		began.setUTCMonth(began.getUTCMonth() - 1);
	}
	began.setUTCDate(began.getUTCDate() - 1);
	return Math.min(1, Math.max(0, (nowMs() - began) / (ends - began)));
}

function facts(credential) {
	const { usage, lastDay } = credential;
	const classes = Object.entries(ENDS)
		.filter(([name]) => lastDay[name] > 0)
		.map(([name, words]) => `${count(lastDay[name])} ${words}`);
	const only = [
		credential.models && `models ${credential.models.join(", ") || "none"}`,
		credential.keys && `keys ${credential.keys.join(", ") || "none"}`,
	].filter(Boolean);
	return [
		["Last 24 hours", classes.join(", ") || "no requests"],
		["Used", `${amount(usage.today)} today; ${amount(usage.thisMonth)} this month`],
		credential.group && ["Organization", credential.group],
		credential.baseUrl && ["Endpoint", credential.baseUrl],
		only.length > 0 && ["Only for", only.join("; ")],
		credential.maxConcurrent > 0 && ["At once", `at most ${count(credential.maxConcurrent)}`],
		(credential.priority || credential.weight !== 1) &&
			["Order", `priority ${credential.priority}, weight ${credential.weight}`],
		credential.source === "env" &&
			["From", `the environment (${PROVIDERS[credential.provider].keyVariable}); it is changed there`],
	];
}

function amount(used) {
	return `${money(used.costUsd)}, ${plural(used.requests, "request")}`;
}

/** What the provider said of its limits in its last answer, as it said it. */
function rateLimits({ limits, at }) {
	return h(
		"details.figures",
		h("summary", "Limits that the provider named ", timeElement(at)),
		h(
			"dl.facts.spaced",
			Object.entries(limits).map(([name, value]) => [h("dt.mono", visible(name)), h("dd.mono", visible(value))]),
		),
	);
}
