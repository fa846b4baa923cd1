/**
 * Long texts in blocks, of which the browser lays out only those that are seen: a megabyte in one piece
 * would hold the page up for many seconds. Blocks end at line breaks where there are any.
 */

import { h } from "./dom.js";

/** A block is closed at the first line break after so many characters, and wherever it is after the second. */
const LONG = 2000;
const LONGEST = 6000;

/** Write to an element: {append(text), clear()}. */
export function longText(element) {
	let node = null;

	function append(text) {
		let rest = text;
		while (rest) {
			if (node === null) {
				node = document.createTextNode("");
				element.append(h("div.block-of-text", node));
			}
			const at = cut(node.length, rest);
			node.appendData(rest.slice(0, at));
			rest = rest.slice(at);
			if (rest || full(node)) node = null;
		}
	}

	function clear() {
		node = null;
		element.replaceChildren();
	}

	return { append, clear };
}

/** The same for a text that is there already: an element that holds it. */
export function longTextIn(element, text) {
	longText(element).append(text);
	return element;
}

/** A long text in a box that scrolls, with a label for those who do not see it. */
export function textBlock(label, text) {
	return longTextIn(h("pre.text-block", { tabindex: "0", role: "region", "aria-label": label }), text);
}

/** How much of `text` still goes into a block that has `length` characters. */
function cut(length, text) {
	if (length + text.length <= LONG) return text.length;
	const lineEnd = text.indexOf("\n", Math.max(0, LONG - length));
	if (lineEnd >= 0 && length + lineEnd < LONGEST) return lineEnd + 1;
	if (length + text.length <= LONGEST) return text.length;
	const at = Math.max(1, LONGEST - length);
	// Not between the halves of a pair.
	return /[\ud800-\udbff]/.test(text[at - 1]) && at < text.length ? at + 1 : at;
}

function full(node) {
	return node.length >= LONGEST || (node.length >= LONG && node.data.endsWith("\n"));
}
