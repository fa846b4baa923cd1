/** Calls of the API, and what goes wrong with them. */

import { setBy } from "./clock.js";

/** An answer that says no, or none at all. `status` is 0 where nothing answered. */
export class ApiError extends Error {
	constructor(status, body, retryAfter = null) {
		super(body.error ?? "Something went wrong.");
		this.status = status;
		this.code = body.code ?? "";
		this.hint = body.hint ?? "";
		this.body = body;
		this.retryAfter = retryAfter;
	}
}

/** What went wrong, to be shown: of an error that is none of the API's, that the page did not understand what it got. */
export function readable(error) {
	if (error instanceof ApiError || !(error instanceof Error)) return error;
	console.error(error);
	const hint = "Reload the page: the bridge may be of another version now.";
	return new ApiError(200, { error: "This page does not understand the bridge's answer.", hint });
}

/** One call; the answer itself, once its head is there. Throws ApiError. */
export async function open(method, path, { body, headers = {}, signal } = {}) {
	let answer;
	try {
		answer = await fetch(path, {
			method,
			headers: body === undefined ? headers : { "Content-Type": "application/json", ...headers },
			body: body === undefined ? undefined : JSON.stringify(body),
			signal,
			credentials: "same-origin",
			cache: "no-store",
			redirect: "manual",
		});
	} catch (error) {
		throw unlessStopped(error, "The bridge does not answer.", "Check the connection, or wait a moment.");
	}
	setBy(answer.headers.get("Date"));
	if (answer.type === "opaqueredirect") {
		// The bridge never redirects a call: this is a log-in of whatever stands in front of it.
		throw new ApiError(0, { error: "Something in front of the bridge asks for a log-in.", hint: "Reload the page." });
	}
	if (answer.ok) return answer;
	throw await refusal(answer);
}

/** One call; its JSON. Throws ApiError. */
export async function call(method, path, options) {
	const answer = await open(method, path, options);
	try {
		return await answer.json();
	} catch (error) {
		throw unlessStopped(error, "The answer broke off.", "Try again.");
	}
}

async function refusal(answer) {
	const body = await answer.json().catch((error) => {
		if (error.name === "AbortError") throw error;
		// Not ours: a proxy in front of the bridge.
		return { error: `The answer was an error (HTTP ${answer.status}).`, hint: "Wait a moment and try again." };
	});
	return new ApiError(answer.status, body, Number.parseInt(answer.headers.get("Retry-After"), 10) || null);
}

/** Why there is no answer, unless the call was stopped from here. */
function unlessStopped(error, said, hint) {
	return error.name === "AbortError" ? error : new ApiError(0, { error: said, hint });
}

/** A query string of what is set. */
export function query(values) {
	const set = Object.entries(values).filter(([, value]) => value !== "" && value !== null && value !== undefined);
	return set.length ? `?${new URLSearchParams(set)}` : "";
}

/** The events of a stream: [name, data], until it ends. One that breaks off in the middle ends there. */
export async function* events(answer) {
	const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
	let rest = "";
	try {
		for (;;) {
			const { done, value } = await reader.read();
			if (done) return;
			const blocks = (rest + value).split("\n\n");
			rest = blocks.pop();
			for (const block of blocks) {
				const [, name, data] = block.match(/^event: (\w+)\ndata: (.*)$/s) ?? [];
				if (name) yield [name, JSON.parse(data)];
			}
		}
	} catch (error) {
		// A connection that is lost is the end of it.
		if (error.name === "AbortError") throw error;
	} finally {
		reader.cancel().catch(() => {});
	}
}
