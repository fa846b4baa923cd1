/** The first steps: an API key of a provider, a first key with a cap, and a first answer with it. */

import { fill, h, icon } from "../lib/dom.js";
import { visible } from "../lib/format.js";
import { TAB_KEY, linkWith } from "../lib/pasted.js";
import { PROVIDERS } from "../lib/registry.js";
import { button, copyButton, errorBox, field, nameIn, nameInput, segmented, skeleton, submits } from "../lib/ui.js";
import { credentialPath, freeName, secretHint, secretInput, test } from "./credentialform.js";
import { isOpen } from "./credentials.js";
import { numberField } from "./fields.js";
import { onlyOnce, secretBox } from "./handover.js";
import { noteOf } from "./keyform.js";
import { call, look } from "./session.js";

const USUAL_CAP = 5;

export function show({ body }) {
	const controller = new AbortController();
	/** What is there: credentials, keys, the state of the CLIs, and what was made here. */
	const found = { credentials: [], keys: [], providers: [], credential: null, key: null };
	fill(body, skeleton(6));

	async function begin() {
		try {
			const [credentials, keys, overview] = await Promise.all(
				["/admin/credentials", "/admin/keys", "/admin/overview"].map((path) => look(path, controller.signal)),
			);
			found.credentials = credentials.credentials;
			found.keys = keys.keys;
			found.providers = overview.providers;
			found.credential = found.credentials.find(isOpen) ?? null;
			if (found.credential && found.keys.length) {
				// All was set up before: a link led here that was only to log in.
				location.replace("#/");
				return;
			}
			render();
		} catch (error) {
			if (error.name !== "AbortError") fill(body, errorBox(error, begin));
		}
	}

	/** Draw the steps: those that are done in a line, the next one open. */
	function render() {
		const place = !found.credential ? 0 : !found.key ? 1 : 2;
		const steps = [
			["An API key of a provider", paste, () => doneCredential(found.credential)],
			["A key for somebody, with a cap", makeKey, () => `Made for ${found.key.name}.`],
			["The first answer", ask, () => ""],
		];
		fill(
			body,
			h(
				"ol.steps",
				steps.map(([heading, open, done], number) =>
					h(
						"li.card.step",
						{
							"data-state": number < place ? "done" : number === place ? "now" : "later",
							"aria-current": number === place ? "step" : null,
						},
						h(
							"div.row",
							h("span.step-number", { "aria-hidden": "true" }, number < place ? icon("check") : String(number + 1)),
							h("h2", heading),
						),
						number < place && h("p.muted", done()),
						number === place && open(),
					),
				),
			),
		);
		body.querySelector("[data-state=now] :is(input, .button.primary)")?.focus({ preventScroll: true });
	}

	function paste() {
		const choices = Object.entries(PROVIDERS).map(([name, { title, vendor }]) => [name, `${vendor} (${title})`]);
		let [[provider]] = choices;
		/** A credential that was saved and has failed its test: the next takes its place. */
		let made = null;
		const secret = secretInput({ required: true });
		const secretField = field("API key", secret, " ");
		const trouble = h("div");
		const result = h("div", { role: "status" });
		const goOn = button("Go on all the same", done, "", { hidden: true });
		choose(provider);

		function done() {
			found.credential = made;
			render();
		}

		function choose(name) {
			provider = name;
			secretField.querySelector(".hint").textContent = secretHint(name);
			// Of a CLI that is there, all that can be wrong yet is what this step mends.
			fill(trouble, problemOf(found.providers.filter(({ version }) => !version), name));
		}

		async function save() {
			goOn.hidden = true;
			fill(result, h("p.muted", `Saving it, and asking ${PROVIDERS[provider].vendor} for its list of models…`));
			try {
				if (made) await call("DELETE", credentialPath(made));
				made = null;
				const body = { name: freeName(provider, found.credentials), provider, apiKey: secret.value.trim() };
				made = (await call("POST", "/admin/credentials", { body })).credential;
				await test(made);
				done();
			} finally {
				goOn.hidden = made === null;
				secret.focus();
				secret.select();
			}
		}

		return h(
			"form.stack.step-body",
			{ onsubmit: submits(result, save) },
			h(
				"p.muted",
				"The bridge pays for its requests with it. Set a spending limit in the provider's console as well. ",
				"One provider is enough; more of them, and of each, can be added on the page Credentials.",
			),
			segmented("Provider", choices, provider, choose),
			trouble,
			secretField,
			result,
			h("div.row", button("Save and test", null, ".primary"), goOn),
		);
	}

	function makeKey() {
		const name = nameInput({ placeholder: "ada" });
		const hint = "What could cost more is refused before it runs.";
		const most = { min: "0.01", step: "any", required: true };
		const cap = numberField("Dollars a day, at most", hint, USUAL_CAP, 0, most);
		const problem = h("div");

		async function make() {
			const body = { name: nameIn(name.value), note: noteOf(name.value), maxCostPerDay: cap.read() };
			found.key = await call("POST", "/admin/keys", { body });
			render();
		}

		return h(
			"form.stack.step-body",
			{ onsubmit: submits(problem, make) },
			h("p.muted", "Everybody who uses the bridge gets a key of their own. More caps: on the page Keys."),
			h("div.fields", field("Who is it for?", name, "A person or a script."), cap.element),
			problem,
			h(
				"div.row",
				button("Make the key", null, ".primary"),
				found.keys.length > 0 && h("a.button", { href: "#/" }, "There are keys: to the overview"),
			),
		);
	}

	function ask() {
		const trouble = h("div");
		look("/admin/overview", controller.signal)
			.then(({ providers }) => fill(trouble, problemOf(providers, found.credential.provider)))
			.catch(() => {});
		return h(
			"div.stack.step-body",
			onlyOnce(`This is the key of ${found.key.name}. Copy it now and hand it over: it is stored as a hash and `),
			secretBox(found.key.key),
			h(
				"div.row",
				"Or send a link that opens the playground with it:",
				copyButton(() => linkWith(found.key.key), "Copy link"),
			),
			h(
				"p.muted",
				"The playground is the page that everybody with a key has. It opens in this tab, with this key, ",
				"and a first prompt that you only have to send.",
			),
			trouble,
			h(
				"div.row",
				button("Open the playground", toPlayground, ".primary"),
				h("a.button", { href: "#/" }, "To the overview"),
			),
		);
	}

	function toPlayground() {
		sessionStorage.setItem(TAB_KEY, found.key.key);
		location.assign("/#/first");
	}

	begin();
	return () => controller.abort();
}

/** What is wrong with the CLI of a provider, in a box; nothing where it is well. */
function problemOf(providers, name) {
	const { problem, hint } = providers.find((each) => each.name === name) ?? {};
	return problem && errorBox({ message: visible(problem), hint: visible(hint ?? "") });
}

function doneCredential({ name, provider, last4 }) {
	return `${PROVIDERS[provider].vendor}: ${name}${last4 ? `, ends with ${last4}` : ""}.`;
}
