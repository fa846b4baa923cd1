// Vercel's AI SDK with its own providers for both APIs against the bridge; prints what it saw as one JSON object.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, Output, streamText } from "ai";
import { z } from "zod";

const { BASE, KEY } = process.env;
const openai = createOpenAI({ baseURL: `${BASE}/v1`, apiKey: KEY });
const anthropic = createAnthropic({ baseURL: `${BASE}/v1`, apiKey: KEY });
const schema = z.object({ city: z.string(), country: z.string() });
const seen = {};

for (const [name, model] of Object.entries({
  responses: openai("gpt-6-sol"),
  chat: openai.chat("gpt-6-sol"),
  messages: anthropic("claude-sonnet-5-5"),
})) {
  const plain = await generateText({ model, system: "Be brief.", prompt: "hello", maxRetries: 0 });
  const streamed = streamText({ model, prompt: "hello", maxRetries: 0 });
  let text = "";
  for await (const piece of streamed.textStream) text += piece;
  const object = await generateText({ model, prompt: "hello", output: Output.object({ schema }), maxRetries: 0 });
  seen[name] = {
    text: plain.text, reason: plain.finishReason, usage: plain.usage, streamed: text, object: object.output,
    warnings: plain.warnings,
  };
}
// Earlier answers are named instead of sent, where the provider is thought to keep them.
for (const [name, model] of Object.entries({ responses: openai("claude-sonnet-5-5"), chat: openai.chat("gpt-6-sol") })) {
  const messages = [{ role: "user", content: "My name is Ada" }];
  const first = await generateText({ model, messages, maxRetries: 0 });
  messages.push(...first.response.messages, { role: "user", content: "hello again" });
  const second = await generateText({ model, messages, maxRetries: 0 });
  seen[`${name}Again`] = { text: second.text, sent: second.request.body, headers: second.response.headers };
}
try {
  await generateText({ model: openai("gemini-9"), prompt: "hello", maxRetries: 3 });
} catch (error) {
  seen.error = { name: error.name, status: error.statusCode, message: error.message };
}

console.log(JSON.stringify(seen));
