/** Figures, money and times for people: the page's language, the viewer's own way to write numbers and zone. */

import { nowMs } from "./clock.js";
import { h } from "./dom.js";

const LANGUAGE = navigator.languages?.find((name) => /^en\b/.test(name)) ?? "en-GB";
const DOLLARS = { style: "currency", currency: "USD", currencyDisplay: "narrowSymbol" };
const DAY = { day: "numeric", month: "short" };
const TIME = { hour: "2-digit", minute: "2-digit" };
const cents = new Intl.NumberFormat(LANGUAGE, DOLLARS);
const fine = new Intl.NumberFormat(LANGUAGE, { ...DOLLARS, minimumFractionDigits: 4, maximumFractionDigits: 4 });
const whole = new Intl.NumberFormat(LANGUAGE, { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat(LANGUAGE, { notation: "compact", maximumFractionDigits: 1 });
const percents = new Intl.NumberFormat(LANGUAGE, { style: "percent", maximumFractionDigits: 1 });
const dayTime = new Intl.DateTimeFormat(LANGUAGE, { ...DAY, ...TIME });
const dayTimeYear = new Intl.DateTimeFormat(LANGUAGE, { ...DAY, ...TIME, year: "numeric" });
const hourMinute = new Intl.DateTimeFormat(LANGUAGE, TIME);
const clockTime = new Intl.DateTimeFormat(LANGUAGE, { ...TIME, second: "2-digit" });
const fullTime = new Intl.DateTimeFormat(LANGUAGE, { dateStyle: "full", timeStyle: "long" });
const monthDay = new Intl.DateTimeFormat(LANGUAGE, { ...DAY, timeZone: "UTC" });
const relative = new Intl.RelativeTimeFormat(LANGUAGE, { numeric: "auto", style: "narrow" });

/** A name of the API as a label: thisMonth becomes "This month". */
export function inWords(name) {
	const words = name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
	return words[0].toUpperCase() + words.slice(1);
}

/** An amount of a day, a month or a cap: $1,234.50, and less than a cent as such. */
export function money(usd) {
	return usd > 0 && usd < 0.005 ? `<${cents.format(0.01)}` : cents.format(usd);
}

/** What one request cost: $0.0007. */
export function cost(usd) {
	if (usd === 0) return cents.format(0);
	return usd < 0.00005 ? `<${fine.format(0.0001)}` : usd < 1 ? fine.format(usd) : cents.format(usd);
}

/** A count: 12,345. */
export function count(number) {
	return whole.format(number);
}

/** A count with its noun: 1 request, 2 requests. */
export function plural(number, noun, show = count) {
	return `${show(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** What some numbers add up to. */
export function sumOf(numbers) {
	return numbers.reduce((all, each) => all + each, 0);
}

/** What was used in a window: $1.20, 3 requests, 4,500 tokens. */
export function spent({ costUsd, requests, tokens }) {
	return `${money(costUsd)}, ${plural(requests, "request")}, ${plural(tokens, "token")}`;
}

/** A large count where there is little room: 4.3M. */
export function compact(number) {
	return number < 100000 ? whole.format(number) : short.format(number);
}

/** A share from 0 to 1: 12.5%. */
export function percent(share) {
	return percents.format(share);
}

/** Milliseconds: 494 ms, 1.2 s, 3 min 5 s. */
export function duration(milliseconds) {
	if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
	const seconds = milliseconds / 1000;
	if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
	const rounded = Math.round(seconds);
	if (rounded < 3600) return `${Math.floor(rounded / 60)} min ${rounded % 60} s`;
	return `${Math.floor(rounded / 3600)} h ${Math.floor((rounded % 3600) / 60)} min`;
}

/** A moment in the viewer's zone: 21 Nov, 10:14; with its year where that is not this one. */
export function when(iso) {
	const moment = new Date(iso);
	return (moment.getFullYear() === new Date(nowMs()).getFullYear() ? dayTime : dayTimeYear).format(moment);
}

/** The time of day alone: 10:14. */
export function hour(iso) {
	return hourMinute.format(new Date(iso));
}

/** A moment to the second, for lines that come quickly: 10:14:03 today, else 21 Nov, 10:14. */
export function whenExact(iso) {
	const moment = new Date(iso);
	return moment.toDateString() === new Date(nowMs()).toDateString() ? clockTime.format(moment) : when(iso);
}

/** A moment in full, with the zone's name. */
export function whenFull(iso) {
	return fullTime.format(new Date(iso));
}

/** Today as a calendar day in a time zone, `back` days before it: 2026-11-21. */
export function calendarDay(zone, back = 0) {
	const parts = new Intl.DateTimeFormat("en-CA", { timeZone: zone, dateStyle: "short" });
	const today = new Date(`${parts.format(nowMs())}T00:00:00Z`);
	today.setUTCDate(today.getUTCDate() - back);
	return today.toISOString().slice(0, 10);
}

/** A calendar day such as 2026-11-21, wherever it was counted: 21 Nov. */
export function day(text) {
	return monthDay.format(new Date(`${text}T00:00:00Z`));
}

/** How long ago or ahead a moment is: 3 min ago, in 5 hr. */
export function ago(iso, from = nowMs()) {
	const seconds = Math.round((new Date(iso) - from) / 1000);
	const steps = [["day", 86400], ["hour", 3600], ["minute", 60]];
	const step = steps.find(([, length]) => Math.abs(seconds) >= 0.75 * length);
	if (!step) return seconds > 0 ? "in a moment" : "just now";
	const [unit, length] = step;
	return relative.format(Math.round(seconds / length), unit);
}

/** A sentence of the API with its moments as the viewer reads them: 2026-11-29T00:00:00.000Z becomes 29 Nov, 01:00. */
export function inOwnTime(text) {
	return text.replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g, when);
}

/** When a window ends, in the viewer's zone, and whose midnight that is. */
export function resets(iso, zone) {
	return `Resets ${ago(iso)}: ${when(iso)} (midnight in ${zone})`;
}

/** A `<time>` that shows how long ago, and says in full when one asks. */
export function timeElement(iso, show = ago) {
	return h("time", { datetime: iso, title: whenFull(iso) }, show(iso));
}

/**
 * A text with what one could not see made visible: control characters (such as those of a terminal) and
 * those that turn the direction of writing. For names, prompts and errors of others in the admin's pages.
 */
export function visible(text) {
	return String(text).replace(/[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (char) => {
		const code = char.charCodeAt(0);
		if (code < 0x20) return String.fromCharCode(0x2400 + code);
		if (code === 0x7f) return "␡";
		return `⟨${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
	});
}
