/** The key in what people paste: a line of code, a header, a link, a word in quotes; and where a page keeps it. */

/** Where the playground keeps its key: in this tab, until it is closed. */
export const TAB_KEY = "cli-bridge key";

/** What stands around a key that has no shape of its own, such as one of another program. */
const AROUND = [
	/^(export|set|let|const|var)\s+/i,
	/^-H\s+/,
	/^["'`‘’“”„«»]+/,
	/^(authorization|x-api-key)\s*:\s*/i,
	/^bearer\s+/i,
	/^[A-Za-z_][A-Za-z0-9_]*\s*[=:]\s*/,
	/[\s"'`‘’“”„«»;,]+$/,
];

/** The key in a text, or the text without what is around it where none can be made out. */
export function keyIn(text) {
	const found = text.match(/\bcba?_[A-Za-z0-9_-]{8,}/);
	if (found) return found[0];
	let rest = text.trim();
	for (let before = null; before !== rest;) {
		before = rest;
		for (const part of AROUND) rest = rest.replace(part, "").trim();
	}
	return rest;
}

/** The key in the part of an address that never leaves the browser: `#key=cb_…`. */
export function keyInAddress(hash) {
	const found = hash.match(/^#\/?key=(.+)$/);
	if (!found) return null;
	try {
		return keyIn(decodeURIComponent(found[1]));
	} catch {
		return keyIn(found[1]);
	}
}

/** The address that brings a key along, for the browser alone. */
export function linkWith(key) {
	return `${location.origin}/#key=${encodeURIComponent(key)}`;
}
