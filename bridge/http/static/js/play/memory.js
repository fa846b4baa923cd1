/**
 * What a person wrote and what was answered, kept in this browser and nowhere else. By key, as far as one can tell keys
 * apart without knowing them: two tabs with two keys do not mix.
 *
 * A tab remembers what is on its bench over a reload, and over a key that ended; the browser remembers it for the next
 * tab with that key. Where a browser keeps nothing, or is full, everything lasts as long as the page.
 */

const PREFIX = "cli-bridge ";
const TAB = `${PREFIX}tab`;
/** Prompts that are remembered. */
const MOST = 50;
/** What lasts as long as the page: what a browser did not take. */
const spare = new Map();

/** The text behind a name in "localStorage" or "sessionStorage", or null. */
export function read(place, name) {
	try {
		return spare.get(place + name) ?? window[place].getItem(name);
	} catch {
		return null;
	}
}

/** Keep a text, null to forget it. Gives whether the browser took it. */
export function write(place, name, text) {
	spare.delete(place + name);
	try {
		if (text === null) window[place].removeItem(name);
		else window[place].setItem(name, text);
		return true;
	} catch {
		if (text !== null) spare.set(place + name, text);
		return text === null;
	}
}

/** A number that tells keys apart, from which none can be found: FNV-1a, 32 bits of more than 200. */
function fingerprint(key) {
	let hash = 2166136261;
	for (const char of key) hash = Math.imul(hash ^ char.charCodeAt(0), 16777619);
	return (hash >>> 0).toString(36);
}

/**
 * What is kept for a key: {bench, past(), keep(bench), remember(entry), forget()}. `bench` is what was last on it, or
 * null where that was nothing; `past()` are the last prompts, newest first, each {at, form, …}; `remember` takes the
 * place of the one with the same `at`. `keep` gives whether the browser took all of it.
 */
export function memory(key, name) {
	const own = `${PREFIX}${fingerprint(key)} `;
	const [pastName, benchName] = [`${own}past`, `${own}bench`];
	const tab = tabNow();
	// Another key in the same tab takes over what is on the bench where the one before it ended.
	const mine = tab && (tab.own === own || tab.ended);
	if (mine && tab.own !== own && tab.name === name && !past().length) {
		writeLocal(pastName, readLocal(`${tab.own}past`));
	}

	function past() {
		const all = parsed(readLocal(pastName));
		return Array.isArray(all) ? all.filter(isEntry) : [];
	}

	function keep(bench) {
		const inTab = writeTab(bench && { own, name, bench });
		const text = bench && JSON.stringify(bench);
		const fits = () => writeLocal(benchName, text);
		return (fits() || makeRoom(past(), fits)) && inTab;
	}

	function remember(entry) {
		const others = past().filter((each) => each.at !== entry.at);
		makeRoom([entry, ...others].sort((one, other) => other.at - one.at).slice(0, MOST));
	}

	/** Keep the last prompts so that all `fits`: the oldest answers go, then the oldest prompts; none where that is no help. */
	function makeRoom(all, fits = () => true) {
		const whole = JSON.stringify(all);
		while (!writeLocal(pastName, JSON.stringify(all)) || !fits()) {
			const oldest = all.findLast(({ turns }) => turns.length);
			if (oldest) oldest.turns = [];
			else if (!all.pop()) {
				writeLocal(pastName, whole);
				return false;
			}
		}
		return true;
	}

	function forget() {
		for (const each of [pastName, benchName]) writeLocal(each, null);
		left();
	}

	return { bench: mine ? tab.bench : parsed(readLocal(benchName)), past, keep, remember, forget };
}

/** The key of this tab ended: the next one goes on with what is on the bench. Gives whether there is anything. */
export function ended() {
	const tab = tabNow();
	if (tab) writeTab({ ...tab, ended: true });
	return tab !== null;
}

/** What is on the bench stays for its own key only. */
export function left() {
	writeTab(null);
}

/** Whether this browser keeps anything that was written with any key. */
export function keepsAnything() {
	return names().length > 0;
}

/** Forget what was written with every key. */
export function forgetAll() {
	for (const name of names()) writeLocal(name, null);
	left();
}

function tabNow() {
	return parsed(read("sessionStorage", TAB));
}

function writeTab(value) {
	return write("sessionStorage", TAB, value && JSON.stringify(value));
}

function readLocal(name) {
	return read("localStorage", name);
}

function writeLocal(name, text) {
	return write("localStorage", name, text);
}

function names() {
	const local = "localStorage";
	const found = [...spare.keys()].filter((name) => name.startsWith(local)).map((name) => name.slice(local.length));
	try {
		found.push(...Object.keys(window.localStorage));
	} catch {
		// There is none.
	}
	return found.filter((name) => name.startsWith(PREFIX));
}

/** Whether it is what `remember` keeps, and not of another version, or of somebody who played with it. */
function isEntry(each) {
	return Boolean(each?.form) && Number.isInteger(each.at) && Math.abs(each.at) < 8.64e15 && Array.isArray(each.turns);
}

function parsed(text) {
	try {
		return JSON.parse(text);
	} catch {
		// Of another version, or of somebody who played with it.
		return null;
	}
}
