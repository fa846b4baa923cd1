/** One answer as it comes: text, state, cost and time, or what went wrong. */

import { ApiError } from "../lib/api.js";
import { fill, h, say, scrolls } from "../lib/dom.js";
import { cost, count, duration, when, whenExact } from "../lib/format.js";
import { longText, textBlock } from "../lib/longtext.js";
import { button, copyButton, errorBox, field } from "../lib/ui.js";
import { markdown } from "./markdown.js";

/** What an answer says that did not simply come to its end. */
const ENDS = {
	max_tokens: "Cut at the longest allowed",
	refusal: "Declined by the model",
	tool_use: "Waiting for the result",
};

/** Let Ctrl+Enter in an element send what is written there. Gives the element. */
export function sends(element, send) {
	element.addEventListener("keydown", (event) => {
		if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
		event.preventDefault();
		send();
	});
	return element;
}

/** Codes of limits that end at a midnight. */
const WINDOW = /_per_(day|month)$/;

/**
 * An answer of `provider`, asked for `model` (null: the server's own). `label` is its name where it is one of several.
 *
 * {element, head, label, provider, model}, and: begin(), event(name, data), fail(error), stopped(), charged(line) show
 * how it comes; `ask(goOn)` offers to go on with what its tools gave, `alone()` says that it was chosen from several,
 * `settle()` that the conversation went on; `format(whether)` shows its Markdown as what it means, once it is all there;
 * `content()` is what it said, for the next request, null where that is nothing; `words()` and `price()` are it as text;
 * `kept()` is all of it, to be shown again by `show(kept)`.
 */
