/** Fields of the forms of keys and credentials: {element, input, read()}, `read` giving what is to be sent of them. */

import { h } from "../lib/dom.js";
import { field, textInput } from "../lib/ui.js";

/** A text. */
export function textField(label, hint, value, attributes = {}) {
	const input = textInput({ value, ...attributes });
	return { element: field(label, input, hint), input, read: () => input.value.trim() };
}

/** Names with commas between them; null where there are none, which stands for any. */
export function listField(label, hint, value) {
	const input = textInput({ value: value?.join(", "), placeholder: "any" });

	function read() {
		const names = input.value.split(",").map((each) => each.trim()).filter(Boolean);
		return names.length ? names : null;
	}

	return { element: field(label, input, hint), input, read };
}

/** A number, of which `usual` is shown as an empty field, and sent for one. */
export function numberField(label, hint, value, usual, attributes = {}) {
	const shown = value === usual ? null : value;
	const input = h("input", { type: "number", min: "0", step: "1", inputmode: "decimal", value: shown, ...attributes });
	return { element: field(label, input, hint), input, read: () => (input.value === "" ? usual : input.valueAsNumber) };
}

/** What is to be sent of some fields, by their names; what is undefined is not sent. */
export function valuesOf(fields) {
	return Object.fromEntries(Object.entries(fields).map(([name, { read }]) => [name, read()]));
}

/** The elements of some fields. */
export function elementsOf(fields) {
	return Object.values(fields).map(({ element }) => element);
}
