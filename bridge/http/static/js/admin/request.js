/** One request of the log in full: in a dialog, and on a page of its own, whose address can be sent to somebody. */

import { fill, h, icon } from "../lib/dom.js";
import { cost, count, duration, inOwnTime, plural, visible, whenFull } from "../lib/format.js";
import { costOf, mono, statusOf } from "../lib/line.js";
import { textBlock } from "../lib/longtext.js";
import { button, copyButton, dialog, errorBox, factList, named, skeleton } from "../lib/ui.js";
import { keyPage, requestPage } from "./links.js";
import { call } from "./session.js";

export function show({ head, body, detail: id }) {
	const request = load(id);
	head.append(h("div.row", request.buttons));
	fill(body, h("section.card", request.element));
	return () => {};
}

/** A request in a dialog. */
export function openRequest({ id }) {
	const request = load(id);
	return dialog(
		(close) => ({
			title: "Request",
			body: request.element,
			actions: [request.buttons, button("Close", () => close())],
		}),
		{ wide: true },
	);
}

/** What the log has of a request, with its prompts as far as they are kept: {element, buttons}. */
function load(id) {
	const element = h("div.stack", skeleton(6));
	const copy = h("span");
	call("GET", `/admin/logs/${encodeURIComponent(id)}`)
		.then((line) => {
			fill(element, details(line));
			fill(copy, copyButton(() => asText(line)));
		})
		.catch((error) => fill(element, errorBox(error)));
	return { element, buttons: [copyButton(() => linkTo(id), "Copy link"), copy] };
}

/** The address of its page, to send to a colleague. */
function linkTo(id) {
	return `${location.origin}/admin/${requestPage(id)}`;
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
		["Error", line.error],
		["The client was told", line.hint],
		["Provider said", line.upstreamMessage],
		["Provider's status", line.upstreamStatus],
		["Provider's id", line.upstreamRequestId, mono(line.upstreamRequestId)],
		["Id", line.id, h("a.mono", { href: requestPage(line.id), onclick: leave }, visible(line.id))],
		["Request id", line.requestId, mono(line.requestId)],
		["When", whenFull(line.timestamp)],
		["Key", line.keyName, h("a", { href: keyPage(line.keyName), onclick: leave }, named(line.keyName))],
		["Model", `${line.model} (${line.provider})${line.alias ? `, asked for as ${line.alias}` : ""}`],
		["Credential", line.credential],
		["Tried before", line.tried],
		["Asked by", `${line.api} API${line.stream ? ", as a stream" : ""}`],
		statusOf(line),
		["Requests", line.times > 1 && `${count(line.times)}, all refused for this reason`],
		["Ended with", line.stopReason],
		["Calls", line.calls, mono(line.calls)],
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
		factList(rows.filter(([term]) => !IN_THE_NOTICE.includes(term))),
		prompt("System prompt", line.systemPrompt),
		prompt("Prompt", line.userPrompt),
		h("p.hint", "Answers are not kept. How much of a prompt is kept is set by BRIDGE_LOG_PROMPTS."),
	];
}

/** A line to paste into a message: what the dialog shows, and where it is found. */
function asText(line) {
	const prompts = [["System prompt", line.systemPrompt], ["Prompt", line.userPrompt]].filter(([, text]) => text);
	return [
		...known(line).map(([term, text]) => `${term}: ${visible(text)}`),
		`Page: ${linkTo(line.id)}`,
		...prompts.map(([term, text]) => `\n${term}:\n${visible(text)}`),
	].join("\n");
}

function prompt(label, text) {
	return text && h("div", h("h3.label", label), textBlock(label, visible(text)));
}
