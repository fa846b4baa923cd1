/** The dialogs of a credential: add one, with the secret pasted once, and change one. */

import { ApiError } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { visible } from "../lib/format.js";
import { CREDENTIAL_BOUNDS, PROVIDERS } from "../lib/registry.js";
import { field, formDialog, nameIn, nameInput, select, textInput, toast } from "../lib/ui.js";
import { elementsOf, listField, numberField, textField, valuesOf } from "./fields.js";
import { call } from "./session.js";

/** The path of a credential; two of different providers can have the name of what the environment brings. */
export function credentialPath({ name, provider }, tail = "") {
	return `/admin/credentials/${encodeURIComponent(name)}${tail}?provider=${encodeURIComponent(provider)}`;
}

/** A name that no credential of this list has yet, such as anthropic or anthropic-2. */
export function freeName(provider, all) {
	const base = PROVIDERS[provider].vendor.toLowerCase();
	const taken = new Set(all.map((each) => each.name));
	for (let number = 1; ; number += 1) {
		const name = number === 1 ? base : `${base}-${number}`;
		if (!taken.has(name)) return name;
	}
}

/** The field for a secret: nobody sees it, no browser keeps it. */
export function secretInput(attributes = {}) {
	// What is pasted may have blanks at its ends, which are taken away.
	const minlength = CREDENTIAL_BOUNDS.apiKey[0];
	return textInput({ type: "password", minlength, ...attributes });
}

/** What to paste for a provider. */
export function secretHint(provider) {
	const { vendor, keyPrefix } = PROVIDERS[provider];
	return `From ${vendor}'s console, where it begins with ${keyPrefix}. It is never shown again.`;
}

/** Ask its provider about a credential. Gives what it said; throws ApiError where the credential does not work. */
export async function test(credential) {
	const { ok, message } = await call("POST", credentialPath(credential, "/test"));
	if (ok) return visible(message);
	const hint = "Is the whole API key there, and is its account in order?";
	throw new ApiError(400, { error: visible(message), hint });
}

/** Ask for a new credential, make it and test it. Gives it, or undefined. */
export async function addCredential(provider, all) {
	const made = await form(null, provider ?? Object.keys(PROVIDERS)[0], all);
	if (!made) return undefined;
	toast(`${made.name} is added.`);
	try {
		await test(made);
		toast(`${made.name} works.`);
	} catch (error) {
		toast(`${made.name} does not work: ${error.message}`);
	}
	return made;
}

/** Change a credential. Gives it, or undefined. */
export function editCredential(credential) {
	return form(credential, credential.provider, []);
}

function form(credential, provider, all) {
	const bounds = CREDENTIAL_BOUNDS;
	const had = credential ?? { limits: {}, priority: 0, weight: 1, maxConcurrent: 0 };
	const dollars = (label, limit) =>
		numberField(label, "", had.limits[limit] ?? 0, 0, { step: "any", placeholder: "no limit" });
	const number = (label, hint, field, usual, placeholder = usual) => {
		const [min, max] = bounds[field];
		return numberField(label, hint, had[field], usual, { min, max, placeholder });
	};
	const text = (label, hint, field, attributes = {}) =>
		textField(label, hint, had[field], { maxlength: bounds[field][1], ...attributes });

	const kinds = Object.entries(PROVIDERS).map(([name, { title, vendor }]) => [name, `${vendor}, for ${title}`]);
	const kind = select(kinds, provider, { onchange: usual });
	const name = nameInput({ value: credential?.name, oninput: () => (typed = true) });
	const secret = secretInput({ required: !credential });
	const secretField = field(credential ? "New API key" : "API key", secret, " ");
	const note = text("Note", "For yourself: whose it is, who pays.", "note");
	const limits = {
		maxCostPerDay: dollars("Dollars per day", "maxCostPerDay"),
		maxCostPerMonth: dollars("Dollars per month", "maxCostPerMonth"),
	};
	const maxConcurrent = number("Requests at once", "", "maxConcurrent", 0, "no limit");
	const more = {
		group: text("Organization", "Keys of one organization share its rate limits; give them the same word.", "group"),
		baseUrl: text("Endpoint", "Only if it is not the provider's own. https, or this host.", "baseUrl", {
			inputmode: "url",
			placeholder: "the usual one",
		}),
		models: listField("Only these models", "With commas between them; * stands for anything. Empty: any.", had.models),
		keys: listField("Only these keys", "Names of the bridge's keys, with commas. Empty: any.", had.keys),
		priority: number("Priority", "The highest comes first with BRIDGE_ROUTING=fill-first.", "priority", 0),
		weight: number("Weight", "Its share beside others that have no budget.", "weight", 1),
	};
	let typed = Boolean(credential);
	usual();

	/** What goes with the chosen provider, as long as nobody has typed another name. */
	function usual() {
		if (!typed) name.value = freeName(kind.value, all);
		const stays = credential?.last4 ? `, which ends with ${credential.last4}` : "";
		secretField.querySelector(".hint").textContent = credential
			? `Empty: the one that it has stays${stays}.`
			: secretHint(kind.value);
	}

	async function send() {
		const body = {
			...valuesOf({ note, maxConcurrent, ...more }),
			name: nameIn(name.value),
			apiKey: secret.value.trim() || undefined,
			limits: valuesOf(limits),
		};
		body.baseUrl ||= null;
		const answer = credential
			? await call("PATCH", credentialPath(credential), { body })
			: await call("POST", "/admin/credentials", { body: { ...body, provider: kind.value } });
		secret.value = "";
		return answer.credential;
	}

	const body = [
		h(
			"div.fields",
			!credential && field("Provider", kind),
			h("div.field.full", secretField),
			field("Name", name, "Only admins see it."),
			note.element,
		),
		h(
			"fieldset",
			h("legend", "What it may spend"),
			h("div.fields.three", elementsOf({ ...limits, maxConcurrent })),
			h("p.hint.spaced", "They work like the caps of a key. Empty: no limit here."),
		),
		h(
			"details.more",
			{ open: Boolean(had.baseUrl || had.group || had.models || had.keys) },
			h("summary", "Organization, order, endpoint"),
			h("div.stack", h("div.fields", elementsOf(more))),
		),
	];
	return credential
		? formDialog(`Change ${credential.name}`, body, "Save", send, { wide: true })
		: formDialog("Add an API key", body, "Add and test", send, { wide: true });
}
