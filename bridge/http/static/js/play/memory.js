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
	const found = spare.get(place + name);
	if (found !== undefined) return found;
	try {
		return window[place].getItem(name);
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

/** A number that tells keys apart, from which none can be found: cyrb53, 53 bits of more than 200. */
function fingerprint(key) {
	let [one, two] = [0xdeadbeef, 0x41c6ce57];
	for (const char of key) {
		one = Math.imul(one ^ char.charCodeAt(0), 2654435761);
		two = Math.imul(two ^ char.charCodeAt(0), 1597334677);
	}
	one = Math.imul(one ^ (one >>> 16), 2246822507) ^ Math.imul(two ^ (two >>> 13), 3266489909);
	two = Math.imul(two ^ (two >>> 16), 2246822507) ^ Math.imul(one ^ (one >>> 13), 3266489909);
	return (4294967296 * (2097151 & two) + (one >>> 0)).toString(36);
}

/**
 * What is kept for a key: {bench, past(), keep(bench), remember(entry), forget()}. `bench` is what was last on it, or
 * null where that was nothing; `past()` are the last prompts, newest first, each {at, form, …}; `remember` takes the
 * place of the one with the same `at`. `keep` gives whether the browser took all of it.
 */
export function memory(key, name) {
	const own = `${PREFIX}${fingerprint(key)} `;
	const tab = parsed(read("sessionStorage", TAB));
	// Another key in the same tab takes over what is on the bench where the one before it ended.
	const mine = tab && (tab.own === own || tab.ended);
	if (mine && tab.own !== own && tab.name === name && !past().length) {
		write("localStorage", `${own}past`, read("localStorage", `${tab.own}past`));
	}

	function past() {
		const all = parsed(read("localStorage", `${own}past`));
		return Array.isArray(all) ? all.filter(isEntry) : [];
	}

	function keep(bench) {
		const inTab = write("sessionStorage", TAB, bench && JSON.stringify({ own, name, bench }));
		const text = bench && JSON.stringify(bench);
		const fits = () => write("localStorage", `${own}bench`, text);
		return (fits() || roomFor(fits)) && inTab;
	}

	/** What is on the bench is worth more than the oldest prompts: they go until it fits, or stay where it never does. */
	function roomFor(fits) {
		const before = read("localStorage", `${own}past`);
		for (const all = past(); all.length;) {
			all.pop();
			if (write("localStorage", `${own}past`, JSON.stringify(all)) && fits()) return true;
		}
		write("localStorage", `${own}past`, before);
		return false;
	}

	function remember(entry) {
		const others = past().filter((each) => each.at !== entry.at);
		const all = [entry, ...others].sort((one, other) => other.at - one.at).slice(0, MOST);
		const name_ = `${own}past`;
		// Where there is no room for all, the answers of the oldest go first.
		for (let place = all.length; place >= 0; place--) {
			if (place < all.length) all[place] = { ...all[place], turns: [] };
			if (write("localStorage", name_, JSON.stringify(all))) return;
		}
	}

	function forget() {
		for (const each of ["past", "bench"]) write("localStorage", own + each, null);
		write("sessionStorage", TAB, null);
	}

	const bench = mine ? tab.bench : parsed(read("localStorage", `${own}bench`));
	return { bench, past, keep, remember, forget };
}

/** The key of this tab ended: the next one goes on with what is on the bench. Gives whether there is anything. */
export function ended() {
	const tab = parsed(read("sessionStorage", TAB));
	if (tab) write("sessionStorage", TAB, JSON.stringify({ ...tab, ended: true }));
	return tab !== null;
}

/** What is on the bench stays for its own key only. */
export function left() {
	write("sessionStorage", TAB, null);
}

/** Whether this browser keeps anything that was written with any key. */
export function keepsAnything() {
	return names().length > 0;
}

/** Forget what was written with every key. */
export function forgetAll() {
	for (const name of names()) write("localStorage", name, null);
	write("sessionStorage", TAB, null);
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
