/** Overview: who spends what, how well it works, and what needs attention. */

import { bar } from "../lib/bars.js";
import { REST_TOKEN } from "../lib/chart.js";
import { fill, h, icon, keyed, refill, say } from "../lib/dom.js";
import { ago, compact, count, duration, money, percent, resets, timeElement, when } from "../lib/format.js";
import { poll } from "../lib/poll.js";
import { LIMITS, PROVIDERS } from "../lib/registry.js";
import { badge, card, emptyState, named, skeleton } from "../lib/ui.js";
import { costChart, hourChart } from "./charts.js";
import { keyLink } from "./links.js";
import { renderProviders } from "./providers.js";
import { look } from "./session.js";

const EVERY_MS = 5000;
const VERDICTS = {
	green: ["good", "Ready"],
	yellow: ["warn", "Busy, new requests wait"],
	red: ["bad", "Full, new requests are refused"],
};

export const title = () => "Overview";

export function show({ head, body }) {
	const verdict = h("span.pill");
	const problems = h("div.stack", { hidden: true });
	const tiles = {
		cost: tile("Cost today"),
		requests: tile("Requests today"),
		tokens: tile("Tokens today"),
		errors: tile("Error rate"),
	};
	const costs = costChart();
	const closest = listCard("Closest to their caps", h("a.quiet", { href: "#/keys" }, "All keys"));
	const providers = listCard("Providers");
	const pace = hourChart(
		"Requests per hour",
		"bars",
		[
			["Answered", "--series-1", (hour) => hour.ok],
			["Refused", "--series-3", (hour) => hour.refused],
			["Failed", "--bad-bar", (hour) => hour.failed],
			["Stopped", REST_TOKEN, (hour) => hour.stopped],
		],
		count,
	);
	const latency = hourChart(
		"Time to answer",
		"lines",
		[
			["First text (median)", "--series-2", (hour) => hour.firstTokenMs],
			["Whole answer (median)", "--series-1", (hour) => hour.durationMs],
		],
		duration,
	);
	const hosts = listCard("Hosts");
	const alerts = listCard("Alerts");

	head.append(verdict);
	fill(body, skeleton(8));

	const watch = poll(
		async (signal) => {
			const overview = await look("/admin/overview", signal);
			if (!problems.isConnected) {
				fill(
					body,
					problems,
					h("div.tiles", Object.values(tiles).map((each) => each.element)),
					costs.element,
					h("div.three-two", closest.element, providers.element),
					h("div.two", pace.element, latency.element),
					hosts.element,
					alerts.element,
				);
			}
			render(overview);
		},
		EVERY_MS,
		body,
		() => {
			verdict.className = "pill";
			say(verdict, "Not known: the bridge does not answer");
		},
	);

	function render(overview) {
		const [kind, text] = VERDICTS[overview.capacity.verdict];
		verdict.className = `pill ${kind}`;
		say(
			verdict,
			overview.draining
				? "Restarting: nothing new is taken"
				: `${text}: ${overview.running} of ${overview.slots} slots in use`,
		);
		renderTiles(tiles, overview);
		renderProblems(problems, [...unpaid(overview.providers), ...overview.problems.map((text) => ({ text }))]);
		renderClosest(closest, overview);
		renderProviders(providers.list, overview);
		pace.update(overview.activity.hours);
		latency.update(overview.activity.hours);
		const { firstTokenMs, durationMs } = overview.activity.lastDay;
		say(
			latency.note,
			durationMs.p50 === null
				? "last 48 hours"
				: `95% within ${duration(durationMs.p95)}, first text within ${duration(firstTokenMs.p95)}`,
		);
		renderHosts(hosts, overview.nodes);
		renderAlerts(alerts, overview.alerts ?? []);
	}

	return () => {
		watch.stop();
		costs.stop();
		pace.destroy();
		latency.destroy();
	};
}

function tile(label) {
	const value = h("div.tile-value");
	const note = h("div.tile-note");
	const more = h("div.tile-note");
	return {
		element: h("section.card.tile", h("div.tile-label", label), value, note, more),
		set(text, below, last = "") {
			say(value, text);
			say(note, below);
			say(more, last);
		},
	};
}

