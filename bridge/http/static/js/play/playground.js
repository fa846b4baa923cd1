/** The playground: a prompt, its options, the conversation that comes of it, and the same as code. */

import { copyAs } from "../lib/copyas.js";
import { fill, h, icon, say } from "../lib/dom.js";
import { when } from "../lib/format.js";
import { PROVIDERS } from "../lib/registry.js";
import { badge, button, card, confirm, field, segmented, select, toast } from "../lib/ui.js";
import { sends } from "./answer.js";
import { conversation } from "./conversation.js";
import { estimate } from "./estimate.js";
import { images } from "./images.js";
import { memory } from "./memory.js";
import { modelField, priceOf } from "./models.js";

export const title = "Playground";

/** What is typed is kept when it pauses, in milliseconds. */
const PAUSE_MS = 300;
/** Images of more characters than that are not kept: a browser has room for five million of all. */
const MOST_IMAGES = 2e6;
/** The most models that one prompt goes to. */
const MOST_MODELS = 3;
const EFFORTS = ["low", "medium", "high"];
const SENDS = `${/Mac/.test(navigator.platform) ? "⌘" : "Ctrl+"}Enter sends`;

export function show(main, { me, key, headers, first, expired }) {
	const providers = Object.keys(me.models).filter((name) => me.models[name].available && me.models[name].default);
	let provider = providers[0] ?? Object.keys(PROVIDERS)[0];
	const store = memory(key, me.name);
	/** When the conversation began, by which its prompt is remembered; null before there is one. */
	let began = null;
	let asked = null;
	let gone = false;
	let ready = false;
	let unkept = false;
	let timer = 0;
	let listed = [];
	const prompt = h("textarea", { rows: "8", placeholder: "Ask something", dir: "auto" });
	const system = h("textarea", { rows: "3", placeholder: "How the model should answer", dir: "auto" });
	const longest = h("input", { type: "number", min: "1", step: "1", placeholder: "the server's default" });
	const effort = select([["", "the model's own"], ...EFFORTS.map((each) => [each, each])]);
	const schema = json("schema", '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}');
	const tools = json(
		"tools",
		'[{"name": "get_weather", "inputSchema": {"type": "object", "properties": {"city": {"type": "string"}}}}]',
	);
	const inputs = { prompt, system, longest, effort, schema, tools };
	const schemaHint = h("p.hint.wrong", { role: "status" });
	const toolsHint = h("p.hint.wrong", { role: "status" });
	const send = button("Send", null, ".primary");
	const stop = button("Stop", () => talk.stop(), ".danger", { hidden: true });
	const keys = h("span.hint.keys", SENDS);
	const drop = h("div.drop", field("Prompt", prompt));
	const pictures = images(drop, changed);
	const price = estimate(() => (prompt.value.trim() ? targets().map((aim) => [aim.provider, body(aim)]) : []), headers);
	const model = modelField({ me, headers, known });
	const rivals = h("div.rivals");
	const compare = button([icon("plus"), "Compare"], () => rival(), ".small", { hidden: true });
	const choice = segmented(
		"Provider",
		providers.map((each) => [each, PROVIDERS[each]?.title ?? each]),
		provider,
		choose,
	);
	const notKept = h("p.notice.warn", { role: "status", hidden: true });
	const form = h(
		"form",
		{ onsubmit: submit, oninput: changed, onchange: changed },
		drop,
		pictures.element,
		h("div.row.model-row", model.element, compare),
		rivals,
		h(
			"details.more",
			h("summary", "System prompt, length, schema, tools"),
			h(
				"div.stack",
				field("System prompt", system),
				h("div.fields", field("Longest answer, in tokens", longest), field("Effort", effort)),
				h("div", field("JSON Schema that the answer must fit", schema), schemaHint),
				h(
					"div",
					field("Tools to offer, as JSON", tools, "You play the tools: type what they give, and go on."),
					toolsHint,
				),
			),
		),
		h("div.send", send, stop, keys, price.element),
		notKept,
	);
	const bench = {
		targets,
		options,
		changed: happened,
		typed: changed,
		expired,
		edit(text) {
			prompt.value = text;
			prompt.focus();
			changed();
		},
		chosen(answer) {
			model.set({ [answer.provider]: answer.model });
			fill(rivals);
			offer();
			choose(answer.provider);
		},
		forked() {
			began = Date.now();
		},
	};
	const talk = conversation({ headers, zone: me.timezone, bench });
	const code = copyAs(() => ({ base: location.origin, provider, body: body(targets()[0]) }));
	const past = pastPrompts();

	const back = h("a", { href: "/admin/" }, "Back to the dashboard");
	form.addEventListener("keydown", sends(() => form.requestSubmit()));
	main.addEventListener("keydown", (event) => event.key === "Escape" && !event.isComposing && talk.stop());
	choose(provider);
	if (store.bench) restore(store.bench);
	// The last of the first steps, which lead here from the dashboard.
	if (first && !prompt.value) prompt.value = `Say hello to ${me.name} in one sentence.`;
	ready = true;
	fill(
		main,
		h("h1.hidden", "Playground"),
		providers.length === 0 && h("p.notice.warn", "No provider is available to this key at the moment. Ask your admin."),
		first &&
			h(
				"p.notice",
				h("span", `This is the playground, with the key of ${me.name}. Press Send for the first answer. `, back),
			),
		h(
			"div.workbench",
			h("div.stack", card("Your request", providers[1] ? choice : providers.map((each) => badge(PROVIDERS[each].title)), form), past.element),
			h("div.stack", talk.element, card("Copy as code", null, code.element)),
		),
	);
	code.update();
	price.update();
	prompt.focus({ preventScroll: true });
	window.addEventListener("pagehide", keep);
	window.addEventListener("beforeunload", warn);

	// --- the form ---

	function json(name, example) {
		return h("textarea.mono", { rows: "6", spellcheck: "false", name, placeholder: example });
	}

	function choose(name) {
		provider = name;
		choice.press(name);
		model.choose(name);
		changed();
	}

	function known(list) {
		listed = list.filter((each) => providers.includes(each.provider));
		offer();
	}

	/** Offer to compare, where there is another model and room for it. */
	function offer() {
		compare.hidden = listed.length < 2 || rivals.children.length >= MOST_MODELS - 1;
	}

	/** One more model that the prompt goes to. */
	function rival(chosen = "") {
		const groups = providers.map((name) => [
			PROVIDERS[name].title,
			listed
				.filter((each) => each.provider === name)
				.map((each) => [`${name} ${each.id}`, [each.id, priceOf(each)].filter(Boolean).join(" · ")]),
		]);
		// One that was chosen earlier and is not listed any more is still what was chosen.
		if (chosen && !listed.some((each) => chosen === `${each.provider} ${each.id}`)) {
			groups.push(["Not listed", [[chosen, chosen.split(" ")[1]]]]);
		}
		// The other provider's usual one first, then whatever is not asked yet.
		const asked_ = targets().map((each) => each.model);
		const free = listed.filter((each) => !asked_.includes(each.id));
		const other = free.find((each) => each.id === me.models[each.provider].default) ?? free[0] ?? listed[0];
		const costs = h("p.hint");
		const priced = () =>
			say(costs, priceOf(listed.find((each) => input.value === `${each.provider} ${each.id}`) ?? {}));
		const input = select(groups, chosen || `${other.provider} ${other.id}`, { onchange: priced });
		const remove = () => {
			row.remove();
			offer();
			compare.focus();
			changed();
		};
		const row = h(
			"div.row.rival",
			field("Compared with", input),
			h("button.icon-button", { "aria-label": "Do not compare with it", onclick: remove }, icon("close")),
			costs,
		);
		priced();
		rivals.append(row);
		offer();
		if (ready && !chosen) input.focus();
		changed();
	}

	/** The models beside the first one, each "provider model". */
	function rivalsChosen() {
		return [...rivals.querySelectorAll("select")].map((each) => each.value);
	}

	/** Whom to ask: [{provider, model, label}, …]. */
	function targets() {
		const all = [[provider, model.value()], ...rivalsChosen().map((each) => each.split(" "))];
		return all.map(([name, id]) => ({ provider: name, model: id, label: id ?? PROVIDERS[name].title }));
	}

	/** What goes into each request besides its words. A schema or tools that are no JSON are left out, and said. */
	function options() {
		const shape = jsonOf(schema, schemaHint, "The schema is not a JSON object yet.", (value) => !Array.isArray(value));
		const offers = jsonOf(tools, toolsHint, "The tools are not a JSON list yet.", Array.isArray);
		return {
			...(system.value.trim() && { systemPrompt: system.value }),
			...(longest.value && { maxOutputTokens: longest.valueAsNumber }),
			...(effort.value && { effort: effort.value }),
			...(shape && { schema: shape }),
			...(offers?.length && { tools: offers }),
		};
	}

	function body(aim) {
		const urls = pictures.urls();
		return {
			userPrompt: prompt.value,
			...(urls.length && { images: urls }),
			...(aim.model && { model: aim.model }),
			...options(),
		};
	}

	/** What is written in a field as JSON, if it `fits`; null where there is nothing, or not yet. */
	function jsonOf(input, hint, problem, fits) {
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

	function submit(event) {
		event.preventDefault();
		if (talk.running()) return;
		options();
		const wrong = [schema, tools].find((input) => input.getAttribute("aria-invalid"));
		if (wrong) {
			wrong.focus();
			return;
		}
		began = Date.now();
		asked = written();
		talk.start({ text: prompt.value, images: pictures.urls() });
	}

	// --- what is kept ---

	/** What the form says, without its images. */
	function written() {
		const words = Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value]));
		return { ...words, provider, models: model.chosen(), rivals: rivalsChosen() };
	}

	function write(form_) {
		for (const [name, input] of Object.entries(inputs)) input.value = form_[name] ?? "";
		model.set(form_.models);
		fill(rivals);
		offer();
		if (providers.includes(form_.provider)) choose(form_.provider);
		for (const each of form_.rivals) if (providers.includes(each.split(" ")[0])) rival(each);
	}

	/** Something was typed or chosen. */
	function changed() {
		if (!ready) return;
		code.update();
		price.update();
		clearTimeout(timer);
		timer = setTimeout(keepBench, PAUSE_MS);
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
		if (began && !running) past.show();
	}

	/** Keep what is on the bench, and the conversation among the last prompts. */
	function keep() {
		const said = keepBench();
		if (said?.turns.length) store.remember({ at: began, form: asked, ...said });
	}

	/** Keep what is on the bench. Gives what was said, undefined where nobody is here any more. */
	function keepBench() {
		clearTimeout(timer);
		if (gone) return undefined;
		const urls = pictures.list();
		const fits = urls.reduce((sum, each) => sum + each.url.length, 0) < MOST_IMAGES;
		const said = talk.kept();
		const form_ = written();
		const empty =
			!said.turns.length && !urls.length && !["prompt", "system", "schema", "tools"].some((each) => form_[each]);
		const all = store.keep(empty ? null : { form: form_, images: fits ? urls : [], began, asked, talk: said });
		const problem = all
			? fits || "The images are too large to be kept in this browser: after a reload, add them again."
			: "This browser has no room left, or keeps nothing: what is here lasts until you leave the page.";
		notKept.hidden = problem === true;
		if (problem !== true) say(notKept, problem);
		unkept = !all;
		return said;
	}

	/** Where nothing is kept, leaving asks first. */
	function warn(event) {
		if (unkept && (prompt.value.trim() || talk.running())) event.preventDefault();
	}

	function restore(was) {
		try {
			write(was.form);
			pictures.set(was.images);
			began = was.began;
			asked = was.asked;
			talk.show(was.talk, pictures.urls());
		} catch {
			// It was kept by a page of another version.
			pictures.set([]);
			began = asked = null;
			talk.clear();
		}
	}

	/** The last prompts: {element, show()}. */
	function pastPrompts() {
		const summary = h("summary");
		const list = h("ul.past");
		const element = h(
			"details.card.past-card",
			{ ontoggle: shown },
			summary,
			list,
			h(
				"div.row",
				button("Forget them all", forget, ".small"),
				h("span.hint", "Kept in this browser only, for this key."),
			),
		);

		function shown() {
			const all = store.past();
			element.hidden = all.length === 0;
			say(summary, `Last prompts (${all.length})`);
			if (!element.open) return;
			fill(
				list,
				all.map((entry) =>
					h(
						"li",
						h(
							"button.link-button",
							{ onclick: () => use(entry) },
							h("bdi.truncate", entry.form.prompt || "(no words)"),
							h("span.small.muted.nowrap", when(new Date(entry.at).toISOString())),
						),
					),
				),
			);
		}

		function use(entry) {
			if (talk.running()) {
				toast("An answer is on its way: stop it first.");
				return;
			}
			const lost = entry.turns[0]?.question.lost ?? 0;
			restore({ form: entry.form, images: [], began: entry.at, asked: entry.form, talk: entry });
			if (lost) toast("Its images are not kept: add them again.");
			prompt.focus();
			changed();
		}

		async function forget() {
			const text = "The last prompts with their answers, and what is on this page, go for good.";
			if (!(await confirm("Forget what was written with this key?", text, "Forget it"))) return;
			began = asked = null;
			talk.clear();
			pictures.set([]);
			write({ provider, models: {}, rivals: [] });
			clearTimeout(timer);
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
		keep();
		gone = true;
		clearTimeout(timer);
		window.removeEventListener("pagehide", keep);
		window.removeEventListener("beforeunload", warn);
		talk.stop();
	};
}
