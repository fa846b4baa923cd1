/** Asking again and again, but only while somebody looks. */

import { fill } from "./dom.js";
import { errorBox, trouble } from "./ui.js";

const LONGEST_PAUSE_MS = 30000;

/**
 * Run `task(signal)` now and then every `everyMs` after it has ended. Waits while the page is hidden, and
 * longer each time it fails. What went wrong is shown in `place` until it has worked once; later it is a
 * notice that moves nothing, and `stale()` is called. Gives {now(), stop()}: `now` asks at once.
 */
export function poll(task, everyMs, place, stale = () => {}) {
	const controller = new AbortController();
	let failures = 0;
	let timer = 0;
	let running = null;
	let shown = false;

	async function step() {
		clearTimeout(timer);
		let pause = everyMs;
		try {
			await task(controller.signal);
			failures = 0;
			shown = true;
			trouble(null);
		} catch (error) {
			if (controller.signal.aborted) return;
			failures += 1;
			pause = Math.max((error.retryAfter ?? 0) * 1000, Math.min(everyMs * 2 ** failures, LONGEST_PAUSE_MS));
			if (shown) {
				trouble(error);
				stale();
			} else fill(place, errorBox(error, now));
		}
		if (!controller.signal.aborted) timer = setTimeout(run, pause);
	}

	function run() {
		if (document.hidden || controller.signal.aborted) return Promise.resolve();
		running ??= step().finally(() => {
			running = null;
		});
		return running;
	}

	/** What is on its way was asked before; so wait for it, and ask anew. */
	async function now() {
		await running;
		await run();
	}

	function stop() {
		controller.abort();
		clearTimeout(timer);
		document.removeEventListener("visibilitychange", run);
		trouble(null);
	}

	document.addEventListener("visibilitychange", run);
	run();
	return { now, stop };
}
