/** The time. A device's own clock may be wrong, and what the bridge tells and expects is by the bridge's. */

/** Answers are on their way for a while: what differs by less, in milliseconds, is no other time. */
const LEAST_MS = 60000;
let difference = 0;

/** Now, in milliseconds since 1970. */
export function nowMs() {
	return Date.now() + difference;
}

/** Go by the `Date` of an answer. */
export function setBy(date) {
	const off = Date.parse(date ?? "") - Date.now();
	if (!Number.isNaN(off)) difference = Math.abs(off) < LEAST_MS ? 0 : off;
}