function renderTiles(tiles, { totals, forecast, activity, running, queued, resetsAt, timezone }) {
	const { today, thisMonth, reserved } = totals;
	tiles.cost.set(
		money(today.costUsd),
		`${money(thisMonth.costUsd)} this month${forecast ? `, about ${money(forecast.costUsd)} by its end` : ""}`,
		reserved.costUsd > 0 ? `${money(reserved.costUsd)} reserved now` : "",
	);
	tiles.cost.element.title = resets(resetsAt.today, timezone);
	tiles.requests.set(
		count(today.requests),
		`${count(thisMonth.requests)} this month`,
		`${running} running, ${queued} waiting`,
	);
	tiles.tokens.set(
		compact(today.tokens),
		`${compact(thisMonth.tokens)} this month`,
		today.tokens ? `${percent(today.outputTokens / today.tokens)} of them written` : "",
	);
	const { ok, failed, refused } = activity.lastDay;
	tiles.errors.set(
		ok + failed ? percent(failed / (ok + failed)) : "–",
		`${count(failed)} of ${count(ok + failed)} failed in 24 h, and ${count(refused)} refused`,
		// The ledger counts what was stopped as an error, too; the statistics of the day do not.
		thisMonth.requests ? `${percent(thisMonth.errors / thisMonth.requests)} this month, stopped ones included` : "",
	);
}

function listCard(label, extra = null) {
	const list = h("ul.dot-list");
	const empty = h("div", { hidden: true });
	const foot = h("p.hint.list-foot");
	return { element: card(label, extra, list, empty, foot), list, empty, foot };
}

/** The providers that nothing can be asked of because nothing pays for it, each with the way to mend that. */
function unpaid(providers) {
	if (providers.every((each) => each.credentials === "demo")) return [];
	if (providers.every((each) => each.credentials_known === 0)) {
		const text = "There is no API key of a provider yet, so every request is refused.";
		return [{ text, bad: true, href: "#/start", mend: "Set it up" }];
	}
	return providers
		.filter((each) => each.credentials_known > 0 && each.credentials_open === 0)
		.map(({ name }) => ({
			text: `${PROVIDERS[name]?.title ?? name} has no usable credential, so its requests are refused.`,
			bad: true,
			href: "#/credentials",
			mend: "See why",
		}));
}

function renderProblems(box, problems) {
	box.hidden = problems.length === 0;
	keyed(
		box,
		problems,
		({ text }) => text,
		({ text, bad, href, mend }) => ({
			element: h(
				bad ? "div.notice.bad" : "div.notice.warn",
				icon("warning"),
				h("p", named(text)),
				href && h("a.button.small", { href }, mend),
			),
		}),
	);
}

function renderClosest({ list, empty, foot }, { closest, resetsAt, timezone }) {
	say(
		foot,
		closest.length
			? `The day ends ${when(resetsAt.today)} (${ago(resetsAt.today)}), the month ${when(resetsAt.thisMonth)}: midnight in ${timezone}.`
			: "",
	);
	empty.hidden = closest.length > 0;
	if (!closest.length && !empty.childElementCount) {
		fill(
			empty,
			emptyState(
				"No key has a cap yet",
				"A key with a limit per day or month shows here how much of it is used.",
				h("a.button", { href: "#/keys" }, "Go to the keys"),
			),
		);
	}
	keyed(list, closest, "name", (first) => {
		const state = h("span");
		const level = bar();
		return {
			element: h("li.closest", h("div.row", keyLink(first.name), state), level.element),
			update(row) {
				refill(state, row.status, row.status !== "active" && badge(row.status, "warn"));
				const limit = LIMITS.find((each) => each.name === row.limit);
				level.update({ ...row, label: limit.title, unit: limit.unit });
			},
		};
	});
}

/** The hosts that share keys and money, where there are several. */
function renderHosts({ element, list }, nodes) {
	element.hidden = !nodes;
	keyed(list, nodes ?? [], "name", (first) => {
		const state = h("span");
		const facts = h("span.muted.small.row.end");
		return {
			element: h("li", named(first.name), state, facts),
			update(node) {
				const works = Object.values(node.providers).some(Boolean);
				const [text, kind] = node.draining ? ["restarting", "warn"] : works ? ["up", "good"] : ["no provider", "bad"];
				refill(state, text, badge(text, kind));
				say(facts, `${node.running} of ${node.slots} slots in use, ${node.queued} waiting, version ${node.version}`);
			},
		};
	});
}

function renderAlerts({ list, empty }, alerts) {
	empty.hidden = alerts.length > 0;
	if (!alerts.length && !empty.childElementCount) {
		fill(empty, h("p.muted", "Nothing has happened that you should know of."));
	}
	keyed(
		list,
		alerts,
		(alert) => JSON.stringify([alert.at, alert.kind, alert.subject]),
		(alert) => ({
			element: h(
				"li",
				icon("warning"),
				h("span", named(alert.message)),
				h("span.muted.small.row.end.nowrap", timeElement(alert.at)),
			),
		}),
	);
}
