/** Whom a prompt goes to: the provider, its model, and others to compare with, of those that the key may use. */

import { call } from "../lib/api.js";
import { fill, h, icon, say } from "../lib/dom.js";
import { cost, money } from "../lib/format.js";
import { PROVIDERS } from "../lib/registry.js";
import { button, field, segmented, select, textInput } from "../lib/ui.js";

/** The most models that one prompt goes to. */
const MOST_MODELS = 3;

/**
 * {choice, element, targets(), chosen(), set(chosen), only(target)}: `choice` are the buttons of the `providers` that can
 * be asked; `targets()` gives whom to ask, [{provider, model, label}, …]. `me` and `headers` are of the key; `changed()`
 * is called after each change. What is chosen is {provider, models: {provider: name}, rivals: ["provider model", …]}.
 */
export function modelChoice({ me, headers, providers, changed }) {
	let provider = providers[0] ?? Object.keys(PROVIDERS)[0];
	/** What was typed for each provider: no model follows to the other. */
	let models = {};
	let list = [];
	/** All of them run at once. */
	const most = Math.min(MOST_MODELS, me.limits.maxConcurrent || MOST_MODELS);
	const input = textInput({ list: "models", oninput: told });
	const options = h("datalist", { id: "models" });
	const hint = h("p.hint", { id: "model-hint", role: "status" });
	const rivals = h("div.rivals");
	const compare = button([icon("plus"), "Compare"], () => add().focus(), ".small");
	const buttons = providers.map((each) => [each, PROVIDERS[each].title]);
	const choice = segmented("Provider", buttons, provider, (next) => choose(next, models));
	const element = [h("div.row.model-row", h("div", field("Model", input), options, hint), compare), rivals];
	input.setAttribute("aria-describedby", hint.id);
	set({ models, rivals: [] });
	load();

	async function load() {
		try {
			list = (await call("GET", "/v1/models", { headers })).data;
			// Those that were chosen before the list was there had nothing else to choose from.
			const before = rivalsChosen();
			fill(rivals);
			for (const each of before) add(each);
			offer();
		} catch {
			// Any model can be typed all the same.
		}
	}

	function listed(name) {
		return list.filter((each) => each.provider === name);
	}

	/** Choose a provider, and what is typed as the model of each. */
	function choose(next, typed) {
		provider = next;
		models = { ...typed };
		choice.press(next);
		input.value = models[next] ?? "";
		input.placeholder = me.models[next]?.default ?? "";
		offer();
		changed();
	}

	/** Offer what can be chosen now; and to compare, where there is another model and room for it. */
	function offer() {
		fill(options, listed(provider).map((each) => h("option", { value: each.id }, priceOf(each))));
		compare.hidden = providers.flatMap(listed).length < 2 || rivals.children.length >= most - 1;
		told();
	}

	/** What is typed is this provider's; and say what it costs, or what is wrong with it. */
	function told() {
		models[provider] = input.value.trim();
		const name = model();
		const same = list.filter((each) => each.id === name);
		const found = same.find((each) => each.provider === provider);
		const allowed = me.models[provider]?.allowed;
		let wrong = "";
		let said = "";
		if (found) said = priceOf(found);
		else if (same.length) wrong = `That is a model of ${PROVIDERS[same[0].provider].title}.`;
		else if (name && list.length) {
			if (Array.isArray(allowed) && !allowed.includes(name)) wrong = "Your key may not use this one.";
			else said = "Not among the models with a known price: the dearest is counted.";
		}
		hint.classList.toggle("wrong", wrong !== "");
		say(hint, wrong || said);
	}

	/** The name to send. */
	function model() {
		// Named even where nobody has chosen one: the server's own default may be one that this key may not use.
		return models[provider] || me.models[provider]?.default || null;
	}

	/** One more model that the prompt goes to. Gives its field. */
	function add(chosen = usual()) {
		const groups = providers.map((name) => [
			PROVIDERS[name].title,
			listed(name).map((each) => [nameOf(each), [each.id, priceOf(each)].filter(Boolean).join(" · ")]),
		]);
		const find = (name) => list.find((each) => nameOf(each) === name);
		// One that was chosen earlier and is not listed any more is still what was chosen.
		if (!find(chosen)) groups.push(["Not listed", [[chosen, chosen.split(" ")[1]]]]);
		const price = h("p.hint");
		const priced = () => say(price, priceOf(find(rival.value) ?? {}));
		const rival = select(groups, chosen, { onchange: priced });
		const remove = () => {
			row.remove();
			offer();
			compare.focus();
			changed();
		};
		const row = h(
			"div.row.rival",
			field("Compared with", rival),
			h("button.icon-button", { "aria-label": "Do not compare with it", onclick: remove }, icon("close")),
			price,
		);
		priced();
		rivals.append(row);
		offer();
		changed();
		return rival;
	}

	/** Whom to compare with: the other provider's usual model first, then whatever is not asked yet. */
	function usual() {
		const taken = targets().map((each) => each.model);
		const all = providers.flatMap(listed);
		const free = all.filter((each) => !taken.includes(each.id));
		return nameOf(free.find((each) => each.id === me.models[each.provider].default) ?? free[0] ?? all[0]);
	}

	function rivalsChosen() {
		return [...rivals.querySelectorAll("select")].map((each) => each.value);
	}

	function targets() {
		const all = [[provider, model()], ...rivalsChosen().map((each) => each.split(" "))];
		return all.map(([name, id]) => ({ provider: name, model: id, label: id ?? PROVIDERS[name].title }));
	}

	function chosen() {
		return { provider, models: { ...models }, rivals: rivalsChosen() };
	}

	function set(was) {
		fill(rivals);
		choose(providers.includes(was.provider) ? was.provider : provider, was.models);
		for (const each of was.rivals) if (providers.includes(each.split(" ")[0])) add(each);
	}

	/** Go on with one of those that were asked. */
	function only(target) {
		set({ provider: target.provider, models: { ...models, [target.provider]: target.model }, rivals: [] });
	}

	return { choice, element, targets, chosen, set, only };
}

/** A model among those of all providers. */
function nameOf({ provider, id }) {
	return `${provider} ${id}`;
}

/** "$3.00 in, $15.00 out per million tokens"; empty where it is not known. */
function priceOf({ pricing }) {
	if (!pricing) return "";
	const show = (usd) => (usd > 0 && usd < 0.01 ? cost(usd) : money(usd));
	return `${show(pricing.input)} in, ${show(pricing.output)} out per million tokens${pricing.assumed ? " (assumed)" : ""}`;
}