export function answer({ provider, model, zone, label = "" }) {
	const of = label && ` of ${label}`;
	const text = h("div.answer-text", scrolls(`Answer${of}`));
	const state = h("span.muted.small", { role: "status" });
	const problem = h("div.problem");
	const calls = h("div.stack");
	const output = h("div.output");
	const meta = h("div.meta");
	const copy = copyButton(() => words);
	const head = h("div.row.answer-head", label && h("h3", h("bdi", label)), state, copy);
	let words = "";
	const written = longText(text);
	let waiting = "";
	let frame = 0;
	let began = 0;
	let first = null;
	/** How long its reader waited for all of it, in milliseconds, as `first` is for its beginning. */
	let took = null;
	let ticker = 0;
	let doing = "Waiting";
	/** The tool calls so far: {id, result}, with the field for what the tool gave. */
	const called = [];
	/** How it ended: {done}, {error} or {stopped}; null while it comes. */
	let end = null;
	let formatted = false;
	let drawing = null;

	copy.hidden = true;
	const element = h("section.answer", head, problem, text, calls, output, meta);

	function begin() {
		text.classList.add("waiting");
		text.setAttribute("aria-busy", "true");
		began = performance.now();
		tick();
		ticker = setInterval(tick, 1000);
	}

	/** The seconds are not read out: only what is done changes the part that is. */
	function tick() {
		say(state, doing);
		const seconds = Math.round((performance.now() - began) / 1000);
		fill(meta, seconds > 0 && h("span", duration(1000 * seconds)));
	}

	/** It ended so, with `whole` as its words. */
	function close(how, last, whole = words) {
		end = how;
		clearInterval(ticker);
		cancelAnimationFrame(frame);
		flush();
		text.classList.remove("waiting");
		text.setAttribute("aria-busy", "false");
		const other = whole !== words;
		words = whole;
		if (other || formatted) draw();
		copy.hidden = text.hidden = words === "";
		say(state, last);
	}

	function format(whether) {
		if (formatted === whether) return;
		formatted = whether;
		if (end) draw();
	}

	/** Show the words that are there anew. */
	async function draw() {
		drawing?.stop();
		if (words === "") return;
		text.classList.toggle("formatted", formatted);
		written.clear();
		if (!formatted) {
			written.append(words);
			return;
		}
		text.setAttribute("aria-busy", "true");
		const now = markdown(text, words);
		drawing = now;
		await now.done;
		if (drawing === now) text.setAttribute("aria-busy", "false");
	}

	/** Pieces are put on the page once a frame: an answer of a megabyte must not hold anything up. */
	function flush() {
		frame = 0;
		if (!waiting) return;
		const atEnd = text.scrollHeight - text.scrollTop - text.clientHeight < 40;
		written.append(waiting);
		waiting = "";
		if (atEnd) text.scrollTop = text.scrollHeight;
	}

	function event(name, data) {
		if (name === "done") {
			took = performance.now() - began;
			finish(data);
			return;
		}
		doing = name === "queued" ? `Waiting in the queue, place ${data.position}` : "Answering";
		if (name === "delta") {
			first ??= performance.now() - began;
			words += data.text;
			waiting += data.text;
			frame ||= requestAnimationFrame(flush);
		} else if (name === "tool_use") call(data);
		say(state, doing);
	}

	function finish(data) {
		const whole = data.content.map((part) => part.text ?? "").join("");
		close({ done: data }, ENDS[data.stop_reason] || "Done", whole);
		if (words === "" && !called.length) {
			text.hidden = false;
			fill(text, h("p.muted", "The answer is empty."));
		}
		if (data.output !== undefined && data.output !== null) {
			fill(
				output,
				h("h3.label", "As checked against the schema"),
				textBlock(`Structured answer${of}`, JSON.stringify(data.output, null, 2)),
			);
		}
		const { usage } = data;
		const input = usage.input_tokens + (usage.cache_creation_input_tokens ?? 0) + (usage.cache_read_input_tokens ?? 0);
		fill(
			meta,
			item("Cost", cost(data.cost_usd)),
			item("Time", duration(took)),
			first !== null && item("First text", duration(first)),
			item("Tokens", `${count(input)} in, ${count(usage.output_tokens)} out`),
			item("Model", data.model),
		);
	}

	/** Show a call, with a field for what the tool gave: whoever tries the playground is the tool. */
	function call({ id, name, input }) {
		const result = h("textarea.mono", { rows: "2", placeholder: "What the tool would answer", dir: "auto" });
		called.push({ id, result });
		calls.append(
			h(
				"section.call",
				{ "aria-label": `Call of ${name}` },
				h("h3.label", "Calls ", h("bdi.mono", name)),
				textBlock(`Input of ${name}`, JSON.stringify(input, null, 2)),
				field(`Result of ${name}`, result),
			),
		);
	}

	/** Offer to go on with the results; `goOn` gets [{id, content}, …]. */
	function ask(goOn) {
		if (calls.lastElementChild?.matches(".send")) return;
		const send = () => goOn(called.map(({ id, result }) => ({ id, content: result.value })));
		const label = called.length > 1 ? "Send the results" : "Send the result";
		for (const { result } of called) sends(result, send);
		calls.append(h("div.send", button(label, send, ".primary")));
	}

	/** It was one of several, and is the answer now. */
	function alone() {
		head.replaceChildren(state, copy);
		text.setAttribute("aria-label", "Answer");
	}

	/** The conversation went on from here: nothing of this waits any more, and it is no longer "the" answer. */
	function settle() {
		say(state, "");
		for (const each of [text, ...output.querySelectorAll("pre")]) {
			each.removeAttribute("role");
			each.removeAttribute("aria-label");
		}
		text.removeAttribute("tabindex");
		fill(
			calls,
			end?.done?.content
				.filter((part) => part.type === "tool_use")
				.map(({ name, input }) => h("p.mono", `${name}(${JSON.stringify(input)})`)),
		);
	}

	function fail(error) {
		const { text: said, limit, used, remaining, resets_at: resetsAt } = error.body;
		// What the model said all the same: it missed the schema, and was paid for.
		close({ error: { status: error.status, body: error.body } }, "Failed", words || said);
		fill(problem, errorBox(error));
		const show = error.code.startsWith("cost") ? cost : count;
		fill(
			meta,
			limit !== undefined && item("Limit", show(limit)),
			used !== undefined && item("Used", show(used)),
			remaining !== undefined && item("Left", show(remaining)),
			resetsAt &&
				item("Resets", WINDOW.test(error.code) ? `${when(resetsAt)} (midnight in ${zone})` : whenExact(resetsAt)),
		);
	}

	/** What a request has cost that failed, where that is known by now. */
	function charged({ costUsd, durationMs }) {
		end.charged = { costUsd, durationMs };
		meta.append(item("Cost", cost(costUsd)), item("Time", duration(durationMs)));
	}

	function stopped(why = "Stopped by you. What was used until then is charged.") {
		close({ stopped: why }, "Stopped");
		fill(meta, h("span", why));
	}

	function content() {
		if (end?.done) {
			const said = end.done.content.filter((part) => (part.type === "text" ? part.text : part.type === "tool_use"));
			return said.length ? said : null;
		}
		return end && words ? [{ type: "text", text: words }] : null;
	}

	/** "claude-sonnet-5-5, $0.0123, 2.3 s". */
	function price() {
		const done = end?.done;
		if (!done) return [model, state.textContent.toLowerCase()].filter(Boolean).join(", ");
		return [done.model, cost(done.cost_usd), duration(took)].join(", ");
	}

	function kept() {
		// What is still coming ends where it is, should this be all that is left of it.
		const broken = { stopped: "The page was left before its end; what was used is charged." };
		return { provider, model, first, took, words, ...(end ?? broken) };
	}

	function show(was) {
		({ first, words } = was);
		written.append(words);
		if (was.done) {
			took = was.took ?? was.done.duration_ms;
			for (const part of was.done.content) if (part.type === "tool_use") call(part);
			finish(was.done);
		} else if (was.error) fail(new ApiError(was.error.status, was.error.body));
		else stopped(was.stopped);
		if (was.charged) charged(was.charged);
	}

	return {
		element,
		head,
		label,
		provider,
		model,
		begin,
		event,
		fail,
		stopped,
		charged,
		ask,
		format,
		alone,
		settle,
		content,
		words: () => words,
		price,
		kept,
		show,
		ended: () => end,
	};
}

function item(label, value) {
	return h("span", `${label} `, h("b", h("bdi", value)));
}
