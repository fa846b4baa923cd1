/** "Copy as": a request in several languages, one at a time. */

import { h, say, scrolls } from "./dom.js";
import { LANGUAGES, snippet } from "./snippets.js";
import { copyButton, paused, segmented } from "./ui.js";

/** How long the code is that is shown; what is copied is always whole. */
const SHOWN = 6000;
/** Typing changes the code only when it pauses, in milliseconds. */
const PAUSE_MS = 150;

/** {element, update()}; `request()` gives what snippets.js takes, `key` goes into the code. */
export function copyAs(request, key = null) {
	let language = LANGUAGES[0][0];
	const code = h("code");
	const block = h("pre.code", scrolls("Code"), code);
	const head = h(
		"div.code-head",
		segmented("Language", LANGUAGES, language, (chosen) => {
			language = chosen;
			show();
		}),
		copyButton(() => snippet(language, request(), key)),
	);

	function show() {
		say(code, shortened(snippet(language, request(), key)));
	}

	show();
	return { element: h("div", head, block), update: paused(show, PAUSE_MS) };
}

/** The code as it is shown: an image or a very long prompt in it would be pages of letters. */
function shortened(text) {
	// By hand: a regular expression that repeats would run out of its stack on the megabytes of a photo.
	const parts = text.split("data:image/").map((part, place) => {
		const end = part.search(/[^\w+/=;,]/);
		return place && end > 80 ? `${part.slice(0, 36)}…${part.slice(end)}` : part;
	});
	const plain = parts.join("data:image/");
	return plain.length <= SHOWN ? plain : `${plain.slice(0, SHOWN / 2)}\n…\n${plain.slice(-SHOWN / 2)}`;
}
