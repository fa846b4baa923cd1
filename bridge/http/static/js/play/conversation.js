/** The conversation: what was asked, the answers to it side by side where it went to several models, how it goes on. */

import { ApiError, call, events, open, readable } from "../lib/api.js";
import { fill, h, icon, scrolls } from "../lib/dom.js";
import { plural } from "../lib/format.js";
import { longTextIn } from "../lib/longtext.js";
import { PROVIDERS } from "../lib/registry.js";
import { button, card, copyButton, download, field, segmented } from "../lib/ui.js";
import { answer, sends } from "./answer.js";
import { estimate } from "./estimate.js";

/** Words of a question that need no scroll bar, in characters. */
const SHORT = 300;

/**
 * `bench` is what the conversation stands in: `targets()` gives whom to ask, [{provider, model, label}, …]; `options()`
 * what goes into each request besides the words; `edit(text)` puts the first words back where they were written;
 * `chosen(answer)` hears which of several goes on, `changed()` of what is worth keeping, and of how many answers are on
 * their way; `expired(error)` that the key is not good any more.
 *
 * {element, start(question), stop(), clear(), running(), kept(), show(kept, images), bodyOf(turns, question, target)}; a
 * question is {text, images: [data URLs]} or {results: [{id, content}]}.
 */
export function conversation({ headers, zone, bench }) {
	const intro = h("p.muted", "The answer appears here as it is written, with its cost and how long it took.");
	const list = h("div.turns");
	const words = h("textarea", { rows: "3", dir: "auto", placeholder: "Your next words, or what to do better" });
	const price = estimate(() => {
		const text = words.value.trim();
		return text && !reply.hidden ? bench.targets().map((aim) => [aim.provider, bodyOf(turns, { text }, aim)]) : [];
	}, headers);
	const reply = asking("Go on", words, "Reply", price.element, (text) => {
		words.value = "";
		ask({ text });
	});
	const view = segmented("How answers are shown", [[false, "Text"], [true, "Formatted"]], false, look);
	const tools = h(
		"div.row.answer-tools",
		{ hidden: true },
		view,
		copyButton(transcript, "Copy prompt and answer"),
		button([icon("save"), "Save as a file"], save, ".small"),
	);
	const element = card("Answer", tools, intro, list, reply);
	let turns = [];
	/** When it began, or took another way: in milliseconds since 1970. */
	let at = 0;
	let formatted = false;
	/** The answers on their way, each with what stops it. */
	const running = new Map();

	reply.classList.add("reply");
	reply.hidden = true;
	reply.addEventListener("input", () => price.update());

	/** Show the answers as they are written, or formatted. */
	function look(whether) {
		formatted = whether;
		for (const turn of turns) for (const each of turn.answers) each.format(whether);
		bench.changed();
	}

	/** Begin anew. What was there is no longer shown. */
	function start(question) {
		clear();
		at = Date.now();
		ask(question);
	}

	function clear() {
		stop();
		turns = [];
		words.value = "";
		settle();
	}

	function stop() {
		for (const controller of running.values()) controller.abort();
	}

	/** A form that asks what is written in its field, where that is something; `goOn(text)` does. */
	function asking(label, input, action, beside, goOn) {
		const onsubmit = (event) => {
			event.preventDefault();
			if (input.value.trim() && !running.size) goOn(input.value);
		};
		const form = h("form", { onsubmit }, field(label, input), h("div.send", button(action, null, ".primary"), beside));
		return sends(form, () => form.requestSubmit());
	}

	async function ask(question, aims = bench.targets()) {
		const requests = aims.map((aim) => bodyOf(turns, question, aim));
		const turn = make(question, requests[0].systemPrompt, aims);
		turns.push(turn);
		settle();
		hold(turn);
		turn.element.scrollIntoView({ block: "nearest" });
		await Promise.all(turn.answers.map((each, place) => one(turn, each, requests[place])));
		settle();
		// The tool is who sits here. Whoever has waited at the answer goes on with it.
		const waited = document.activeElement === turn.element && !reply.hidden;
		const next = turn.grid.querySelector(".call textarea") ?? (waited && words);
		if (next) next.focus({ preventScroll: true });
	}

	/** Where what had the focus is gone or hidden, it goes to what is shown in its place. */
	function hold(turn) {
		if (document.activeElement.offsetParent === null) turn.element.focus({ preventScroll: true });
	}

	async function one(turn, each, body) {
		const controller = new AbortController();
		const { signal } = controller;
		running.set(each, controller);
		each.begin();
		heads(turn);
		bench.changed();
		let id;
		try {
			const { path } = PROVIDERS[each.provider];
			const stream = await open("POST", path, { body: { ...body, stream: true }, headers, signal });
			id = stream.headers.get("X-Request-Id");
			await follow(each, stream);
		} catch (error) {
			if (error.name === "AbortError") each.stopped();
			else each.fail(readable(error));
			if (error.status === 401) takeBack(turn, error);
			else charge(each, error.body?.request_id ?? id);
		} finally {
			running.delete(each);
			heads(turn);
			bench.changed();
		}
	}

	async function follow(each, stream) {
		for await (const [name, data] of events(stream)) {
			if (name === "error") throw new ApiError(200, data);
			each.event(name, data);
			if (name === "done") return;
		}
		const hint = "Send it again; what was used is charged.";
		throw new ApiError(0, { error: "The answer broke off before its end.", hint });
	}

	/** Say what a request has cost that failed or was stopped, once its line is among one's own. */
	async function charge(each, id, tries = 5) {
		if (!id) return;
		try {
			const { requests } = await call("GET", "/me/requests", { headers });
			const line = requests.find((request) => request.requestId === id);
			if (line?.costUsd) each.charged(line);
			else if (!line && tries) setTimeout(charge, 1000, each, id, tries - 1);
		} catch {
			// My usage says it, too.
		}
	}

	/** Nothing was asked where the key was no longer good: the words go back to where they were written. */
	function takeBack(turn, error) {
		if (!turns.includes(turn)) return;
		turns = turns.filter((each) => each !== turn);
		if (turns.length && turn.question.text) words.value = turn.question.text;
		bench.changed();
		bench.expired(error);
	}

	// --- what is shown ---

	function make(question, system, aims) {
		const answers = aims.map((aim) => answer({ ...aim, zone, label: aims.length > 1 ? aim.label : "" }));
		for (const each of answers) each.format(formatted);
		const grid = h(`div.answers${aims.length > 1 ? ".abreast" : ""}`, answers.map((each) => each.element));
		const turn = { question, system, answers, grid, asked: h("div.asked") };
		turn.element = h("section.turn", { tabindex: "-1" }, turn.asked, grid);
		fill(turn.asked, asked(turn));
		return turn;
	}

	function asked(turn) {
		const { text, images = [], lost = 0, results } = turn.question;
		if (results) return [h("h3.label", "What the tools gave"), results.map(({ content }) => h("p.mono", content))];
		const pictures = images.length + lost;
		const asked_ = h("div.asked-text", { dir: "auto", ...(text.length >= SHORT && scrolls("What you asked")) });
		return [
			h("div.row", h("h3.label", "You"), button("Edit", () => edit(turn), ".small")),
			longTextIn(asked_, text),
			pictures > 0 && h("p.hint", `with ${plural(pictures, "image")}${lost ? ", which this browser has not kept" : ""}`),
		];
	}

	/** Write a question anew: from there on the conversation takes another way. */
	function edit(turn) {
		if (running.size) return;
		const place = turns.indexOf(turn);
		if (place === 0) {
			bench.edit(turn.question.text);
			return;
		}
		const input = h("textarea", { rows: "3", dir: "auto" });
		input.value = turn.question.text;
		const cancel = button("Cancel", () => {
			fill(turn.asked, asked(turn));
			turn.asked.querySelector("button").focus();
		});
		const form = asking("Ask it differently", input, "Ask again", cancel, (text) => {
			turns = turns.slice(0, place);
			at = Date.now();
			ask({ text });
		});
		fill(turn.asked, form);
		input.focus();
	}

	/** Of several answers, each can be stopped while it comes, and taken to go on with once it is there. */
	function heads(turn) {
		if (turn.answers.length < 2) return;
		for (const each of turn.answers) {
			each.head.querySelector(".of-several")?.remove();
			const controller = running.get(each);
			const act = (label, onclick, kind = "") => {
				const named = { "aria-label": `${label}: ${each.label}` };
				each.head.append(button(label, onclick, `.small.of-several${kind}`, named));
			};
			if (controller) act("Stop", () => controller.abort(), ".danger");
			else if (each.content()) act("Use this one", () => use(turn, each));
		}
		hold(turn);
	}

	function use(turn, each) {
		for (const other of turn.answers) if (other !== each) running.get(other)?.abort();
		turn.answers = [each];
		turn.grid.classList.remove("abreast");
		fill(turn.grid, each.element);
		each.alone();
		bench.chosen(each);
		settle();
		bench.changed();
		if (reply.hidden) hold(turn);
		else words.focus();
	}

	/** Bring everything in line with the turns that there are. */
	function settle() {
		for (const turn of [...list.children]) if (!turns.some((each) => each.element === turn)) turn.remove();
		for (const [place, turn] of turns.entries()) {
			if (!turn.element.isConnected) list.append(turn.element);
			if (place < turns.length - 1) for (const each of turn.answers) each.settle();
		}
		const last = turns.at(-1);
		const [only, ...others] = last?.answers ?? [];
		const said = others.length === 0 && !running.size && only?.content();
		const calls = said && only.ended().done?.stop_reason === "tool_use";
		intro.hidden = turns.length > 0;
		tools.hidden = turns.length === 0;
		reply.hidden = !said || calls;
		if (calls) only.ask((results) => !running.size && ask({ results }, [only]));
	}

	// --- what is kept, copied, saved ---

	function transcript() {
		const system = turns[0]?.system;
		const parts = turns.flatMap(({ question, answers }) => [
			question.results
				? `What the tools gave:\n${question.results.map(({ content }) => content).join("\n")}`
				: `Prompt:\n${question.text}`,
			...answers.map((each) => `Answer (${each.price()}):\n${each.words()}`),
		]);
		return [system && `System prompt:\n${system}`, ...parts].filter(Boolean).join("\n\n").trimEnd();
	}

	function save() {
		const stamp = new Date().toISOString().slice(0, 16).replace(/[T:]/g, "-");
		download(`answer-${stamp}.md`, "text/markdown", [transcript(), "\n"]);
	}

	function kept() {
		return {
			at,
			reply: words.value,
			formatted,
			turns: turns.map(({ question: { text, images = [], lost = 0, results }, system, answers }) => ({
				question: { text, lost: images.length + lost, results },
				system,
				answers: answers.map((each) => ({ label: each.label, ...each.kept() })),
			})),
		};
	}

	/** Show again what was kept; `images` are those beside the prompt, in case they are what the first words came with. */
	function show(was, images = []) {
		clear();
		at = was.at ?? Date.now();
		formatted = Boolean(was.formatted);
		view.press(formatted);
		turns = was.turns.map(({ question, system, answers }, place) => {
			const same = place === 0 && images.length > 0 && question.lost === images.length;
			const turn = make(same ? { ...question, images, lost: 0 } : question, system, answers);
			turn.answers.forEach((each, number) => each.show(answers[number]));
			return turn;
		});
		settle();
		for (const turn of turns) heads(turn);
		words.value = was.reply;
		price.update();
	}

	return { element, start, stop, clear, running: () => running.size, kept, show, bodyOf };

	/** The request that asks a model a question after some turns. */
	function bodyOf(before, question, { model }) {
		const options = { ...bench.options(), ...(model && { model }) };
		if (!before.length) {
			const { text, images } = question;
			return { userPrompt: text, ...(images.length && { images }), ...options };
		}
		const messages = before.flatMap(({ question: asked_, answers: [said] }) => [
			{ role: "user", content: partsOf(asked_) },
			{ role: "assistant", content: said.content() },
		]);
		return { ...options, messages: [...messages, { role: "user", content: partsOf(question) }] };
	}
}

function partsOf({ text, images = [], results }) {
	if (results) return results.map(({ id, content }) => ({ type: "tool_result", toolUseId: id, content }));
	const pictures = images.map((url) => {
		return { type: "image", mediaType: url.slice(5, url.indexOf(";")), data: url.slice(url.indexOf(",") + 1) };
	});
	return [...pictures, { type: "text", text }];
}
