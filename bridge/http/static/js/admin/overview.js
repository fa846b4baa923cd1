/** Overview: who spends what, how well it works, and what needs attention. */

import { bars } from "../lib/bars.js";
import { REST_TOKEN } from "../lib/chart.js";
import { fill, h, icon, redraw, say } from "../lib/dom.js";
import { ago, compact, count, duration, money, percent, resets, timeElement, when } from "../lib/format.js";
import { poll } from "../lib/poll.js";
import { LIMITS, PROVIDERS } from "../lib/registry.js";
import { badge, card, emptyState, named, skeleton } from "../lib/ui.js";
import { costChart, hourChart } from "./charts.js";
import { keyBadge } from "./keys.js";
import { keyLink } from "./links.js";
import { providerList } from "./providers.js";
import { look } from "./session.js";

const EVERY_MS = 5000;
const VERDICTS = {
	green: ["good", "Ready"],
	yellow: ["warn", "Busy, new requests wait"],
	red: ["bad", "Full, new requests are refused"],
};

export function show({ head, body }) {
	const verdict = h("span.pill");
	const summary = h("div.stack");
	const costs = costChart({ extra: h("a.quiet", { href: "#/usage" }, "Usage in detail") });
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
	const state = h("div.three-two");
	const events = h("div.stack");

	head.append(verdict);
	fill(body, skeleton(8));

	const watch = poll(
		async (signal) => {
			const overview = await look("/admin/overview", signal);
			if (!summary.isConnected)
				fill(body, summary, costs.element, state, h("div.two", pace.element, latency.element), events);
			render(overview);
		},
		EVERY_MS,
		body,
		() => showVerdict("", "Not known: the bridge does not answer"),
	);

	function showVerdict(kind, text) {
		verdict.className = `pill ${kind}`;
		say(verdict, text);
	}

	function render(overview) {
		const [kind, text] = VERDICTS[overview.capacity.verdict];
		const used = `${text}: ${overview.running} of ${overview.slots} slots in use`;
		showVerdict(kind, overview.draining ? "Restarting: nothing new is taken" : used);
		redraw(summary, problems(overview), h("div.tiles", tiles(overview)));
		redraw(state, closest(overview), card("Providers", null, providerList(overview)));
		pace.update(overview.activity.hours);
		latency.update(overview.activity.hours);
		const { firstTokenMs, durationMs } = overview.activity.lastDay;
		const slowest = () => `95% within ${duration(durationMs.p95)}, first text within ${duration(firstTokenMs.p95)}`;
		say(latency.note, durationMs.p50 === null ? "last 48 hours" : slowest());
		redraw(events, overview.nodes && hosts(overview.nodes), alerts(overview.alerts ?? []));
	}

	return () => {
		watch.stop();
		costs.stop();
		pace.destroy();
		latency.destroy();
	};
}

function tiles({ totals, forecast, activity, running, queued, resetsAt, timezone }) {
	const { today, thisMonth, reserved } = totals;
	const { ok, failed, refused } = activity.lastDay;
	const tile = (label, value, note, more, title) =>
		h(
			"section.card.tile",
			{ title },
			h("div.tile-label", label),
			h("div.tile-value", value),
			h("div.tile-note", note),
			h("div.tile-note", more),
		);
	return [
		tile(
			"Cost today",
			money(today.costUsd),
			`${money(thisMonth.costUsd)} this month${forecast ? `, about ${money(forecast.costUsd)} by its end` : ""}`,
			reserved.costUsd > 0 && `${money(reserved.costUsd)} reserved now`,
			resets(resetsAt.today, timezone),
		),
		tile(
			"Requests today",
			count(today.requests),
			`${count(thisMonth.requests)} this month`,
			`${running} running, ${queued} waiting`,
		),
		tile(
			"Tokens today",
			compact(today.tokens),
			`${compact(thisMonth.tokens)} this month`,
			today.tokens > 0 && `${percent(today.outputTokens / today.tokens)} of them written`,
		),
		tile(
			"Error rate",
			ok + failed ? percent(failed / (ok + failed)) : "–",
			`${count(failed)} of ${count(ok + failed)} failed in 24 h, and ${count(refused)} refused`,
			// The ledger counts what was stopped as an error, too; the statistics of the day do not.
			thisMonth.requests > 0 &&
				`${percent(thisMonth.errors / thisMonth.requests)} this month, stopped ones included`,
		),
	];
}

/** What is wrong, and where it can be mended. */
function problems(overview) {
	const notice = (kind, text, ...link) =>
		h(`div.notice.${kind}`, { key: text }, icon("warning"), h("p", named(text)), link);
	return [
		...unpaid(overview.providers).map(([text, href, mend]) =>
			notice("bad", text, h("a.button.small", { href }, mend)),
		),
		...overview.problems.map((text) => notice("warn", text)),
	];
}

/** The providers that nothing can be asked of because nothing pays for it: [text, where to mend it, how]. */
function unpaid(providers) {
	if (providers.every((each) => each.credentials === "demo")) return [];
	if (providers.every((each) => each.credentials_known === 0))
		return [["There is no API key of a provider yet, so every request is refused.", "#/start", "Set it up"]];
	return providers
		.filter((each) => each.credentials_known > 0 && each.credentials_open === 0)
		.map(({ name }) => [
			`${PROVIDERS[name]?.title ?? name} has no usable credential, so its requests are refused.`,
			"#/credentials",
			"See why",
		]);
}

function closest({ closest: keys, resetsAt, timezone }) {
	const { today, thisMonth } = resetsAt;
	const ends = `The day ends ${when(today)} (${ago(today)}), the month ${when(thisMonth)}: midnight in ${timezone}.`;
	const none = () =>
		emptyState(
			"No key has a cap yet",
			"A key with a limit per day or month shows here how much of it is used.",
			h("a.button", { href: "#/keys" }, "Go to the keys"),
		);
	const item = (key) => {
		const { title: label, unit } = LIMITS.find((each) => each.name === key.limit);
		const level = bars([{ ...key, label, unit }]);
		return h("li.closest", { key: key.name }, h("div.row", keyLink(key.name), keyBadge(key)), level);
	};
	const content = keys.length ? [h("ul.dot-list", keys.map(item)), h("p.hint.list-foot", ends)] : none();
	return card("Closest to their caps", h("a.quiet", { href: "#/keys" }, "All keys"), content);
}

/** The hosts that share keys and money, where there are several. */
function hosts(nodes) {
	const item = ({ name, providers, draining, running, slots, queued, version }) => {
		const works = Object.values(providers).some(Boolean);
		const facts = `${running} of ${slots} slots in use, ${queued} waiting, version ${version}`;
		return h(
			"li",
			{ key: name },
			named(name),
			draining ? badge("restarting", "warn") : works ? badge("up", "good") : badge("no provider", "bad"),
			h("span.muted.small.row.end", facts),
		);
	};
	return card("Hosts", null, h("ul.dot-list", nodes.map(item)));
}

function alerts(all) {
	const item = ({ at, message }) =>
		h("li", icon("warning"), h("span", named(message)), h("span.muted.small.row.end.nowrap", timeElement(at)));
	const none = h("p.muted", "Nothing has happened that you should know of.");
	return card("Alerts", null, all.length ? h("ul.dot-list", all.map(item)) : none);
}
