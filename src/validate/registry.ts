// Which stream a topic belongs to, and whether a message is a reading of that stream.

import { isUtf8 } from "node:buffer";
import { z } from "zod";
import type { Codec } from "../decode/codec.ts";
import { SluiceError, toError } from "../errors.ts";
import type {
  Issue,
  Message,
  MessageProperties,
  Reading,
  Rejection,
  RejectionReason,
  Route,
  UnixMs,
} from "../reading.ts";
import { specialize } from "./specialize.ts";
import { defaultWindow } from "./stream.ts";
import type { StreamDefinition } from "./stream.ts";
import { bySpecificity, isReservedTopic, matchesPattern, parseTopicPattern } from "./topic-pattern.ts";
import type { TopicPattern } from "./topic-pattern.ts";

/** What a message is. */
export type Read =
  | { readonly kind: "reading"; readonly reading: Reading }
  | { readonly kind: "rejected"; readonly rejection: Rejection };

/** What a stream's `dedupe.key` says of a reading. none: the stream has no `dedupe`. rejected: it threw, or gave no text. */
type Keyed =
  | { readonly kind: "none" }
  | { readonly kind: "key"; readonly key: string }
  | { readonly kind: "rejected"; readonly rejection: Rejection };

export interface Registry {
  /** The streams' names in the order of the configuration. */
  readonly names: readonly string[];
  /** Of the streams with `dedupe`: how many keys they want remembered. */
  readonly windows: ReadonlyMap<string, number>;
  /** Streams whose schema runs interpreted, several times slower, because it could not be compiled; and why. */
  readonly interpreted: readonly { readonly stream: string; readonly reason: string }[];
  /** The stream of a topic, and the device that the topic names; undefined when it belongs to none. Cached. */
  route(topic: string): Route | undefined;
  /**
   * Message to reading: identity, decode, validate, time, in this order; the first that fails is the reason. Called for
   * each message on its way in, and again by each sink's worker. Synchronous, never throws.
   */
  read(message: Message, stream: string): Read;
  /** The key by which a reading is known when it comes again. Called on the way in only. Synchronous, never throws. */
  keyOf(reading: Reading): Keyed;
}

/** The latest time that a Date can hold, ECMAScript section 21.4.1.1. */
const maximumTime = 8.64e15;
const maximumIssues = 16;
const maximumIssueLength = 200;
/** Two generations of this many topics; longer topics are looked up each time, so that the cache stays below 40 MB. */
const cacheGeneration = 50_000;
const maximumCachedTopic = 256;

interface Entry {
  readonly definition: StreamDefinition;
  readonly schema: z.ZodType;
  /** The schema for values of each shape. */
  readonly byShape: WeakMap<object, z.ZodType>;
  readonly decode: Codec["decode"];
  /** Of a stream with several codecs: by content type. */
  readonly byContentType: ReadonlyMap<string, Codec["decode"]> | undefined;
}

/** Compiles every schema. Throws SLUICE_CONFIG_INVALID for streams that `streamsSettings` would have refused. */
export function createRegistry(streams: readonly StreamDefinition[]): Registry {
  const entries = new Map<string, Entry>();
  const interpreted: { stream: string; reason: string }[] = [];
  for (const definition of streams) {
    if (entries.has(definition.name)) throw invalid(`the stream ${definition.name} is defined twice`);
    const compiled = compile(definition.schema);
    if (compiled.reason !== undefined) interpreted.push({ stream: definition.name, reason: compiled.reason });
    entries.set(definition.name, {
      definition,
      schema: compiled.schema,
      byShape: new WeakMap(),
      ...toDecoders(definition),
    });
  }
  const route = createRouter(streams);
  const windows = streams.flatMap(({ name, dedupe }) =>
    dedupe === undefined ? [] : [[name, dedupe.window ?? defaultWindow] as const],
  );
  return {
    names: streams.map((stream) => stream.name),
    windows: new Map(windows),
    interpreted,
    route,
    read(message, stream) {
      const entry = entries.get(stream);
      if (entry === undefined) {
        return reject(stream, "no-stream", [{ path: "", message: `no stream is named "${stream}"` }]);
      }
      return readAs(entry, message);
    },
    keyOf: (reading) => toKeyed(entries.get(reading.stream)?.definition, reading),
  };
}

