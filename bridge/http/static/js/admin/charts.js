/** The charts of the overview. */

import { query } from "../lib/api.js";
import { REST_TOKEN, chart, seriesToken } from "../lib/chart.js";
import { fill, h, say } from "../lib/dom.js";
import { cost, day, hour, money, sumOf, when } from "../lib/format.js";
import { poll } from "../lib/poll.js";
import { card, segmented } from "../lib/ui.js";
import { keyPage } from "./links.js";
import { look } from "./session.js";

const EVERY_MS = 60000;
/** Where the tallest day costs less, the axis needs more than whole cents. */
const FINE_USD = 0.1;

/**
 * Cost per day, stacked by key, or of one `key`: {element, now(), stop()}. Asks for its figures by itself. `extra`
 * stands at the end of its head.
 */
export function costChart({ key = null, days = 30, extra = null } = {}) {
	const total = h("span.muted.small");
	const what = key === null ? "Cost per day and key" : "Cost per day";
	const plot = chart("bars", {
		describe: (data) => `${what} over ${data.labels.length} days, ${money(data.total)} in total`,
	});
	const error = h("div");
	const asking = poll(
		async (signal) => {
			const usage = await look(`/admin/usage/daily${query({ days, key })}`, signal);
			const sums = usage.series.map((each) => sumOf(each.costUsd));
			const sum = sumOf(sums);
			const tallest = Math.max(...usage.days.map((_, at) => sumOf(usage.series.map((each) => each.costUsd[at]))));
			fill(error);
			say(total, `${money(sum)} in ${usage.days.length} days`);
			plot.update({
				labels: usage.days.map(day),
				total: sum,
				sums,
				show: money,
				axis: tallest < FINE_USD ? cost : money,
				least: tallest < FINE_USD ? 0.0001 : 0.01,
				series: usage.series.map((each, place) => ({
					label: each.key ?? "all other keys",
					href: each.key === null ? "#/usage" : each.key !== key && keyPage(each.key),
					token: each.key === null ? REST_TOKEN : seriesToken(place),
					values: each.costUsd,
				})),
			});
		},
		EVERY_MS,
		error,
	);
	const choices = [7, 30, 90].map((number) => [number, `${number} days`]);
	const choice = segmented("Days", choices, days, (chosen) => {
		days = chosen;
		asking.now();
	});
	return {
		element: card("Cost per day", [total, choice, extra], error, plot.element),
		now: asking.now,
		stop() {
			asking.stop();
			plot.destroy();
		},
	};
}

/** Bars or lines by the hour: {element, note, update(hours), destroy()}. `series`: [name, colour token, value(hour)]. */
export function hourChart(label, kind, series, showValue) {
	const note = h("span.muted.small", "last 48 hours");
	const plot = chart(kind, { describe: () => `${label} over the last 48 hours`, unit: "Hour" });
	return {
		element: card(label, note, plot.element),
		note,
		update(hours) {
			plot.update({
				labels: hours.map((each) => when(each.at)),
				axisLabels: hours.map((each) => hour(each.at)),
				show: showValue,
				series: series.map(([name, token, value]) => ({ label: name, token, values: hours.map(value) })),
			});
		},
		destroy: plot.destroy,
	};
}
