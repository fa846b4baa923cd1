/** Credentials: the API keys of the providers, how each is doing and why, what it may spend, and what can be done. */

import { showBars } from "../lib/bars.js";
import { fill, h, icon, keyed, refill, say } from "../lib/dom.js";
import { ago, count, money, plural, timeElement, visible, when } from "../lib/format.js";
import { poll } from "../lib/poll.js";
import { LIMITS, PROVIDERS } from "../lib/registry.js";
import { attempt, badge, busy, button, dialog, emptyState, errorBox, focusOn, listFacts, searchBox, select, skeleton, toast } from "../lib/ui.js";
import { addCredential, credentialPath, editCredential } from "./credentialform.js";
import { call, look } from "./session.js";

const EVERY_MS = 5000;
/** Those of one provider at once: more of them would hold the page up. */
const PAGE = 50;
/** So few are found without a search. */
const FEW = 5;
const KINDS = { usable: "good", probing: "accent", benched: "warn", blocked: "bad", disabled: "" };
const STATES = {
	usable: "usable",
	probing: "being tried",
	benched: "limited",
	blocked: "blocked",
	disabled: "disabled",
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

export const title = () => "Credentials";

export function show({ head, body, session }) {
	const summary = h("span.muted.small", { role: "status" });
	head.append(summary, button([icon("plus"), "Add an API key"], () => add(), ".primary"));
	const search = searchBox("Search credentials", "Name, note or ending", arrange);
	const only = select([["", "In every state"], ...Object.entries(STATES)], "", {
		"aria-label": "Only those in this state",
		onchange: arrange,
	});
	const toolbar = h("div.toolbar", { hidden: true }, search.element, only);
	const notices = h("div.stack", { hidden: true });
	const groups = h("div.stack");
	fill(body, skeleton(8));
	let all = [];
	let resetsAt = {};
	let byPriority = false;
	/** Provider -> how many of its are shown, where that is more than a page. */
	let most = {};

	const watch = poll(
		async (signal) => {
			const answer = await look("/admin/credentials", signal);
			if (!groups.isConnected) fill(body, notices, toolbar, groups);
			take(answer);
		},
		EVERY_MS,
		body,
	);

	function take(answer) {
		all = answer.credentials;
		resetsAt = answer.resetsAt;
		byPriority = answer.routing === "fill-first";
		const usable = all.filter((each) => isOpen(each)).length;
		say(summary, all.length ? `${count(usable)} of ${plural(all.length, "credential")} usable` : "");
		notices.hidden = !answer.problem;
		refill(notices, answer.problem ?? "", answer.problem && h("p.notice.warn", icon("warning"), answer.problem));
		toolbar.hidden = all.length <= FEW && !search.text() && !only.value;
		render();
	}

	function arrange() {
		most = {};
		render();
	}

	/** Whether it is what is looked for. */
	function matches(each) {
		const said = `${each.name}\n${each.note}\n${each.group}\n${each.last4}`.toLowerCase();
		return (!only.value || each.state === only.value) && said.includes(search.text().toLowerCase());
	}

	function render() {
		keyed(groups, Object.keys(PROVIDERS), (name) => name, (name) => group(name));
	}

	function group(name) {
		const { title, vendor } = PROVIDERS[name];
		const state = h("span");
		const list = h("ul.credentials");
		const none = h("div");
		const more = button("", showMore);
		const pager = h("div.pager", { hidden: true }, more);

		function showMore() {
			const first = most[name] ?? PAGE;
			most[name] = first + PAGE;
			render();
			list.children[first]?.querySelector("button").focus();
		}

		return {
			element: h(
				"section.card",
				{ "aria-label": `${title} (${vendor})` },
				h("div.card-head", h("h2", title, " ", h("span.muted", `(${vendor})`)), state),
				none,
				list,
				pager,
			),
			update() {
				const own = all.filter((each) => each.provider === name);
				const found = own.filter(matches);
				const shown = found.slice(0, most[name] ?? PAGE);
				const rest = found.length - shown.length;
				pager.hidden = !rest;
				say(more, `Show ${plural(Math.min(PAGE, rest), "more credential")}`);
				const out = own.length > 0 && !own.some(isOpen);
				refill(state, out, out && badge("none is usable: requests are refused", "bad"));
				refill(
					none,
					`${own.length} ${found.length}`,
					!own.length &&
						emptyState(
							`There is no API key of ${vendor} yet`,
							`Requests for ${title} are refused until you add one. The other provider works without it.`,
							button([icon("plus"), `Add one of ${vendor}`], () => add(name)),
						),
					own.length > found.length &&
						h("p.small.muted.matches", `${count(found.length)} of ${plural(own.length, "credential")} match.`),
				);
				keyed(list, shown, "name", item);
			},
		};
	}

	function item() {
		const parts = {
			name: h("h3.key-name"),
			ending: h("span.mono.muted"),
			state: h("span"),
			preferred: h("span"),
			sentence: h("p"),
			models: h("div"),
			note: h("p.small.muted"),
			bars: h("div.bars.wide"),
			facts: h("dl.facts"),
			limits: h("div"),
			buttons: h("div.row"),
		};
		const tested = h("div", { role: "status" });
		let now = null;
		const element = h(
			"li.credential",
			h("div.row", parts.name, parts.ending, parts.state, parts.preferred),
			parts.sentence,
			parts.models,
			parts.note,
			parts.bars,
			parts.facts,
			parts.limits,
			tested,
			parts.buttons,
		);

		function test(event) {
			busy(event.currentTarget, async () => {
				fill(tested, h("p.small.muted", "Asking the provider for its list of models. This costs nothing."));
				try {
					fill(tested, testResult(await call("POST", credentialPath(now, "/test"))));
				} catch (failure) {
					fill(tested, errorBox(failure));
				}
				watch.now();
			});
		}

		/** One button's change, and what to say afterwards. */
		function act(method, tail, done, body = undefined) {
			return async () => {
				try {
					await call(method, credentialPath(now, tail), { body });
					toast(done);
				} catch (failure) {
					toast(failure.message);
				}
				watch.now();
			};
		}

		async function gone() {
			if (!(await remove(now))) return;
			focusOn(null);
			watch.now();
		}

		function actions() {
			const press = (label, onclick, kind = "") =>
				button(label, onclick, `.small${kind}`, { "aria-label": `${label} ${now.name}` });
			const own = now.source === "file";
			const out = ["benched", "blocked", "probing"].includes(now.state) || now.limitedModels.length > 0;
			const priority = firstOf(all, now);
			return [
				now.kind === "api-key" && press("Test", test),
				out && press("Try again now", act("POST", "/reset", `${now.name} is tried again with the next request.`)),
				now.enabled
					? press("Disable", act("POST", "/disable", `${now.name} is disabled; what it has running goes on.`))
					: press("Enable", act("POST", "/enable", `${now.name} is enabled.`)),
				own &&
					byPriority &&
					now.priority < priority &&
					press("Prefer", act("PATCH", "", `${now.name} comes first.`, { priority })),
				own && press("Edit", async () => (await editCredential(now)) && watch.now()),
				own && press("Remove", gone, ".danger"),
			];
		}

		return {
			element,
			update(credential) {
				now = credential;
				const preferred = byPriority && now.priority >= firstOf(all, now);
				say(parts.name, visible(now.name));
				say(parts.ending, now.kind === "login" ? "the CLI's own log-in" : now.last4 ? `…${visible(now.last4)}` : "");
				refill(parts.state, now.state, badge(STATES[now.state] ?? now.state, KINDS[now.state]));
				refill(parts.preferred, preferred, preferred && badge("preferred", "accent"));
				refill(parts.sentence, sentenceStamp(now), sentence(now));
				refill(
					parts.models,
					JSON.stringify(now.limitedModels.map((each) => [each, ago(each.until)])),
					now.limitedModels.map((each) => h("p", `Limited for ${visible(each.model)}: `, again(each))),
				);
				say(parts.note, visible(now.note));
				showBars(parts.bars, budgets(now, resetsAt, session.timezone), { full: true, note: (level) => level.below });
				listFacts(parts.facts, facts(now));
				refill(parts.limits, JSON.stringify(now.rateLimits), now.rateLimits && rateLimits(now.rateLimits));
				const stamp = [now.enabled, now.state, now.limitedModels.length, now.priority, now.source, all.length].join();
				refill(parts.buttons, stamp, actions());
			},
		};
	}

	async function add(provider) {
		if (await addCredential(provider, all)) watch.now();
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

function sentenceStamp({ state, reason, until, running }) {
	return JSON.stringify([state, reason, until, running, until && ago(until)]);
}

/** The caps as bars, with the line: what would be used by now if it were spent evenly. */
function budgets(credential, resetsAt, timezone) {
	return LIMITS.filter((row) => row.window && credential.limits[row.name] > 0).map((row) => {
		const used = credential.usage[row.window].costUsd;
		const reserved = credential.usage.reserved.costUsd;
		const most = credential.limits[row.name];
		const end = resetsAt[row.window];
		const line = elapsed(row.window, end);
		const gap = used + reserved - line * most;
		return {
			limit: row.name,
			label: row.title,
			unit: row.unit,
			used,
			reserved,
			most,
			line,
			below: `Spent evenly, it would be ${money(line * most)} by now (the line): ${ahead(gap)}. Resets ${when(end)} (midnight in ${timezone}).`,
		};
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
	return Math.min(1, Math.max(0, (Date.now() - began) / (ends - began)));
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
		...(credential.group ? [["Organization", visible(credential.group)]] : []),
		...(credential.baseUrl ? [["Endpoint", visible(credential.baseUrl)]] : []),
		...(only.length ? [["Only for", visible(only.join("; "))]] : []),
		...(credential.maxConcurrent ? [["At once", `at most ${count(credential.maxConcurrent)}`]] : []),
		...(credential.priority || credential.weight !== 1
			? [["Order", `priority ${credential.priority}, weight ${credential.weight}`]]
			: []),
		...(credential.source === "env"
			? [["From", `the environment (${visible(PROVIDERS[credential.provider].keyVariable)}); it is changed there`]]
			: []),
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

/** What a test found, in a box. */
export function testResult(result) {
	if (result.ok) return h("p.notice.good", icon("check"), visible(result.message));
	return errorBox({
		message: visible(result.message),
		hint: "Is the whole API key there, and is its account in order?",
	});
}

/** Ask, with a look at what it does now, and remove it. Gives whether it was. */
function remove(credential) {
	const problem = h("div");
	const path = credentialPath(credential);
	let force = "";
	return dialog((close) => {
		const sure = button("Remove it", () => busy(sure, () => attempt(problem, submit)), ".danger");
		async function submit() {
			try {
				await call("DELETE", path + force);
			} catch (failure) {
				if (failure.status === 409) {
					force = "&force=1";
					say(sure, "Remove it all the same");
				}
				throw failure;
			}
			toast(`${credential.name} is removed.`);
			close(true);
		}
		return {
			title: `Remove ${credential.name}?`,
			body: [
				h("p", "The bridge forgets the API key. This cannot be taken back; the key itself goes on at the provider."),
				h(
					"p",
					credential.running
						? `${plural(credential.running, "request")} of it ${credential.running === 1 ? "is" : "are"} running now.`
						: "Nothing of it is running now.",
					` This month it was used for ${money(credential.usage.thisMonth.costUsd)}; the log keeps its name.`,
				),
				problem,
			],
			actions: [button("Cancel", () => close()), sure],
		};
	});
}
