/** One key: its limits, its history, its log, and everything that can be done with it. */

import { query } from "../lib/api.js";
import { levels, otherLimits, outlook, showBars } from "../lib/bars.js";
import { chart } from "../lib/chart.js";
import { fill, h, refill, say } from "../lib/dom.js";
import { count, day, inWords, money, resets, spent, timeElement, visible, when } from "../lib/format.js";
import { poll } from "../lib/poll.js";
import { badge, button, card, confirm, emptyState, listFacts, skeleton, toast } from "../lib/ui.js";
import { titlesOf } from "./handover.js";
import { editKey, rotateKey } from "./keyform.js";
import { change } from "./keys.js";
import { keyPath } from "./links.js";
import { logTable } from "./logtable.js";
import { call, look } from "./session.js";

const EVERY_MS = 5000;
/** For what is not seen in the key's figures, such as a request that was refused. */
const SIDE_EVERY_MS = 30000;
const KINDS = { active: "good", revoked: "" };
const DAYS = 90;
const LINES = 15;

export const title = (name) => name;

export function show({ head, body, detail: name, session }) {
	const itsLog = `#/logs${query({ key: name })}`;
	const path = keyPath(name);
	const state = h("span");
	const buttons = h("div.row");
	head.querySelector("h1").before(h("a.quiet.crumb", { href: "#/keys" }, "Keys /"));
	head.append(state, buttons);
	const bars = h("div.bars.wide");
	const noBars = h("p.muted", { hidden: true }, "This key has no cap per day or month.");
	const pace = h("p.small.muted.spaced");
	const facts = h("dl.facts");
	const total = h("span.muted.small");
	const history = chart("bars", {
		describe: (data) => `Cost per day over ${DAYS} days, ${money(data.total)} in total`,
	});
	const failed = h("div");
	const log = logTable("Last requests of this key", { withKey: false });
	fill(body, skeleton(8));
	let ready = false;
	let key = null;
	let happened = "";

	const watch = poll(
		async (signal) => {
			try {
				key = await look(path, signal);
			} catch (failure) {
				if (failure.status !== 404) throw failure;
				fill(body, gone(itsLog));
				fill(buttons);
				return;
			}
			if (!ready) {
				ready = true;
				fill(
					body,
					h("div.three-two", card("Limits", null, bars, noBars, pace), card("About", null, facts)),
					card("Cost per day", total, failed, history.element),
					h(
						"section.card.flush",
						h("div.card-head", h("h2", "Last requests"), h("a.quiet", { href: itsLog }, "All of them")),
						log.element,
					),
				);
			}
			render();
			// History and log are asked for anew only when something has happened.
			const stamp = JSON.stringify([key.usage.today, key.lastUsedAt]);
			if (stamp !== happened) side.now();
			happened = stamp;
		},
		EVERY_MS,
		body,
	);

	const side = poll(
		async (signal) => {
			if (!ready) return;
			const [usage, lines] = await Promise.all([
				look(`/admin/usage/daily${query({ days: DAYS, key: name })}`, signal),
				look(`/admin/logs${query({ key: name, limit: LINES, prompts: "preview" })}`, signal),
			]);
			fill(failed);
			const costs = usage.series[0]?.costUsd ?? usage.days.map(() => 0);
			const sum = costs.reduce((a, b) => a + b, 0);
			say(total, `${money(sum)} in ${DAYS} days`);
			history.update({
				labels: usage.days.map(day),
				total: sum,
				show: money,
				least: 0.01,
				series: [{ label: name, token: "--series-1", values: costs }],
			});
			log.update(lines.logs, emptyState("No requests yet", "What this key asks for is listed here as it happens."));
		},
		SIDE_EVERY_MS,
		failed,
	);

	function render() {
		refill(state, key.status, badge(key.status, KINDS[key.status] ?? "warn"));
		refill(buttons, key.status, actions());
		const shown = levels(key.limits, key.usage, { running: true });
		noBars.hidden = shown.some((level) => level.window);
		showBars(bars, shown, { full: true, note });
		const others = otherLimits(key.limits, shown);
		say(pace, others.length ? `Besides: ${others.join(", ")}.` : "");
		listFacts(facts, about(key));
	}

	function note(level) {
		if (!level.window) return "Those that wait for a slot count, too";
		const ends = resets(key.resetsAt[level.window], session.timezone);
		return [ends, outlook(level, key.forecast)].filter(Boolean).join(". ");
	}

	/** A revoked key can only be looked at. */
	function actions() {
		if (key.status === "revoked") return [];
		const toggle = key.status === "disabled" ? "enable" : "disable";
		return [
			button("Edit", async () => (await editKey(session, key)) && watch.now()),
			button("Rotate", async () => (await rotateKey(session, key)) && watch.now()),
			button(toggle === "enable" ? "Enable" : "Disable", () =>
				change(name, toggle, watch).catch((failure) => toast(failure.message)),
			),
			button("Reset usage", reset),
			button("Revoke", revoke, ".danger"),
		];
	}

	async function reset() {
		const sure = await confirm(
			`Reset the usage of ${name}?`,
			"Today and this month count from zero again, so the caps have all their room back. History, charts and the log stay.",
			"Reset usage",
		);
		if (sure) await act("POST", keyPath(name, "/reset-usage"), `The usage of ${name} is reset.`);
	}

	async function revoke() {
		const sure = await confirm(
			`Revoke ${name} for good?`,
			"The key stops working at once, and what it has running is stopped. This cannot be taken back; its history stays.",
			"Revoke the key",
		);
		if (sure && (await act("DELETE", path, `${name} is revoked.`))) location.hash = "#/keys";
	}

	async function act(method, to, done) {
		try {
			await call(method, to);
			toast(done, null, `key ${name}`);
			watch.now();
			return true;
		} catch (failure) {
			toast(failure.message);
			return false;
		}
	}

	return () => {
		watch.stop();
		side.stop();
		history.destroy();
	};
}

