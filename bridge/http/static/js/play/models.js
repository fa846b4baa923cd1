/** The models that a key may use, with their prices, and the fields to choose among them. */

import { call } from "../lib/api.js";
import { fill, h, say } from "../lib/dom.js";
import { cost, money } from "../lib/format.js";
import { PROVIDERS } from "../lib/registry.js";
import { field, textInput } from "../lib/ui.js";

/**
 * {element, choose(provider), value(), chosen(), set(chosen)}: a model for each provider, since none follows to the
 * other; `me` and `headers` are of the key. `chosen` is {provider: name} of what was typed, and `value()` the name to
 * send. `known(list)` hears of the models, [{id, provider, pricing}, …], once they are there.
 */
export function modelField({ me, headers, known }) {
	const names = {};
	let provider = null;
	let list = [];
	const input = textInput({ list: "models", oninput: told });
	const options = h("datalist", { id: "models" });
	const hint = h("p.hint", { id: "model-hint", role: "status" });
	const element = h("div", field("Model", input), options, hint);
	input.setAttribute("aria-describedby", hint.id);
	load();

	async function load() {
		try {
			list = (await call("GET", "/v1/models", { headers })).data;
		} catch {
			// Those that /me names are offered, without prices.
			list = Object.entries(me.models).flatMap(([each, { allowed, default: usual }]) =>
				(Array.isArray(allowed) ? allowed : [usual])
					.filter(Boolean)
					.map((id) => ({ id, provider: each, pricing: null })),
			);
		}
		known(list);
		if (provider) offer();
	}

	function choose(next) {
		provider = next;
		input.value = names[next] ?? "";
		input.placeholder = me.models[next]?.default ?? "";
		offer();
	}

	function offer() {
		fill(
			options,
			list.filter((each) => each.provider === provider).map((each) => h("option", { value: each.id }, priceOf(each))),
		);
		told();
	}

	/** What is typed is this provider's; and say what it costs, or what is wrong with it. */
	function told() {
		names[provider] = input.value.trim();
		const name = value();
		const found = list.find((each) => each.id === name && each.provider === provider);
		const other = list.find((each) => each.id === name && each.provider !== provider);
		const allowed = me.models[provider]?.allowed;
		hint.classList.remove("wrong");
		if (found || !name || !list.length) {
			say(hint, found ? priceOf(found) : "");
			return;
		}
		if (other) say(hint, `That is a model of ${PROVIDERS[other.provider].title}.`);
		else if (Array.isArray(allowed) && !allowed.includes(name)) say(hint, "Your key may not use this one.");
		else {
			say(hint, "Not among the models with a known price: the dearest is counted.");
			return;
		}
		hint.classList.add("wrong");
	}

	function value() {
		// Named even where nobody has chosen one: the server's own default may be one that this key may not use.
		return names[provider] || me.models[provider]?.default || null;
	}

	function set(chosen) {
		Object.assign(names, chosen);
		if (provider) choose(provider);
	}

	return { element, choose, value, chosen: () => ({ ...names }), set };
}

/** "$3.00 in, $15.00 out per million tokens"; empty where it is not known. */
export function priceOf({ pricing }) {
	if (!pricing) return "";
	const show = (usd) => (usd > 0 && usd < 0.01 ? cost(usd) : money(usd));
	return `${show(pricing.input)} in, ${show(pricing.output)} out per million tokens${pricing.assumed ? " (assumed)" : ""}`;
}