function toDecoders({ name, codec }: StreamDefinition): Pick<Entry, "decode" | "byContentType"> {
  if (!isList(codec)) return { decode: decoderOf(codec), byContentType: undefined };
  const byContentType = new Map<string, Codec["decode"]>();
  const decoders = codec.map((one) => {
    const decode = decoderOf(one);
    // Of two codecs with the same content type the one before counts.
    for (const type of one.contentTypes ?? []) if (!byContentType.has(type)) byContentType.set(type, decode);
    return decode;
  });
  const [decode] = decoders;
  if (decode === undefined) throw invalid(`the stream ${name} has an empty list of codecs`);
  return { decode, byContentType };
}

const decoderOf = (codec: Codec): Codec["decode"] => codec.createDecoder?.() ?? ((payload) => codec.decode(payload));

const isList = (codec: Codec | readonly Codec[]): codec is readonly Codec[] => Array.isArray(codec);

function compile(schema: z.ZodType): { readonly schema: z.ZodType; readonly reason: string | undefined } {
  try {
    return { schema: z.compile(schema, { strict: true }), reason: undefined };
  } catch (cause) {
    return { schema, reason: toError(cause).message };
  }
}

function readAs(entry: Entry, message: Message): Read {
  const { definition } = entry;
  const stream = definition.name;
  const { deviceId, topic, receivedAt, properties } = message;
  if (message.identity !== undefined && message.identity !== deviceId) {
    const text = `the client may publish for "${message.identity}" only, the message is for "${deviceId}"`;
    return reject(stream, "identity", [{ path: "", message: text }]);
  }
  let reason: RejectionReason = "undecodable";
  try {
    let { decode } = entry;
    if (properties !== undefined) {
      const chosen = chooseDecoder(entry, properties, message.payload);
      if (typeof chosen === "string") return reject(stream, "undecodable", [{ path: "", message: chosen }]);
      decode = chosen;
    }
    const decoded = decode(message.payload);
    if (decoded.kind === "undecodable") return reject(stream, "undecodable", decoded.issues);
    reason = "invalid";
    const parsed = parse(entry, decoded.value, decoded.shape);
    if (!parsed.success) return reject(stream, "invalid", toIssues(parsed.error.issues));
    const { data } = parsed;
    reason = "time";
    const time = definition.time === undefined ? receivedAt : toTime(definition.time(data, message));
    if (time === undefined) {
      return reject(stream, "time", [
        { path: "", message: "the stream's time is not in milliseconds from 1970 to 275760" },
      ]);
    }
    const reading: Reading =
      properties === undefined
        ? { stream, deviceId, topic, time, receivedAt, data }
        : { stream, deviceId, topic, time, receivedAt, data, properties };
    return { kind: "reading", reading };
  } catch (cause) {
    return reject(stream, reason, [{ path: "", message: `${whatThrew[reason]} failed: ${toError(cause).message}` }]);
  }
}

function parse(entry: Entry, value: unknown, shape: object | undefined): z.ZodSafeParseResult<unknown> {
  if (shape !== undefined) {
    let special = entry.byShape.get(shape);
    if (special === undefined) {
      special = toSpecial(entry, value);
      entry.byShape.set(shape, special);
    }
    const parsed = special.safeParse(value);
    // It says only that the value is good; what is wrong, and whether, is said by the stream's own.
    if (parsed.success || special === entry.schema) return parsed;
  }
  return entry.schema.safeParse(value);
}

/** Only of a schema that was compiled: an interpreted one may do what cannot be known from outside. */
function toSpecial({ definition, schema }: Entry, sample: unknown): z.ZodType {
  if (schema === definition.schema) return schema;
  const special = specialize(definition.schema, sample);
  return special === definition.schema ? schema : compile(special as z.ZodType).schema;
}

