/** A request as code to copy. Pure: every text of it is quoted by the rules of the language it goes into. */

import { PROVIDERS } from "./registry.js";

/** What can be copied: [id, name]. */
export const LANGUAGES = [
	["curl", "curl"],
	["python", "Python"],
	["javascript", "JavaScript"],
	["sheets", "Google Sheets"],
	["openai", "OpenAI SDK"],
];

/**
 * The code. `request` is {base, provider, body}: the address of the bridge, the name of the provider, and the body of
 * /generate. `key` goes into the code where it is given; else the code reads it from the environment.
 */
export function snippet(language, { base, provider, body }, key = null) {
	return WRITERS[language]({ base, url: base + PROVIDERS[provider].path, body }, key);
}

const WRITERS = {
	curl({ url, body }, key) {
		const header = key ? shell(`Authorization: Bearer ${key}`) : '"Authorization: Bearer $KEY"';
		return `curl ${shell(url)} \\
  -H ${header} \\
  -d @- <<'${fence(body)}'
${JSON.stringify(body, null, 2)}
${fence(body)}
`;
	},

	python({ url, body }, key) {
		return `${key ? "import json, sys, urllib.request" : "import json, os, sys, urllib.request"}
from urllib.error import HTTPError

KEY = ${key ? python(key) : 'os.environ["KEY"]'}
request = urllib.request.Request(
    ${python(url)},
    data=json.dumps(${python(body, 1)}).encode(),
    headers={"Authorization": "Bearer " + KEY},
)
try:
    with urllib.request.urlopen(request, timeout=310) as response:
        answer = json.load(response)
except HTTPError as problem:
    sys.exit(problem.read().decode())
print(${body.tools ? 'json.dumps(answer["content"], indent=2)' : 'answer["content"][0]["text"]'})
`;
	},

	javascript({ url, body }, key) {
		return `const key = ${key ? script(key) : "process.env.KEY"};
const response = await fetch(${script(url)}, {
  method: "POST",
  headers: { Authorization: \`Bearer \${key}\` },
  body: JSON.stringify(${indented(script(body), 2)}),
});
const answer = await response.json();
if (!response.ok) throw new Error(\`\${answer.code}: \${answer.error}\`);
console.log(${body.tools ? "JSON.stringify(answer.content, null, 2)" : "answer.content[0].text"});
`;
	},

	sheets({ url, body }, key) {
		const { userPrompt, ...rest } = body;
		const remark = key
			? "Whoever can open this script can read the key."
			: "Put the key under Project Settings > Script Properties, as BRIDGE_KEY.";
		return `// Extensions > Apps Script. Then in a cell: =ASK(A1)\n// ${remark}
function ASK(prompt) {
  const key = ${key ? script(key) : 'PropertiesService.getScriptProperties().getProperty("BRIDGE_KEY")'};
  const response = UrlFetchApp.fetch(${script(url)}, {
    method: "post",
    contentType: "application/json",
    headers: { Authorization: "Bearer " + key },
    payload: JSON.stringify(Object.assign(${indented(script(rest), 4)}, { userPrompt: String(prompt) })),
    muteHttpExceptions: true,
  });
  const answer = JSON.parse(response.getContentText());
  if (response.getResponseCode() !== 200) throw new Error(answer.error);
  return ${body.tools ? "JSON.stringify(answer.content)" : "answer.content[0].text"};
}

function tryIt() {
  console.log(ASK(${script(userPrompt ?? "")}));
}
`;
	},

	openai({ base, body }, key) {
		const pictures = body.images?.map((url) => ({ type: "image_url", image_url: { url } }));
		const content = pictures ? [...pictures, { type: "text", text: body.userPrompt }] : body.userPrompt;
		const messages = [{ role: "user", content }];
		if (body.systemPrompt) messages.unshift({ role: "system", content: body.systemPrompt });
		const given = { ...(body.model && { model: body.model }), messages };
		if (body.maxOutputTokens) given.max_completion_tokens = body.maxOutputTokens;
		if (body.schema) {
			const json_schema = { name: "answer", strict: true, schema: body.schema };
			given.response_format = { type: "json_schema", json_schema };
		}
		if (body.tools) {
			given.tools = body.tools.map(({ name, description = "", inputSchema: parameters = { type: "object" } }) => ({
				type: "function",
				function: { name, description, parameters },
			}));
		}
		const lines = Object.entries(given).map(([name, value]) => `    ${name}=${python(value, 1)},`);
		return `${key ? "" : "import os\n\n"}from openai import OpenAI

client = OpenAI(base_url=${python(`${base}/v1`)}, api_key=${key ? python(key) : 'os.environ["KEY"]'})
answer = client.chat.completions.create(
${lines.join("\n")}
)
print(answer.choices[0].message${body.tools ? "" : ".content"})
`;
	},
};

/** Quoted for a POSIX shell: nothing in single quotes means anything. */
function shell(text) {
	return `'${text.replaceAll("'", "'\\''")}'`;
}

/** A line that ends a here-document and that the document itself cannot have. */
function fence(body) {
	let word = "END";
	const lines = JSON.stringify(body, null, 2).split("\n");
	while (lines.includes(word)) word += "_";
	return word;
}

/** A JavaScript literal; JSON is one, but for what would end a line or a script element. */
function script(value) {
	return JSON.stringify(value, null, 2)
		.replaceAll("\u2028", "\\u2028")
		.replaceAll("\u2029", "\\u2029")
		.replaceAll("</", "<\\/");
}

function indented(text, spaces) {
	return text.replaceAll("\n", `\n${" ".repeat(spaces)}`);
}

/** A Python literal of a JSON value, `depth` levels in. */
function python(value, depth = 0) {
	if (value === null) return "None";
	if (value === true) return "True";
	if (value === false) return "False";
	if (typeof value === "number") return String(value);
	// JSON's escapes are Python's, except for the half of a pair, which JSON.stringify escapes anyway.
	if (typeof value === "string") return JSON.stringify(value).replace(/[\u007f-\u009f\u2028\u2029]/g, escaped);
	const [open, close] = Array.isArray(value) ? "[]" : "{}";
	const lines = Object.entries(value).map(([name, each]) => {
		const named = open === "{" ? `${python(name)}: ` : "";
		return `${"    ".repeat(depth + 1)}${named}${python(each, depth + 1)},\n`;
	});
	return lines.length ? `${open}\n${lines.join("")}${"    ".repeat(depth)}${close}` : open + close;
}

function escaped(char) {
	return `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;
}
