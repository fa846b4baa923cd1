/** "Copy as": a request in several languages, one at a time. */

import { h, say } from "./dom.js";
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
	const block = h("pre.code", { tabindex: "0", role: "region", "aria-label": "Code" }, code);
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
	const plain = text.replace(/(data:image\/\w+;base64,[A-Za-z0-9+/]{24})[A-Za-z0-9+/=]{40,}/g, "$1…");
	return plain.length <= SHOWN ? plain : `${plain.slice(0, SHOWN / 2)}\n…\n${plain.slice(-SHOWN / 2)}`;
}
