/** Images of a prompt: chosen, pasted or dropped, and shown small. */

import { fill, h, icon } from "../lib/dom.js";
import { button, toast } from "../lib/ui.js";

const KINDS = ["image/png", "image/jpeg", "image/gif", "image/webp"];
const MOST = 50;
/** Together, in bytes: a third is added by base64, and the request may have 32 MiB. */
const MOST_BYTES = 20 * 2 ** 20;

/**
 * {element, urls(), list(), set(list)}: `area` takes what is dropped or pasted; `changed()` is called after each change.
 * A list is of {name, size, url}.
 */
export function images(area, changed) {
	let pictures = [];
	const thumbs = h("ul.thumbs");
	const input = h("input", {
		type: "file",
		accept: KINDS.join(),
		multiple: true,
		hidden: true,
		"aria-label": "Add images",
		onchange: chosen,
	});
	const opener = button([icon("image"), "Add images"], () => input.click(), ".small");
	const element = h(
		"div.stack",
		h("div.row", opener, input, h("span.hint", "or paste or drop them into the prompt")),
		thumbs,
	);

	async function add(files) {
		for (const file of files) {
			if (!KINDS.includes(file.type)) toast(`${file.name || "That"} is not a png, jpeg, gif or webp image.`);
			else if (pictures.length >= MOST) toast(`A request may have at most ${MOST} images.`);
			else if (pictures.reduce((sum, each) => sum + each.size, file.size) > MOST_BYTES)
				toast(`${file.name || "That"} is too large: all images together may have ${MOST_BYTES / 2 ** 20} MiB.`);
			else pictures.push({ name: file.name || "pasted image", size: file.size, url: await dataUrl(file) });
		}
		set(pictures);
	}

	function set(list) {
		pictures = list;
		fill(thumbs, pictures.map(thumb));
		changed();
	}

	function thumb(picture) {
		const remove = () => {
			set(pictures.filter((each) => each !== picture));
			(thumbs.querySelector("button") ?? opener).focus();
		};
		return h(
			"li.thumb",
			h("img", { src: picture.url, alt: picture.name }),
			h("button.icon-button", { "aria-label": `Remove ${picture.name}`, onclick: remove }, icon("close")),
		);
	}

	function chosen() {
		add([...input.files]);
		input.value = "";
	}

	area.addEventListener("paste", (event) => {
		const files = [...event.clipboardData.files];
		const text = event.clipboardData.getData("text/plain").trim();
		// Office puts a picture of what was copied beside its text, which is meant; a file has its own name for a text.
		if (!files.length || (text && !files.some(({ name }) => name === text))) return;
		event.preventDefault();
		add(files);
	});
	area.addEventListener("dragover", (event) => {
		if (![...event.dataTransfer.types].includes("Files")) return;
		event.preventDefault();
		area.classList.add("over");
	});
	area.addEventListener("dragleave", (event) => {
		if (!area.contains(event.relatedTarget)) area.classList.remove("over");
	});
	area.addEventListener("drop", (event) => {
		area.classList.remove("over");
		if (!event.dataTransfer.files.length) return;
		event.preventDefault();
		add([...event.dataTransfer.files]);
	});

	return { element, urls: () => pictures.map((picture) => picture.url), list: () => pictures, set };
}

function dataUrl(file) {
	return new Promise((resolve, reject) => {
		const reader = new FileReader();
		reader.onload = () => resolve(reader.result);
		reader.onerror = () => reject(reader.error);
		reader.readAsDataURL(file);
	});
}
