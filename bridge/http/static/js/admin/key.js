/** One key: its limits, its history, its log, and everything that can be done with it. */

import { query } from "../lib/api.js";
import { bars, levelNote, levels, otherLimits } from "../lib/bars.js";
import { fill, h, redraw } from "../lib/dom.js";
import { count, inWords, money, spent, timeElement, when } from "../lib/format.js";
import { poll } from "../lib/poll.js";
import { badge, button, card, confirm, emptyState, factList, skeleton, toast } from "../lib/ui.js";
import { costChart } from "./charts.js";
import { titlesOf } from "./handover.js";
import { editKey, rotateKey } from "./keyform.js";
import { change } from "./keys.js";
import { keyPath } from "./links.js";
import { logTable } from "./logtable.js";
import { call, look } from "./session.js";

const EVERY_MS = 5000;
/** For what is not seen in the key's figures, such as a request that was refused. */
const LOG_EVERY_MS = 30000;
const KINDS = { active: "good", revoked: "" };
const LINES = 15;

export function show({ head, body, detail: name, session }) {
	const itsLog = `#/logs${query({ key: name })}`;
	const path = keyPath(name);
	const state = h("span");
	const buttons = h("div.row");
	head.append(state, buttons);
	const figures = h("div.three-two");
	const costs = costChart({ key: name, days: 90 });
	const failed = h("div");
	const log = logTable("Last requests of this key", { withKey: false });
	fill(body, skeleton(8));
	let key = null;
	let happened = null;

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
			if (!figures.isConnected) {
				fill(
					body,
					figures,
					costs.element,
					h(
						"section.card.flush",
						h("div.card-head", h("h2", "Last requests"), h("a.quiet", { href: itsLog }, "All of them")),
						failed,
						log.element,
					),
				);
			}
			render();
			// Costs and log are asked for anew only when something has happened.
			const stamp = JSON.stringify([key.usage.today, key.lastUsedAt]);
			if (happened !== null && stamp !== happened) {
				costs.now();
				last.now();
			}
			happened = stamp;
		},
		EVERY_MS,
		body,
	);

	const last = poll(
		async (signal) => {
			const { logs } = await look(`/admin/logs${query({ key: name, limit: LINES, prompts: "preview" })}`, signal);
			fill(failed);
			log.show(logs, emptyState("No requests yet", "What this key asks for is listed here as it happens."));
		},
		LOG_EVERY_MS,
		failed,
	);

	function render() {
		redraw(state, badge(key.status, KINDS[key.status] ?? "warn"));
		redraw(buttons, actions());
		const caps = levels(key.limits, key.usage, { running: true });
		const others = otherLimits(key.limits, caps);
		const limits = [
			h("div.bars.wide", bars(caps, { full: true, note })),
			!caps.some((level) => level.window) && h("p.muted", "This key has no cap per day or month."),
			others.length > 0 && h("p.small.muted.spaced", `Besides: ${others.join(", ")}.`),
		];
		redraw(figures, card("Limits", null, limits), card("About", null, factList(about(key))));
	}

	function note(level) {
		if (!level.window) return "Those that wait for a slot count, too";
		return levelNote(level, key, session.timezone);
	}

	/** A revoked key can only be looked at. */
	function actions() {
		if (key.status === "revoked") return [];
		const toggle = key.status === "disabled" ? "Enable" : "Disable";
		return [
			button("Edit", async () => (await editKey(key)) && watch.now()),
			button("Rotate", async () => (await rotateKey(key)) && watch.now()),
			button(toggle, () => change(name, toggle.toLowerCase(), watch)),
			button("Reset usage", reset),
			button("Revoke", revoke, ".danger"),
		];
	}

	async function reset() {
		const sure = await confirm(
			`Reset the usage of ${name}?`,
			"Today and this month count from zero again: the caps have all their room back. History, charts and the log stay.",
			"Reset usage",
			() => call("POST", keyPath(name, "/reset-usage")),
		);
		if (!sure) return;
		toast(`The usage of ${name} is reset.`, null, `key ${name}`);
		watch.now();
	}

	async function revoke() {
		const sure = await confirm(
			`Revoke ${name} for good?`,
			"The key stops working at once, and what it has running is stopped. This cannot be taken back; its history stays.",
			"Revoke the key",
			() => call("DELETE", path),
		);
		if (!sure) return;
		toast(`${name} is revoked.`, null, `key ${name}`);
		location.hash = "#/keys";
	}

	return () => {
		watch.stop();
		costs.stop();
		last.stop();
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
	return key.ending ? `ends with ${key.ending}` : "made elsewhere";
}

function searchText(key) {
	const made = key.usage.thisMonth.searches;
	const counted = made ? `, ${count(made)} ${made === 1 ? "search" : "searches"} this month` : "";
	return `${key.webSearch ? "allowed" : "not allowed"}${counted}`;
}

function about(key) {
	const { thisMonth } = key.usage;
	return [
		["Secret", secretText(key)],
		["Created", when(key.createdAt)],
		["Last used", key.lastUsedAt ? timeElement(key.lastUsedAt) : "never"],
		["Expires", key.expiresAt ? when(key.expiresAt) : "never"],
		["May use", titlesOf(key.providers) || "nothing"],
		key.credentials && ["Credentials", key.credentials.join(", ") || "none"],
		["Web search", searchText(key)],
		["Models", key.models ? key.models.join(", ") || "none" : "any"],
		...Object.keys(key.resetsAt).map((window) => [inWords(window), spent(key.usage[window])]),
		key.forecast && ["At this pace", `about ${money(key.forecast.costUsd)} by the end of the month`],
		thisMonth.assumedUsd > 0 && [
			"Of it assumed",
			`${money(thisMonth.assumedUsd)} (runs that broke off without a bill)`,
		],
		key.rotatingUntil && ["Old secret", `works until ${when(key.rotatingUntil)}`],
		key.note && ["Note", key.note],
	];
}
