/** The playground: a prompt, its options, the conversation that comes of it, and the same as code. */

import { copyAs } from "../lib/copyas.js";
import { fill, h, say } from "../lib/dom.js";
import { when } from "../lib/format.js";
import { PROVIDERS } from "../lib/registry.js";
import { badge, button, card, confirm, field, paused, select, toast } from "../lib/ui.js";
import { sends } from "./answer.js";
import { conversation } from "./conversation.js";
import { estimate } from "./estimate.js";
import { images } from "./images.js";
import { memory } from "./memory.js";
import { modelChoice } from "./models.js";

export const title = "Playground";

/** What is typed is kept when it pauses, in milliseconds. */
const PAUSE_MS = 300;
/** Images of more characters than that are not kept: a browser has room for five million of all. */
const MOST_IMAGES = 2e6;
const EFFORTS = ["low", "medium", "high"];
const SENDS = `${/Mac/.test(navigator.platform) ? "⌘" : "Ctrl+"}Enter sends`;

export function show(main, { me, key, headers, first, expired }) {
	const providers = Object.keys(me.models).filter((name) => me.models[name].available && me.models[name].default);
	const store = memory(key, me.name);
	/** The form as it was when the conversation began; null before there is one. */
	let asked = null;
	let gone = false;
	let ready = false;
	let unkept = false;
	const prompt = h("textarea", { rows: "8", placeholder: "Ask something", dir: "auto" });
	const system = h("textarea", { rows: "3", placeholder: "How the model should answer", dir: "auto" });
	const longest = h("input", { type: "number", min: "1", step: "1", placeholder: "the server's default" });
	const effort = select([["", "the model's own"], ...EFFORTS.map((each) => [each, each])]);
	const schema = jsonField(
		["JSON Schema that the answer must fit"],
		'{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}',
		"The schema is not a JSON object yet.",
		(value) => !Array.isArray(value),
	);
	const tools = jsonField(
		["Tools to offer, as JSON", "You play the tools: type what they give, and go on."],
		'[{"name": "get_weather", "inputSchema": {"type": "object", "properties": {"city": {"type": "string"}}}}]',
		"The tools are not a JSON list yet.",
		Array.isArray,
	);
	const inputs = { prompt, system, longest, effort, schema: schema.input, tools: tools.input };
	const send = button("Send", null, ".primary");
	const stop = button("Stop", () => talk.stop(), ".danger", { hidden: true });
	const keys = h("span.hint.keys", SENDS);
	const drop = h("div.drop", field("Prompt", prompt));
	const pictures = images(drop, changed);
	const models = modelChoice({ me, headers, providers, changed });
	const price = estimate(requests, headers);
	const keepSoon = paused(keepBench, PAUSE_MS);
	const notKept = h("p.notice.warn", { role: "status", hidden: true });
	const form = h(
		"form",
		{ onsubmit: submit },
		drop,
		pictures.element,
		models.element,
		h(
			"details.more",
			h("summary", "System prompt, length, schema, tools"),
			h(
				"div.stack",
				field("System prompt", system),
				h("div.fields", field("Longest answer, in tokens", longest), field("Effort", effort)),
				schema.element,
				tools.element,
			),
		),
		h("div.send", send, stop, keys, price.element),
		notKept,
	);
	const talk = conversation({
		headers,
		zone: me.timezone,
		bench: {
			targets: models.targets,
			options,
			changed: happened,
			expired,
			edit(text) {
				prompt.value = text;
				prompt.focus();
				changed();
			},
			chosen: models.only,
		},
	});
	const code = copyAs(() => {
		const [first] = models.targets();
		return { base: location.origin, provider: first.provider, body: talk.bodyOf([], question(), first) };
	});
	const past = pastPrompts();

	sends(form, () => form.requestSubmit());
	main.addEventListener("keydown", (event) => event.key === "Escape" && !event.isComposing && talk.stop());
	if (store.bench) restore(store.bench);
	// The last of the first steps, which lead here from the dashboard.
	if (first && !prompt.value) prompt.value = `Say hello to ${me.name} in one sentence.`;
	ready = true;
	const begin = `This is the playground, with the key of ${me.name}. Press Send for the first answer. `;
	const only = providers.map((each) => badge(PROVIDERS[each].title));
	fill(
		main,
		h("h1.hidden", "Playground"),
		providers.length === 0 && h("p.notice.warn", "No provider is available to this key at the moment. Ask your admin."),
		first && h("p.notice", h("span", begin, h("a", { href: "/admin/" }, "Back to the dashboard"))),
		h(
			"div.workbench",
			{ oninput: changed, onchange: changed },
			h("div.stack", card("Your request", providers[1] ? models.choice : only, form), past.element),
			h("div.stack", talk.element, card("Copy as code", null, code.element)),
		),
	);
	code.update();
	price.update();
	prompt.focus({ preventScroll: true });
	window.addEventListener("pagehide", away);
	window.addEventListener("pageshow", back);
	window.addEventListener("beforeunload", warn);

	// --- the form ---

	/** What goes into each request besides its words. A schema or tools that are no JSON are left out, and said. */
	function options() {
		const [shape, offers] = [schema.read(), tools.read()];
		return {
			...(system.value.trim() && { systemPrompt: system.value }),
			...(longest.value && { maxOutputTokens: longest.valueAsNumber }),
			...(effort.value && { effort: effort.value }),
			...(shape && { schema: shape }),
			...(offers?.length && { tools: offers }),
		};
	}

	function question() {
		return { text: prompt.value, images: pictures.urls() };
	}

	/** What would be sent now. */
	function requests() {
		if (!prompt.value.trim()) return [];
		return models.targets().map((aim) => [aim.provider, talk.bodyOf([], question(), aim)]);
	}

	function submit(event) {
		event.preventDefault();
		if (talk.running()) return;
		options();
		const wrong = form.querySelector("[aria-invalid]");
		if (wrong) {
			wrong.focus();
			return;
		}
		asked = written();
		talk.start(question());
	}

	// --- what is kept ---

	/** What the form says, without its images. */
	function written() {
		const words = Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value]));
		return { ...words, ...models.chosen() };
	}

	function write(form_) {
		for (const [name, input] of Object.entries(inputs)) input.value = form_[name] ?? "";
		models.set(form_);
	}

	/** Something was typed or chosen. */
	function changed() {
		if (!ready) return;
		code.update();
		price.update();
		keepSoon();
	}

	/** Something happened to the conversation. */
	function happened() {
		if (gone) return;
		const running = talk.running() > 0;
		const left = document.activeElement;
		send.disabled = running;
		stop.hidden = !running;
		say(keys, running ? "Esc stops" : SENDS);
		if (left === send && running) stop.focus();
		if (left === stop && !running) send.focus();
		if (!running) price.update(true);
		keep();
		if (!running) past.show();
	}

	/** Keep what is on the bench, and the conversation among the last prompts. */
	function keep() {
		const said = keepBench();
		if (said?.turns.length) store.remember({ ...said, form: asked });
	}

	/** Keep what is on the bench. Gives what was said, undefined where nobody is here any more. */
	function keepBench() {
		if (gone) return undefined;
		const list = pictures.list();
		const fits = list.reduce((sum, each) => sum + each.url.length, 0) < MOST_IMAGES;
		const said = talk.kept();
		const words = written();
		const empty = ![prompt, system, schema.input, tools.input].some(({ value }) => value);
		const nothing = empty && !said.turns.length && !list.length;
		unkept = !store.keep(nothing ? null : { form: words, images: fits ? list : [], asked, talk: said });
		notKept.hidden = fits && !unkept;
		say(
			notKept,
			unkept
				? "This browser has no room left, or keeps nothing: what is here lasts until you leave the page."
				: "The images are too large to be kept in this browser: after a reload, add them again.",
		);
		return said;
	}

	/** What breaks off because the page is left has not failed. */
	function away() {
		keep();
		gone = true;
	}

	/** Somebody has gone back to the page, and the browser still had it. */
	function back(event) {
		if (!event.persisted) return;
		gone = false;
		happened();
	}

	/** Where nothing is kept, leaving asks first. */
	function warn(event) {
		if (unkept && (prompt.value.trim() || talk.running())) event.preventDefault();
	}

	function restore(was) {
		try {
			write(was.form);
			pictures.set(was.images);
			asked = was.asked;
			talk.show(was.talk, pictures.urls());
		} catch {
			// It was kept by a page of another version.
			clear();
		}
	}

	function clear() {
		pictures.set([]);
		asked = null;
		talk.clear();
	}

	/** The last prompts: {element, show()}. */
	function pastPrompts() {
		const summary = h("summary");
		const list = h("ul.past");
		const kept = h("span.hint", "Kept in this browser only, for this key.");
		const foot = h("div.row", button("Forget them all", forget, ".small"), kept);
		const element = h("details.card.past-card", { ontoggle: shown }, summary, list, foot);

		function shown() {
			const all = store.past();
			element.hidden = all.length === 0;
			say(summary, `Last prompts (${all.length})`);
			if (element.open) fill(list, all.map((entry) => h("li", again(entry))));
		}

		function again(entry) {
			return h(
				"button.link-button",
				{ onclick: () => use(entry) },
				h("bdi.truncate", entry.form.prompt || "(no words)"),
				h("span.small.muted.nowrap", when(entry.at)),
			);
		}

		function use(entry) {
			if (talk.running()) {
				toast("An answer is on its way: stop it first.");
				return;
			}
			restore({ form: entry.form, images: [], asked: entry.form, talk: entry });
			if (entry.turns[0]?.question.lost) toast("Its images are not kept: add them again.");
			prompt.focus();
			changed();
		}

		async function forget() {
			const text = "The last prompts with their answers, and what is on this page, go for good.";
			if (!(await confirm("Forget what was written with this key?", text, "Forget it"))) return;
			clear();
			write({ models: {}, rivals: [] });
			store.forget();
			element.open = false;
			shown();
			prompt.focus();
			toast("Forgotten.");
		}

		shown();
		return { element, show: shown };
	}

	return () => {
		away();
		window.removeEventListener("pagehide", away);
		window.removeEventListener("pageshow", back);
		window.removeEventListener("beforeunload", warn);
		talk.stop();
	};
}

/**
 * A field for JSON: {element, input, read()}. `read` gives what is written there, if it `fits`; null where there is
 * nothing, or not yet, which is said as the `problem`.
 */
function jsonField([label, ...explained], placeholder, problem, fits) {
	const input = h("textarea.mono", { rows: "6", spellcheck: "false", placeholder });
	const hint = h("p.hint.wrong", { role: "status" });

	function read() {
		input.removeAttribute("aria-invalid");
		say(hint, "");
		if (!input.value.trim()) return null;
		try {
			const value = JSON.parse(input.value);
			if (value && typeof value === "object" && fits(value)) return value;
		} catch {
			// Said below.
		}
		input.setAttribute("aria-invalid", "true");
		say(hint, problem);
		return null;
	}

	return { element: h("div", field(label, input, ...explained), hint), input, read };
}
