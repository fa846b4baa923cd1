// Tools with the official SDKs and Vercel's AI SDK, as their documentation shows them; prints what it saw as one JSON
// object.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import Anthropic from "@anthropic-ai/sdk";
import { betaZodTool } from "@anthropic-ai/sdk/helpers/beta/zod";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { zodFunction } from "openai/helpers/zod";
import { z } from "zod";

const { BASE, KEY } = process.env;
const openai = new OpenAI({ baseURL: `${BASE}/v1`, apiKey: KEY, maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: BASE, apiKey: KEY, maxRetries: 0 });
const City = z.object({ city: z.string() });
const prompt = "What is the weather in Paris?";
const messages = [{ role: "user", content: prompt }];
const description = "The weather in a city.";
const seen = {};

for (const model of ["gpt-6-sol", "claude-sonnet-5-5"]) {
  const of = (seen[model] = {});
  for (const stream of [false, true]) {
    const asked = [];
    const run = openai.chat.completions.runTools({
      model, messages, stream,
      tools: [{
        type: "function",
        function: {
          name: "get_weather", description, parse: JSON.parse, parameters: z.toJSONSchema(City),
          function: ({ city }) => (asked.push(city), "sunny"),
        },
      }],
    });
    of[stream ? "runToolsStream" : "runTools"] = { text: await run.finalContent(), asked };
  }
  const parsed = await openai.chat.completions.parse({
    model, messages, tools: [zodFunction({ name: "get_weather", parameters: City })],
  });
  of.parsed = parsed.choices[0].message.tool_calls[0].function.parsed_arguments;

  for (const stream of [false, true]) {
    const asked = [];
    const weather = betaZodTool({
      name: "get_weather", description, inputSchema: City, run: ({ city }) => (asked.push(city), "sunny"),
    });
    const runner = anthropic.beta.messages.toolRunner({ model, max_tokens: 500, messages, tools: [weather], stream });
    const message = await runner.runUntilDone();
    of[stream ? "toolRunnerStream" : "toolRunner"] = { text: message.content[0].text, asked };
  }
}

const compatible = createOpenAI({ baseURL: `${BASE}/v1`, apiKey: KEY });
for (const [name, model] of Object.entries({
  responses: compatible("gpt-6-sol"),
  responsesOfClaude: compatible("claude-sonnet-5-5"),
  chat: compatible.chat("gpt-6-sol"),
  messages: createAnthropic({ baseURL: `${BASE}/v1`, apiKey: KEY })("claude-sonnet-5-5"),
  messagesOfCodex: createAnthropic({ baseURL: `${BASE}/v1`, apiKey: KEY })("gpt-6-sol"),
})) {
  const asked = [];
  const tools = {
    get_weather: tool({ description, inputSchema: City, execute: async ({ city }) => (asked.push(city), "sunny") }),
  };
  const options = { model, tools, stopWhen: stepCountIs(3), maxRetries: 0 };
  const first = await generateText({ ...options, prompt });
  const history = [...messages, ...first.response.messages, { role: "user", content: "hello again" }];
  const second = await generateText({ ...options, tools: undefined, messages: history });
  const streamed = streamText({ ...options, prompt });
  let text = "";
  for await (const piece of streamed.textStream) text += piece;
  const object = await generateObject({ model, schema: City, prompt: "hello", maxRetries: 0 });
  const must = await generateText({ model, tools: { get_weather: tool({ description, inputSchema: City }) },
    toolChoice: "required", prompt: "hello", maxRetries: 0 });
  seen[name] = {
    text: first.text, steps: first.steps.length, asked, again: second.text, streamed: text, object: object.object,
    must: must.toolCalls.map((call) => call.toolName),
  };
}

// A tool whose argument is a text: its call is named in the next request, and not sent.
seen.custom = [];
for (const model of ["gpt-6-sol", "claude-sonnet-5-5"]) {
  for (const stream of [false, true]) {
    const tools = { run_code: compatible.tools.customTool({ name: "run_code", description: "Runs." }) };
    const asked = [{ role: "user", content: "run_code" }];
    const options = { model: compatible(model), tools, maxRetries: 0 };
    const first = (stream ? streamText : generateText)({ ...options, messages: asked });
    const done = await first;
    if (stream) await done.consumeStream();
    const [call] = await done.toolCalls;
    const output = { type: "text", value: "it ran" };
    const result = { type: "tool-result", toolCallId: call.toolCallId, toolName: call.toolName, output };
    const history = [...asked, ...(await done.response).messages, { role: "tool", content: [result] }];
    const second = await generateText({ ...options, messages: history });
    seen.custom.push({ input: call.input, text: second.text, over: second.response.headers["x-bridge-ignored"] ?? "",
      sent: second.request.body });
  }
}

console.log(JSON.stringify(seen));
