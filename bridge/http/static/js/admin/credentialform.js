/** The dialogs of a credential: add one, with the secret pasted once, and change one. */

import { fill, h } from "../lib/dom.js";
import { listOf } from "../lib/format.js";
import { CREDENTIAL_BOUNDS, PROVIDERS } from "../lib/registry.js";
import { button, dialog, field, nameIn, nameInput, select, submits, textInput, toast } from "../lib/ui.js";
import { call } from "./session.js";

const ID = "credential-form";

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

/** Ask for a new credential, make it and test it. Gives it, or undefined. */
export async function addCredential(provider, all) {
	const made = await dialog((close) => form(null, provider ?? Object.keys(PROVIDERS)[0], all, close), { wide: true });
	if (!made) return undefined;
	toast(`${made.name} is added.`);
	try {
		const result = await call("POST", credentialPath(made, "/test"));
		toast(result.ok ? `${made.name} works.` : `${made.name} does not work: ${result.message}`);
	} catch (error) {
		toast(error.message);
	}
	return made;
}

/** Change a credential. Gives it, or undefined. */
export function editCredential(credential) {
	return dialog((close) => form(credential, credential.provider, [], close), { wide: true });
}

function form(credential, provider, all, close) {
	const text = ([, maxlength], attributes = {}) => textInput({ maxlength, ...attributes });
	const number = (attributes, [min, max] = [0]) =>
		h("input", { type: "number", min, ...(max && { max }), step: "1", inputmode: "decimal", ...attributes });
	const kind = select(
		Object.entries(PROVIDERS).map(([name, { title, vendor }]) => [name, `${vendor}, for ${title}`]),
		provider,
		{ onchange: () => usual() },
	);
	const name = nameInput({ oninput: () => (typed = true) });
	const secret = secretInput({ required: !credential });
	const secretField = field(credential ? "New API key" : "API key", secret, " ");
	const group = text(CREDENTIAL_BOUNDS.group);
	const note = text(CREDENTIAL_BOUNDS.note);
	const baseUrl = text(CREDENTIAL_BOUNDS.baseUrl, { inputmode: "url", placeholder: "the usual one" });
	const day = number({ step: "any", placeholder: "no limit" });
	const month = number({ step: "any", placeholder: "no limit" });
	const priority = number({ placeholder: "0" }, CREDENTIAL_BOUNDS.priority);
	const weight = number({ placeholder: "1" }, CREDENTIAL_BOUNDS.weight);
	const atOnce = number({ placeholder: "no limit" }, CREDENTIAL_BOUNDS.maxConcurrent);
	const models = textInput({ placeholder: "any" });
	const keys = textInput({ placeholder: "any" });
	const problem = h("div");
	let typed = Boolean(credential);

	if (credential) {
		name.value = credential.name;
		group.value = credential.group;
		note.value = credential.note;
		baseUrl.value = credential.baseUrl ?? "";
		day.value = credential.limits.maxCostPerDay || "";
		month.value = credential.limits.maxCostPerMonth || "";
		priority.value = credential.priority || "";
		weight.value = credential.weight === 1 ? "" : credential.weight;
		atOnce.value = credential.maxConcurrent || "";
		models.value = (credential.models ?? []).join(", ");
		keys.value = (credential.keys ?? []).join(", ");
	}
	usual();

	/** What goes with the chosen provider, as long as nobody has typed another name. */
	function usual() {
		if (!typed) name.value = freeName(kind.value, all);
		secretField.querySelector(".hint").textContent = credential
			? `Empty: the one that it has stays${credential.last4 ? `, which ends with ${credential.last4}` : ""}.`
			: secretHint(kind.value);
	}

	const save = button(credential ? "Save" : "Add and test", null, ".primary", { form: ID });

	async function send() {
		const body = {
			name: nameIn(name.value),
			...(credential ? {} : { provider: kind.value }),
			...(secret.value && { apiKey: secret.value.trim() }),
			baseUrl: baseUrl.value.trim() || null,
			group: group.value.trim(),
			note: note.value.trim(),
			limits: { maxCostPerDay: day.valueAsNumber || 0, maxCostPerMonth: month.valueAsNumber || 0 },
			priority: priority.valueAsNumber || 0,
			weight: weight.valueAsNumber || 1,
			maxConcurrent: atOnce.valueAsNumber || 0,
			models: listOf(models.value),
			keys: listOf(keys.value),
		};
		const answer = credential
			? await call("PATCH", credentialPath(credential), { body })
			: await call("POST", "/admin/credentials", { body });
		secret.value = "";
		close(answer.credential);
	}

	return {
		title: credential ? `Change ${credential.name}` : "Add an API key",
		body: h(
			"form.stack",
			{ id: ID, onsubmit: submits(problem, send) },
			h(
				"div.fields",
				!credential && field("Provider", kind),
				h("div.field.full", secretField),
				field("Name", name, "Only admins see it."),
				field("Note", note, "For yourself: whose it is, who pays."),
			),
			h(
				"fieldset",
				h("legend", "What it may spend"),
				h(
					"div.fields.three",
					field("Dollars per day", day),
					field("Dollars per month", month),
					field("Requests at once", atOnce),
				),
				h("p.hint.spaced", "They work like the caps of a key. Empty: no limit here."),
			),
			h(
				"details.more",
				{
					open: Boolean(credential && (credential.baseUrl || credential.group || credential.models || credential.keys)),
				},
				h("summary", "Organization, order, endpoint"),
				h(
					"div.stack",
					h(
						"div.fields",
						field("Organization", group, "Keys of one organization share its rate limits; give them the same word."),
						field("Endpoint", baseUrl, "Only if it is not the provider's own. https, or this host."),
						field("Only these models", models, "With commas between them; * stands for anything. Empty: any."),
						field("Only these keys", keys, "Names of the bridge's keys, with commas. Empty: any."),
						field("Priority", priority, "The highest comes first with BRIDGE_ROUTING=fill-first."),
						field("Weight", weight, "Its share beside others that have no budget."),
					),
				),
			),
			problem,
		),
		actions: [button("Cancel", () => close()), save],
	};
}
