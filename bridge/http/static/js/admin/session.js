/** The admin's session in this page: calls with its token, and what happens when it has ended. */

import { ApiError, call as ask } from "../lib/api.js";
import { toast } from "../lib/ui.js";

let session = null;
let onEnd = () => {};

/** What the server said of the session: actor, timezone, limits, codes, defaultModels, logPrompts. */
export function current() {
	return session;
}

/** `listener()` is called when a call finds that nobody is logged in any more. */
export function whenOver(listener) {
	onEnd = listener;
}

/** Ask who is logged in; where nobody is, let Cloudflare Access vouch if it can. Gives {session, error}. */
export async function resume() {
	const answer = await ask("GET", "/admin/session");
	session = answer.session;
	if (session || !answer.access) return { session, error: null };
	try {
		session = (await ask("POST", "/admin/session")).session;
		return { session, error: null };
	} catch (error) {
		return { session: null, error };
	}
}

/** Open a session with the admin key. Gives {session}. Throws ApiError. */
export async function logIn(key) {
	if (!/^[\u0020-\u00ff]+$/.test(key)) {
		throw new ApiError(401, {
			error: "This is not the admin key.",
			hint: "It has only plain letters, digits and signs.",
		});
	}
	const answer = await ask("POST", "/admin/session", { headers: { Authorization: `Bearer ${key}` } });
	session = answer.session;
	return answer;
}

/** End this session, or all of them: `/admin/sessions`. Throws ApiError. */
export async function logOut(path = "/admin/session") {
	await call("DELETE", path);
	session = null;
}

/**
 * One call of the admin API; its JSON. `background` marks one that a timer makes, so that it does not keep
 * the session alive. Throws ApiError.
 */
export async function call(method, path, { body, background = false, signal } = {}) {
	const send = () => ask(method, path, { body, signal, headers: headers(background) });
	try {
		try {
			return await send();
		} catch (error) {
			if (error.code !== "csrf_failed") throw error;
			// Another tab has logged in anew: take over its token, once.
			await resume();
			return await send();
		}
	} catch (error) {
		if (error.status === 401) {
			session = null;
			onEnd();
		}
		throw error;
	}
}

/**
 * Change something, and say `done` in a message about its `subject`, with a button that takes it back where there is
 * `undo()`; or what went wrong. Gives whether it was done.
 */
export async function act(method, path, done = null, { body, undo = null, subject } = {}) {
	try {
		await call(method, path, { body });
	} catch (failure) {
		toast(failure.message);
		return false;
	}
	if (done) toast(done, undo && { label: "Undo", run: undo }, subject);
	return true;
}

/** A GET that a timer makes. */
export function look(path, signal) {
	return call("GET", path, { background: true, signal });
}

function headers(background) {
	return { ...(session && { "X-CSRF-Token": session.token }), ...(background && { "X-Bridge-Background": "1" }) };
}
