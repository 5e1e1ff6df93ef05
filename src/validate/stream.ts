// defineStream for configuration files, and the zod schemas that the configuration loader checks streams with.

import { z } from "zod";
import type { Codec } from "../decode/codec.ts";
import type { Message, Reading, UnixMs } from "../reading.ts";
import { parseTopicPattern } from "./topic-pattern.ts";

/** A kind of message: where it arrives, how it is encoded and what it must look like. Plain and immutable. */
export interface StreamDefinition<Name extends string = string, Data = unknown> {
  readonly name: Name;
  readonly topic: string;
  readonly codec: Codec | readonly Codec[];
  readonly schema: z.ZodType<Data>;
  time?(data: Data, message: MessageFacts): UnixMs;
  readonly dedupe?: Dedupe<Data>;
}

/** What the functions of a stream may know of a message beside its data. */
export type MessageFacts = Pick<Message, "deviceId" | "topic" | "receivedAt" | "properties">;

/** How a message is known that a device sends again because it did not see the first one acknowledged. */
interface Dedupe<Data> {
  key(data: Data, message: MessageFacts): string;
  readonly window?: number;
}

/** Keys that a stream remembers unless it says how many. */
export const defaultWindow = 100_000;
/** A key takes about 100 B, and up to twice as many as the window are held. */
const maximumWindow = 1_000_000;

/** The readings of a stream: `ReadingOf<typeof climate>`. */
export type ReadingOf<Stream> = Stream extends StreamDefinition<infer Name, infer Data> ? Reading<Name, Data> : never;

/**
 * Defines a stream for a configuration file. It checks nothing and never throws, so that the loader can report the
 * problems of the whole file at once (with `streamsSettings`); unknown keys are kept for it to report.
 */
export function defineStream<const Name extends string, Schema extends z.ZodType>(settings: {
  /** Names the stream in the journal, in sinks and in metrics: lower-case letters, digits, _ and -, at most 63. */
  readonly name: Name;
  /**
   * The topics of the stream. `{device}` is one level that is not empty and gives the device id; another `{name}` is one such level too,
   * `+` is one level, `#` at the end is any number. Where the patterns of two streams overlap, the more specific wins.
   */
  readonly topic: string;
  /**
   * How payloads are encoded, such as `json`. Of several the MQTT 5 content type of a message chooses one, the first is for
   * messages without; a single one is for all, whatever they say.
   */
  readonly codec: Codec | readonly Codec[];
  /** What a decoded payload must look like; synchronous. What it returns is the reading's data. */
  readonly schema: Schema;
  /** When the device measured it, in milliseconds since 1970; without it, when the gateway received it. */
  readonly time?: (data: z.output<Schema>, message: MessageFacts) => UnixMs;
  /**
   * Keeps out of the journal what a device sends again: a message whose key is that of an earlier one of the same device
   * is acknowledged when that one is on disk, and nothing else happens with it. At least the last `window` keys of the
   * stream are remembered, at most twice as many, also over a restart. Without `dedupe` nothing is ever dropped.
   */
  readonly dedupe?: {
    /** What is the same in both messages and in no other of the device, such as a counter that never starts again. */
    readonly key: (data: z.output<Schema>, message: MessageFacts) => string;
    /** From 1 to 1,000,000; by default 100,000. */
    readonly window?: number;
  };
}): StreamDefinition<Name, z.output<Schema>> {
  return Object.freeze({ ...settings }) as unknown as StreamDefinition<Name, z.output<Schema>>;
}

const isCodec = (value: unknown): value is Codec =>
  hasMethod(value, "decode") && typeof (value as { name?: unknown }).name === "string";

const codecSetting = z.custom<Codec | readonly Codec[]>(
  (value) => (Array.isArray(value) ? value.length > 0 && value.every(isCodec) : isCodec(value)),
  "expected a codec, such as json, or a list of codecs",
);

const schemaSetting = z
  .custom<z.ZodType>((value) => hasMethod(value, "safeParse") && "_zod" in value, {
    error: "expected a zod 4 schema, such as z.object({ … })",
    abort: true,
  })
  .refine((schema) => !isAsynchronous(schema), "must be synchronous: it has an async refinement or transform");

const timeSetting = z.custom<(data: never) => UnixMs>(
  (value) => typeof value === "function",
  "expected a function from the data to milliseconds since 1970",
);

const dedupeSettings = z.strictObject({
  key: z
    .custom<(data: never) => string>(
      (value) => typeof value === "function",
      "expected a function from the data to text",
    )
    .describe("What is the same in a message that is sent again, and in no other message of the device."),
  window: z
    .int()
    .min(1)
    .max(maximumWindow)
    .default(defaultWindow)
    .describe(
      "How many of the stream's last keys are remembered at least; at most twice as many are, of about 100 B each.",
    ),
});

/** What a stream in a configuration file must be. */
export const streamSettings = z.strictObject({
  name: z
    .string()
    .regex(/^[a-z][a-z0-9_-]{0,62}$/, "expected a lower-case letter, then at most 62 letters, digits, _ or -")
    .describe("Names the stream in the journal, in sinks and in metrics."),
  topic: z
    .string()
    .superRefine((topic, context) => {
      const pattern = parseTopicPattern(topic);
      if (typeof pattern === "string") context.addIssue({ code: "custom", message: pattern });
    })
    .describe(
      "The stream's topics: {device} is one level and gives the device id, + is one level, # at the end is the rest.",
    ),
  codec: codecSetting.describe(
    "How payloads are encoded. Of a list the message's MQTT 5 content type chooses one; the first is for messages without.",
  ),
  schema: schemaSetting.describe(
    "The zod schema that a decoded payload must satisfy; what it returns is the reading's data.",
  ),
  time: timeSetting
    .optional()
    .describe("When the device measured it, in milliseconds since 1970; by default the time of receipt."),
  dedupe: dedupeSettings
    .optional()
    .describe(
      "Keeps a message out of the journal that has the key of an earlier one of its device; it is acknowledged. By default none is.",
    ),
});

/** All streams of a configuration: each as `streamSettings` says, no name twice, no topic pattern twice. */
export const streamsSettings = z
  .array(streamSettings)
  .min(1, "expected at least one stream")
  .superRefine((streams, context) => {
    const names = new Map<string, number>();
    const shapes = new Map<string, number>();
    for (const [index, stream] of streams.entries()) {
      const sameName = names.get(stream.name);
      if (sameName === undefined) names.set(stream.name, index);
      else
        context.addIssue({ code: "custom", path: [index, "name"], message: `is the name of streams[${sameName}] too` });
      const pattern = parseTopicPattern(stream.topic);
      if (typeof pattern === "string") continue;
      const sameShape = shapes.get(pattern.shape);
      if (sameShape === undefined) shapes.set(pattern.shape, index);
      else
        context.addIssue({
          code: "custom",
          path: [index, "topic"],
          message: `matches the same topics as streams[${sameShape}]`,
        });
    }
  })
  .describe(
    "The kinds of message that the gateway keeps; a message on any other topic is only passed on to subscribers.",
  );

function hasMethod(value: unknown, name: string): value is object {
  return typeof value === "object" && value !== null && typeof (value as Record<string, unknown>)[name] === "function";
}

/** True when zod can tell without running it; a plain function that returns a promise is found at its first message. */
function isAsynchronous(schema: z.ZodType): boolean {
  try {
    z.compile(schema, { strict: true });
    return false;
  } catch (cause) {
    return cause instanceof z.ZodCompileAsyncError;
  }
}
