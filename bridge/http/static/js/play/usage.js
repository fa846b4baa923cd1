/** The holder's own usage: bars, what remains, when it resets, what it was spent on, and the last requests. */

import { call, query } from "../lib/api.js";
import { bars, levelNote, levels, otherLimits } from "../lib/bars.js";
import { breakdownTable, dayRange } from "../lib/breakdown.js";
import { fill, h, icon, redraw } from "../lib/dom.js";
import { count, duration, inOwnTime, inWords, money, spent, visible, when, whenFull } from "../lib/format.js";
import { hintOf } from "../lib/hints.js";
import { costOf, lineTable, mono, statusOf } from "../lib/line.js";
import { poll } from "../lib/poll.js";
import { PROVIDERS } from "../lib/registry.js";
import { button, card, copyButton, dialog, emptyState, factList, named } from "../lib/ui.js";

export const title = "My usage";

const EVERY_MS = 5000;

export function show(main, { me: first, headers, expired }) {
	const heading = h("h1", { tabindex: "-1" }, "My usage");
	const caps = h("div.bars.wide");
	const noBars = h("p.muted", { hidden: true }, "Your key has no cap per day or month.");
	const facts = h("div");
	const { element, row, show: list } = lineTable("Your last requests");
	const empty = emptyState(
		"No requests yet",
		"What you ask for is listed here as it happens.",
		h("a.button", { href: "#/" }, "Go to the playground"),
	);
	const spent = breakdownTable("What you spent on what", "Model");
	const days = dayRange(first.timezone, {}, () => watch.now());
	fill(
		main,
		h("div.page-head", heading),
		h(
			"div.stack",
			h("div.three-two", card("Limits", null, caps, noBars), card("Your key", null, facts)),
			h(
				"section.card.flush",
				h("div.card-head", h("h2", "Last requests"), h("span.hint", "Press one to see it in full.")),
				element,
			),
			h("section.card.flush", h("div.card-head", h("h2", "On what"), days.element), spent.element),
		),
	);
	heading.focus({ preventScroll: true });

	const watch = poll(
		async (signal) => {
			// One after the other: where the key is no longer good, one answer says so, and no second one gets in its way.
			const me = await ask("/me", signal);
			const { requests } = await ask("/me/requests", signal);
			const usage = await ask(`/me/usage${query({ ...days.range(), by: "model" })}`, signal);
			const shown = levels(me.limits, me.usage);
			noBars.hidden = shown.length > 0;
			redraw(caps, bars(shown, { full: true, note: (level) => levelNote(level, me, me.timezone) }));
			redraw(facts, factList(about(me, otherLimits(me.limits, shown))));
			list(requests.map(requestRow), empty);
			spent.update(usage, "model");
		},
		EVERY_MS,
		element,
	);

	function requestRow(line) {
		return row(line, () => openRequest(line), {
			tokens: line.inputTokens + line.outputTokens,
			asked: line.error && visible(inOwnTime(line.error)),
		});
	}

	/** A key that is no longer good ends the page, and says why. */
	async function ask(path, signal) {
		try {
			return await call("GET", path, { headers, signal });
		} catch (error) {
			if (error.status === 401 || error.status === 403) expired(error);
			throw error;
		}
	}

	return watch.stop;
}

function about(me, others) {
	const may = Object.entries(me.models)
		.filter(([, { allowed }]) => allowed.length)
		.map(([name, { allowed }]) => PROVIDERS[name].title + (Array.isArray(allowed) ? ` (${allowed.join(", ")})` : ""));
	return [
		["Name", me.name],
		...Object.keys(me.resetsAt).map((each) => [inWords(each), spent(me.usage[each])]),
		["At most", others.length ? others.join(", ") : "no limit on pace"],
		["May use", may.join(", ") || "nothing"],
		["Expires", me.expiresAt ? when(me.expiresAt) : "never"],
		me.forecast && ["At this pace", `about ${money(me.forecast.costUsd)} by the end of the month`],
	];
}

/** A request in full, in a dialog: why it failed, and what to send to the admin. */
function openRequest(line) {
	const times = [
		duration(line.durationMs),
		line.firstTokenMs !== null && `first text after ${duration(line.firstTokenMs)}`,
		line.queuedMs > 0 && `${duration(line.queuedMs)} of it in the queue`,
	];
	const rows = [
		["What to do", line.hint && visible(hintOf(line))],
		["Request id", line.requestId && visible(line.requestId), mono(line.requestId)],
		["When", whenFull(line.timestamp)],
		["Model", `${visible(line.model)} (${line.provider})`],
		statusOf(line),
		["Ended with", line.stopReason && visible(line.stopReason)],
		["Cost", costOf(line)],
		["Tokens", `${count(line.inputTokens)} in, ${count(line.outputTokens)} out`],
		["Took", times.filter(Boolean).join(", ")],
		["Prompt", line.userPrompt && visible(line.userPrompt)],
	].filter(([, text]) => text);
	const text = [line.error, ...rows.map(([term, value]) => `${term}: ${value}`)].filter(Boolean).join("\n");
	return dialog(
		(close) => ({
			title: "Request",
			body: [
				line.error && h("div.notice.bad", icon("warning"), h("p.strong", named(inOwnTime(line.error)))),
				factList(rows),
				h("p.hint", "Your admin finds it by its request id. Answers are not kept by the bridge."),
			],
			actions: [copyButton(() => text), button("Close", () => close())],
		}),
		{ wide: true },
	);
}