/** What the message says of its payload decides how it is read; a text says why it cannot be. */
function chooseDecoder(
  { decode, byContentType }: Entry,
  { contentType, payloadFormat }: MessageProperties,
  payload: Uint8Array,
): Codec["decode"] | string {
  // MQTT 5 section 3.3.2.3.2: such a payload is answered with Payload Format Invalid.
  if (payloadFormat === 1 && !isUtf8(payload)) return "is not UTF-8, though its Payload Format Indicator says so";
  if (contentType === undefined || byContentType === undefined) return decode;
  const chosen = byContentType.get(contentType) ?? byContentType.get(toMediaType(contentType));
  if (chosen !== undefined) return chosen;
  return `has the content type ${JSON.stringify(contentType)}; expected one of ${[...byContentType.keys()].join(", ")}`;
}

/** RFC 9110 section 8.3.1: without parameters, in lower case. */
const toMediaType = (contentType: string): string => (contentType.split(";", 1)[0] ?? "").trim().toLowerCase();

function toKeyed(definition: StreamDefinition | undefined, reading: Reading): Keyed {
  if (definition?.dedupe === undefined) return { kind: "none" };
  const { stream, data } = reading;
  let wrong: string;
  try {
    const key: unknown = definition.dedupe.key(data, reading);
    if (typeof key === "string") return { kind: "key", key };
    wrong = `gave ${key === null ? "null" : typeof key} instead of text`;
  } catch (cause) {
    wrong = `failed: ${toError(cause).message}`;
  }
  return reject(stream, "invalid", [{ path: "", message: `the stream's dedupe.key ${wrong}` }]);
}

const whatThrew = {
  undecodable: "the codec",
  invalid: "the schema",
  time: "the stream's time",
} as const satisfies Partial<Record<RejectionReason, string>>;

/** Whole milliseconds, because a device's seconds times 1000 are often a fraction off; undefined when not a time. */
function toTime(value: unknown): UnixMs | undefined {
  if (typeof value !== "number") return undefined;
  const time = Math.round(value);
  return time >= 0 && time <= maximumTime ? time : undefined;
}

function toIssues(issues: readonly z.core.$ZodIssue[]): readonly Issue[] {
  return issues
    .slice(0, maximumIssues)
    .map((issue) => ({ path: z.core.toDotPath(issue.path), message: issue.message }));
}

function reject(
  stream: string,
  reason: RejectionReason,
  issues: readonly Issue[],
): { readonly kind: "rejected"; readonly rejection: Rejection } {
  const bounded = issues
    .slice(0, maximumIssues)
    .map(({ path, message }) => ({ path: shorten(path), message: shorten(message) }));
  return { kind: "rejected", rejection: { stream, reason, issues: bounded } };
}

function shorten(text: string): string {
  return text.length <= maximumIssueLength ? text : `${text.slice(0, maximumIssueLength - 1).toWellFormed()}…`;
}

function invalid(detail: string): SluiceError {
  return new SluiceError("SLUICE_CONFIG_INVALID", detail);
}

function createRouter(streams: readonly StreamDefinition[]): (topic: string) => Route | undefined {
  const patterns = toPatterns(streams);
  let young = new Map<string, Route | null>();
  let old = new Map<string, Route | null>();
  return (topic) => {
    const known = young.get(topic);
    if (known !== undefined) return known ?? undefined;
    const older = old.get(topic);
    const route = older === undefined ? findRoute(patterns, topic) : older;
    if (topic.length > maximumCachedTopic) return route ?? undefined;
    if (young.size >= cacheGeneration) {
      old = young;
      young = new Map();
    }
    young.set(topic, route);
    return route ?? undefined;
  };
}

interface StreamPattern extends TopicPattern {
  readonly stream: string;
}

function toPatterns(streams: readonly StreamDefinition[]): readonly StreamPattern[] {
  const shapes = new Set<string>();
  const patterns = streams.map(({ name, topic }) => {
    const pattern = parseTopicPattern(topic);
    if (typeof pattern === "string") throw invalid(`the topic of stream ${name} ${pattern}`);
    if (shapes.has(pattern.shape)) throw invalid(`two streams have the topic ${topic}`);
    shapes.add(pattern.shape);
    return { ...pattern, stream: name };
  });
  return patterns.sort(bySpecificity);
}

function findRoute(patterns: readonly StreamPattern[], topic: string): Route | null {
  if (isReservedTopic(topic)) return null;
  const levels = topic.split("/");
  const found = patterns.find((pattern) => matchesPattern(pattern, levels));
  return found === undefined ? null : { stream: found.stream, deviceId: levels[found.deviceLevel] };
}
