// One request by the client that CLIENT names, with the retries that it comes with.

import Anthropic from "@anthropic-ai/sdk";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { ChatOpenAI } from "@langchain/openai";
import { generateText, jsonSchema, Output } from "ai";
import OpenAI from "openai";

const { BASE, KEY, CLIENT, MODEL, PROMPT, WITH_SCHEMA } = process.env;
const schema = JSON.parse(process.env.SCHEMA);
const messages = [{ role: "user", content: PROMPT }];
const config = { baseURL: `${BASE}/v1`, apiKey: KEY };
const output = WITH_SCHEMA ? { output: Output.object({ schema: jsonSchema(schema) }) } : {};
const form = { type: "json_schema", json_schema: { name: "city", schema } };

const ASK = {
  openai: () =>
    new OpenAI(config).chat.completions.create({
      model: MODEL,
      messages,
      ...(WITH_SCHEMA ? { response_format: form } : {}),
    }),
  anthropic: () =>
    new Anthropic({ baseURL: BASE, apiKey: KEY }).messages.create({
      model: MODEL,
      max_tokens: 2000,
      messages,
      ...(WITH_SCHEMA ? { output_config: { format: { type: "json_schema", schema } } } : {}),
    }),
  vercel: () => generateText({ model: createOpenAI(config)(MODEL), prompt: PROMPT, ...output }),
  vercelAnthropic: () => generateText({ model: createAnthropic(config)(MODEL), prompt: PROMPT, ...output }),
  langchain: () => {
    const model = new ChatOpenAI({ model: MODEL, apiKey: KEY, configuration: { baseURL: config.baseURL } });
    return (WITH_SCHEMA ? model.withConfig({ response_format: form }) : model).invoke(PROMPT);
  },
};

let seen;
try {
  await ASK[CLIENT]();
  seen = { status: 200 };
} catch (error) {
  seen = { status: error.status ?? error.statusCode ?? 0, name: error.name, message: String(error.message).slice(0, 300) };
}
console.log(JSON.stringify(seen));
