/** What to do after an error, for people in front of a page: the API's usual hints speak to programs. */

import { duration } from "./format.js";

const HINTS = {
	unauthorized: "Check that you have copied the whole key, or ask your admin for a new one.",
	model_not_allowed: "Choose another model, or ask your admin.",
	model_not_found: "Choose another model.",
	web_search_not_allowed: "Ask your admin to let this key search the web, or leave it out.",
	provider_not_allowed: "Choose the other provider, or ask your admin.",
	cli_unavailable: "Choose the other provider, or ask your admin to look at it.",
};
/** Where a hint names what only a program can see or send. */
const FOR_PROGRAMS = /\bGET \/|Retry-After|Authorization|'cli-bridge /;

/** The hint of an ApiError, as a person can follow it. A more exact hint of the API stays, and an admin has commands. */
export function hintOf({ code, hint, retryAfter }) {
	const commands = document.body.matches(".admin") && hint?.includes("'cli-bridge ");
	if (!hint || commands || !FOR_PROGRAMS.test(hint)) return hint;
	return HINTS[code] ?? (retryAfter ? `Try again in ${duration(1000 * retryAfter)}.` : "Try again in a moment.");
}
