/**
 * Long texts in blocks, of which the browser lays out only those that are seen: a megabyte in one piece
 * would hold the page up for many seconds. Blocks end at line breaks where there are any.
 */

import { h, scrolls } from "./dom.js";

/** A block: so many characters, and on to the end of the line, unless that is too far. */
const BLOCK = /[^]{1,2000}[^\n]{0,4000}\n?/gu;

/** Write to an element: {append(text), clear()}. */
export function longText(element) {
	let last = null;

	function append(text) {
		const blocks = ((last?.data ?? "") + text).match(BLOCK) ?? [];
		// What is there stays, so that it can be selected meanwhile.
		last?.appendData(blocks.shift().slice(last.length));
		for (const block of blocks) {
			last = document.createTextNode(block);
			element.append(h("div.block-of-text", last));
		}
	}

	function clear() {
		last = null;
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
	return longTextIn(h("pre.text-block", scrolls(label)), text);
}
