/** Lines of the request log as a table, and one of them in full. */

import { fill, h, icon } from "../lib/dom.js";
import { cost, count, duration, inOwnTime, plural, visible, whenFull } from "../lib/format.js";
import { costOf, lineColumns, lineRow, mono, statusOf } from "../lib/line.js";
import { textBlock } from "../lib/longtext.js";
import { table } from "../lib/table.js";
import { button, copyButton, dialog, errorBox, listFacts, named, skeleton } from "../lib/ui.js";
import { keyLink, keyPage, requestPage } from "./links.js";
import { call } from "./session.js";

/**
 * {element, update(lines, empty), append(lines), prepend(lines)}; a line that is chosen is shown in a dialog. Lines come
 * in the order in which they ended, and are shown by when they began.
 */
export function logTable(caption, { withKey = true } = {}) {
	const { element, body } = table(caption, lineColumns({ key: withKey }));
	const holder = h("div", skeleton(6));
	let ids = null;

	function rowsOf(lines) {
		const byStart = [...lines].sort((one, other) => (one.timestamp < other.timestamp ? 1 : -1));
		return byStart.map((line) =>
			lineRow(line, () => openLine(line), { key: withKey && keyLink(line.keyName), tokens: tokens(line) }),
		);
	}

	return {
		element: holder,
		/** Lines below the others; gives the first of their rows. */
		append(lines) {
			const rows = rowsOf(lines);
			body.append(...rows);
			return rows[0];
		},
		/** Lines above the others, as far as they are new; gives how many are. */
		prepend(lines) {
			const known = new Set([...body.children].map((each) => each.dataset.id));
			const fresh = lines.filter((line) => !known.has(line.id));
			if (!fresh.length) return 0;
			body.prepend(...rowsOf(fresh));
			if (!element.isConnected) fill(holder, element);
			return fresh.length;
		},
		/** Show these lines and no others; nothing is touched where they are the same as before. */
		update(lines, empty) {
			const now = lines.map((line) => line.id).join();
			if (lines.length && now === ids && body.childElementCount === lines.length) return;
			ids = now;
			body.replaceChildren(...rowsOf(lines));
			fill(holder, lines.length ? element : empty);
		},
	};
}

function tokens(line) {
	return line.inputTokens + line.cacheReadTokens + line.cacheWriteTokens + line.outputTokens;
}

/** A line in a dialog, with its prompts as far as the log has them. */
function openLine({ id }) {
	const body = h("div.stack", skeleton(5));
	const copy = h("span");
	lineIn(id, body, copy);
	return dialog(
		(close) => ({
			title: "Request",
			body,
			actions: [
				copyButton(() => linkTo(id), "Copy link"),
				copy,
				button("Close", () => close()),
			],
		}),
		{ wide: true },
	);
}

/** The address of a request's page, to send to a colleague. */
function linkTo(id) {
	return `${location.origin}/admin/${requestPage(id)}`;
}

/** Put a line into `body`, and a button that copies it into `actions`. Gives the line; null where there is none. */
export async function lineIn(id, body, actions, signal) {
	try {
		const line = await call("GET", `/admin/logs/${encodeURIComponent(id)}`, { signal });
		fill(body, details(line));
		fill(actions, copyButton(() => asText(line)));
		return line;
	} catch (error) {
		if (!signal?.aborted) fill(body, errorBox(error));
		return null;
	}
}

const IN_THE_NOTICE = ["Error", "The client was told"];

/** What is known of a line besides its prompts: [term, text, what is shown where that is not the text]. */
function known(line) {
	const times = [
		["Waited for a slot", line.queuedMs],
		["to the first text", line.firstTokenMs],
		["the model", line.modelMs],
		["added by CLI and bridge", line.overheadMs],
		["altogether", line.durationMs],
	].filter(([, value]) => value !== null && value !== undefined);
	const usage = [
		["Input", line.inputTokens],
		["read from cache", line.cacheReadTokens],
		["written to cache", line.cacheWriteTokens],
		["output", line.outputTokens],
		["of it reasoning", line.reasoningTokens],
		["Searches of the web", line.searches],
	].filter(([, value]) => value);
	const rows = [
		["Error", line.error && visible(line.error)],
		["The client was told", line.hint && visible(line.hint)],
		["Provider said", line.upstreamMessage && visible(line.upstreamMessage)],
		["Provider's status", line.upstreamStatus && String(line.upstreamStatus)],
		["Provider's id", line.upstreamRequestId && visible(line.upstreamRequestId), mono(line.upstreamRequestId)],
		["Id", visible(line.id), h("a.mono", { href: requestPage(line.id), onclick: leave }, visible(line.id))],
		["Request id", line.requestId && visible(line.requestId), mono(line.requestId)],
		["When", whenFull(line.timestamp)],
		["Key", visible(line.keyName), h("a", { href: keyPage(line.keyName), onclick: leave }, named(line.keyName))],
		[
			"Model",
			`${visible(line.model)} (${visible(line.provider)})${line.alias ? `, asked for as ${visible(line.alias)}` : ""}`,
		],
		["Credential", line.credential && visible(line.credential)],
		["Tried before", line.tried && visible(line.tried)],
		["Asked by", `${visible(line.api)} API${line.stream ? ", as a stream" : ""}`],
		statusOf(line),
		["Requests", line.times > 1 && `${count(line.times)}, all refused for this reason`],
		["Ended with", line.stopReason && visible(line.stopReason)],
		["Calls", line.calls && visible(line.calls), mono(line.calls)],
		["Asked again", line.repairs > 0 && `${plural(line.repairs, "time")}, because the answer missed its schema`],
		["Cost", `${costOf(line)}${line.reservedUsd ? `, of ${cost(line.reservedUsd)} reserved` : ""}`],
		["Tokens", usage.map(([name, value]) => `${name} ${count(value)}`).join(", ") || "none"],
		["Times", times.map(([name, value]) => `${name} ${duration(value)}`).join(", ") || "none"],
		["Process", line.warm === null ? "none was used" : line.warm ? "stood ready" : "was started for it"],
	];
	return rows.filter(([, text]) => text);
}

/** A link of a dialog leads away from it. */
function leave(event) {
	event.target.closest("dialog")?.close();
}

function details(line) {
	const rows = known(line);
	return [
		line.error &&
			h(
				"div.notice.bad",
				{ role: "alert" },
				icon("warning"),
				h(
					"div",
					h("p.strong", named(inOwnTime(line.error))),
					line.hint && h("p", "The client was told: ", named(line.hint)),
				),
			),
		listFacts(h("dl.facts"), rows.filter(([term]) => !IN_THE_NOTICE.includes(term))),
		prompt("System prompt", line.systemPrompt),
		prompt("Prompt", line.userPrompt),
		h("p.hint", "Answers are not kept. How much of a prompt is kept is set by BRIDGE_LOG_PROMPTS."),
	];
}

/** A line to paste into a message: what the dialog shows, and where it is found. */
function asText(line) {
	const prompts = [["System prompt", line.systemPrompt], ["Prompt", line.userPrompt]].filter(([, text]) => text);
	return [
		...known(line).map(([term, text]) => `${term}: ${text}`),
		`Page: ${linkTo(line.id)}`,
		...prompts.map(([term, text]) => `\n${term}:\n${visible(text)}`),
	].join("\n");
}

function prompt(label, text) {
	return text && h("div", h("h3.label", label), textBlock(label, visible(text)));
}