function gone(itsLog) {
	return emptyState(
		"There is no such key",
		"No key of this name is known, not even a revoked one.",
		h("div.row", h("a.button", { href: itsLog }, "Show its log"), h("a.button", { href: "#/keys" }, "All keys")),
	);
}

function secretText(key) {
	if (key.status === "revoked") return "opens nothing any more";
	return key.ending ? `ends with ${visible(key.ending)}` : "made elsewhere";
}

function searchText(key) {
	const made = key.usage.thisMonth.searches;
	const counted = made ? `, ${count(made)} ${made === 1 ? "search" : "searches"} this month` : "";
	return `${key.webSearch ? "allowed" : "not allowed"}${counted}`;
}

function about(key) {
	return [
		["Secret", secretText(key)],
		["Created", when(key.createdAt)],
		["Last used", key.lastUsedAt ? timeElement(key.lastUsedAt) : "never"],
		["Expires", key.expiresAt ? when(key.expiresAt) : "never"],
		["May use", titlesOf(key.providers) || "nothing"],
		...(key.credentials ? [["Credentials", key.credentials.join(", ") || "none"]] : []),
		["Web search", searchText(key)],
		["Models", key.models ? key.models.join(", ") || "none" : "any"],
		...Object.keys(key.resetsAt).map((window) => [inWords(window), spent(key.usage[window])]),
		...(key.forecast ? [["At this pace", `about ${money(key.forecast.costUsd)} by the end of the month`]] : []),
		...(key.usage.thisMonth.assumedUsd > 0
			? [["Of it assumed", `${money(key.usage.thisMonth.assumedUsd)} (runs that broke off without a bill)`]]
			: []),
		...(key.rotatingUntil ? [["Old secret", `works until ${when(key.rotatingUntil)}`]] : []),
		...(key.note ? [["Note", visible(key.note)]] : []),
	];
}
