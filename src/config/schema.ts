// The settings of a gateway: for each its default, its bound and a description, from which the documentation is generated.
// Settings that belong to one listener, stream or sink stand beside that listener, stream or sink.

import { resolve } from "node:path";
import { z } from "zod";
import type { Handler, HandlerDefinition } from "../dispatch/handler.ts";
import { tcp, tcpSettings } from "../listener/tcp.ts";
import type { ListenerDefinition } from "../listener/tcp.ts";
import { standardBatch } from "../sinks/sink.ts";
import type { BatchLimits, SinkDefinition, SinkType } from "../sinks/sink.ts";
import { streamsSettings } from "../validate/stream.ts";
import type { StreamDefinition } from "../validate/stream.ts";
import { toSentences } from "./problems.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;
const largestJournal = 16 * 1024 * GIB;
const WEEK_S = 604_800;

/** A host name or address of this machine that no other machine can reach. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}

const count = (standard: number, minimum: number, maximum: number): z.ZodDefault<z.ZodInt> =>
  z.int().min(minimum).max(maximum).default(standard);

const path = (): z.ZodType<string, string> =>
  z
    .string()
    .min(1)
    .transform((text) => resolve(text));

const httpSettings = z.strictObject({
  host: z
    .string()
    .refine(isLoopback, "expected a loopback address such as 127.0.0.1, because this server asks for no credentials")
    .default("127.0.0.1")
    .describe("Address of the HTTP server for health, metrics and the dashboard; it must be a loopback address."),
  port: count(8080, 0, 65_535).describe("Port of the HTTP server; 0 lets the system choose one."),
});

export const logLevel = z.enum(["fatal", "error", "warn", "info", "debug", "trace", "silent"]);

const logSettings = z.strictObject({
  level: logLevel.default("info").describe("The least important lines that are still written."),
});

const credentialsSettings = z.strictObject({
  passwordFile: path().describe(
    "File of users and passwords as `mosquitto_passwd` makes it. With it every client must authenticate.",
  ),
});

const retainSettings = z.strictObject({
  time: z
    .int()
    .min(0)
    .max(10 * 366 * 24 * 3600 * 1000)
    .optional()
    .describe("Age in milliseconds up to which records are kept that every sink has read."),
  bytes: z
    .int()
    .min(0)
    .max(largestJournal)
    .optional()
    .describe("Bytes of records that every sink has read which are kept; with time too, both must allow it."),
});

const journalSettings = z.strictObject({
  maxBytes: count(10 * GIB, 4 * MIB, largestJournal).describe(
    "Disk space of the journal in bytes. What happens when it is full is said by whenFull.",
  ),
  segmentBytes: count(64 * MIB, MIB, GIB).describe(
    "Size of one journal file in bytes, at most an eighth of maxBytes; space is given back a whole file at a time.",
  ),
  whenFull: z
    .enum(["hold", "expire"])
    .default("hold")
    .describe(
      "hold: devices wait for their acknowledgement until sinks have read on, nothing is lost. expire: the oldest records are deleted though a sink has not read them, and counted.",
    ),
  retain: retainSettings
    .prefault({})
    .describe(
      "What is kept for replay after every sink has read it, as long as its room is not needed; by default nothing.",
    ),
  reserveBytes: z
    .int()
    .min(0)
    .max(1024 * GIB)
    .optional()
    .describe(
      "While less than this is free on the disk the journal counts as full, so that sinks beside it can still write. By default 64 MiB, or a twentieth of a smaller disk.",
    ),
});

const parkedSettings = z.strictObject({
  bytes: count(GIB, MIB, 1024 * GIB).describe(
    "Of the file parked.db. When it is full a sink or handler that has to park a record waits, with an ERROR line, until you have made room.",
  ),
});

const rejectsSettings = z.strictObject({
  records: count(100_000, 0, 10_000_000).describe(
    "Rejected messages that are kept; the oldest give way. 0: none is kept beyond the journal, and there is no inbox.",
  ),
  bytes: count(256 * MIB, MIB, 1024 * GIB).describe(
    "The same in bytes of payloads, names and issues; the file takes somewhat more.",
  ),
});

const limitsSettings = z.strictObject({
  // With the longest names a larger one would not fit into a frame of the journal.
  maximumPacketBytes: count(256 * KIB, KIB, 360 * KIB).describe(
    "A larger MQTT packet ends the connection before its body is read. MQTT 5 clients are told it.",
  ),
  maximumConnectBytes: count(16 * KIB, 128, 360 * KIB).describe(
    "The same for a CONNECT packet, with its will, user name and password: of clients that nobody knows yet.",
  ),
  connectTimeoutMs: count(5_000, 100, 300_000).describe(
    "Time in milliseconds from the network connection to a complete CONNECT.",
  ),
  maximumConnections: count(20_000, 1, 1_000_000).describe("Connections at the same time; further ones are closed."),
  maximumConnectionsPerAddress: z
    .int()
    .min(1)
    .max(1_000_000)
    .optional()
    .describe(
      "Connections at the same time from one address, of IPv6 one /64 network; further ones are closed. By default three quarters of maximumConnections, because a whole fleet may stand behind one router or proxy.",
    ),
  connectionsPerSecond: count(0, 0, 1_000_000).describe(
    "New connections that are begun in a second; further ones wait their turn, so that a whole fleet that comes back at once slows nobody down. 0: no limit.",
  ),
  messagesPerSecond: count(0, 0, 10_000_000).describe(
    "PUBLISH packets of one client in a second. A client that sends faster is read more slowly and loses nothing. 0: no limit.",
  ),
  bytesPerSecond: count(0, 0, 10 * GIB).describe("The same in bytes of all its packets. 0: no limit."),
  maximumKeepAliveS: count(0, 0, 65_535).describe(
    "An MQTT 5 client that asks for a longer keep-alive, or for none, is told this one and held to it. Older clients cannot be told and keep their own. 0: no limit.",
  ),
  topicAliases: count(16, 0, 1_000).describe(
    "Topic aliases that an MQTT 5 client may set on its connection; it is told. 0: none.",
  ),
  subscriberQueueBytes: count(MIB, KIB, GIB).describe(
    "What may wait for one live subscriber in bytes; beyond it messages are dropped for that subscriber and counted.",
  ),
  maximumInflightQos2: count(1_000, 1, 65_535).describe(
    "Unfinished QoS 2 messages per client, and the receive maximum told to MQTT 5 clients.",
  ),
  maximumTopicLevels: count(64, 1, 100).describe("Levels of a topic or filter."),
  maximumTopicBytes: count(1_024, 16, 65_535).describe("Length of a topic or filter in bytes of UTF-8."),
  maximumFiltersPerSubscribe: count(100, 1, 10_000).describe("Filters in one SUBSCRIBE packet."),
  maximumSubscriptionsPerClient: count(1_000, 1, 100_000).describe("Subscriptions of one client."),
  retainedMessages: count(10_000, 0, 10_000_000).describe(
    "Retained messages in all; further ones are not kept, and counted.",
  ),
  retainedBytes: count(64 * MIB, 0, 64 * GIB).describe(
    "Bytes of retained messages in all; what goes beyond is not kept, and counted.",
  ),
  sessions: count(10_000, 0, 10_000_000).describe(
    "Sessions with subscriptions that outlive their connection; a client that would have one more is refused.",
  ),
  sessionExpiryS: count(WEEK_S, 0, 0xffff_ffff).describe(
    "How long in seconds a session at most outlives its connection, with what waits for its client and the QoS 2 messages that it has not finished. Told to MQTT 5 clients that ask for longer; applies also to 3.1.1, where sessions have no end.",
  ),
  queuedMessagesPerSession: count(1_000, 1, 65_535).describe(
    "QoS 1 and 2 messages that wait for one session or that its client has not acknowledged; see whenQueueFull.",
  ),
  queuedBytesPerSession: count(4 * MIB, KIB, 64 * GIB).describe("The same in bytes."),
  queuedBytes: count(256 * MIB, KIB, 64 * GIB).describe("The same in bytes, of all sessions together."),
  whenQueueFull: z
    .enum(["newest", "oldest"])
    .default("newest")
    .describe(
      "Which message is dropped, and counted, when one comes and there is no room. newest: the one that comes, so that what was taken for a client is delivered to it. oldest: those that have waited longest, so that it gets the last state; what it has not acknowledged stays.",
    ),
});

/** Sinks and handlers share their names: each has a cursor file of its name. */
const consumerName = z
  .string()
  .regex(/^[a-z][a-z0-9_-]{0,99}$/, "expected a lower-case letter, then at most 99 letters, digits, _ or -")
  .refine((name) => name !== "rejects", "expected another name: `rejects` is the inbox of rejected messages");

const listenerSetting = z
  .custom<ListenerDefinition>((value) => isDefinition(value, "listener"), {
    error: "expected a listener such as tcp()",
    abort: true,
  })
  .transform((definition, context) => {
    const parsed = parseWithin(tcpSettings, definition.given, context);
    return parsed === undefined ? z.NEVER : { type: definition.type, host: parsed.host, port: parsed.port };
  });

const retrySettings = z.strictObject({
  minimumMs: count(50, 1, 3_600_000).describe(
    "The first pause after a failure is a random part of this; the ceiling doubles with each further one.",
  ),
  maximumMs: count(30_000, 1, 3_600_000).describe("No pause is longer, unless the server asks for it."),
});

export const handlerSettings = z.strictObject({
  name: consumerName
    .optional()
    .describe("Names the handler in its cursor, in metrics and in the log; by default on-<stream>."),
  from: z
    .enum(["start", "now"])
    .default("start")
    .describe(
      "Where a handler begins that has no cursor yet: with the oldest record of the journal, or with what comes next.",
    ),
  concurrency: count(1, 1, 1_000).describe(
    "Calls at the same time. More than 1: one at a time for each device, in order, and none between devices.",
  ),
  timeoutMs: count(60_000, 100, 3_600_000).describe(
    "A call that takes longer is told by its signal and has failed; 5 s later its worker is replaced.",
  ),
  retry: retrySettings
    .extend({ attempts: count(6, 1, 1_000_000).describe("Calls that fail before the record is parked.") })
    .prefault({})
    .describe("When a call that has failed is made again, and how often."),
  stateBytes: count(64 * MIB, KIB, 16 * GIB).describe(
    "Bytes of the keys and values of its state; a call that would keep more fails.",
  ),
});

const handlerSetting = z
  .custom<HandlerDefinition>((value) => isDefinition(value, "handler"), {
    error: "expected a handler such as on(climate, async ({ reading }) => { … })",
    abort: true,
  })
  .transform((definition, context) => {
    const { stream, handler, given } = definition;
    const parsed = parseWithin(handlerSettings, given, context);
    const complain = (message: string, input: unknown): void =>
      void context.issues.push({ code: "custom", message, input });
    if (typeof stream?.name !== "string") complain("expected a stream as the first argument of on()", stream);
    if (typeof handler !== "function") complain("expected a function as the second argument of on()", handler);
    if (parsed === undefined || context.issues.length > 0) return z.NEVER;
    return { ...parsed, name: parsed.name ?? defaultName(definition), stream: stream.name, handler };
  });

const batchSettings = z.strictObject({
  records: z.int().min(1).max(100_000).optional().describe("Readings of one batch at most."),
  bytes: z
    .int()
    .min(KIB)
    .max(64 * MIB)
    .optional()
    .describe("Bytes of the journal's records in one batch, about; a batch has at least one reading."),
  lingerMs: z
    .int()
    .min(0)
    .max(60_000)
    .optional()
    .describe("How much later than its PUBACK a reading may come to the sink, for the sake of larger batches."),
});

/** What every sink takes beside the settings of its kind. */
export const sinkSettings = z.object({
  name: consumerName.describe("Names the sink in its cursor, in metrics and in the log; by default its kind."),
  only: z
    .array(z.string())
    .min(1, "expected at least one stream")
    .optional()
    .describe("The names of the streams whose readings it is given; by default all."),
  from: z
    .enum(["start", "now"])
    .default("start")
    .describe(
      "Where a sink begins that has no cursor yet: with the oldest record of the journal, or with what comes next.",
    ),
  batch: batchSettings
    .prefault({})
    .describe("How much one write is given; what is not said here the kind of sink says."),
  retry: retrySettings.prefault({}).describe("Failures are retried for ever; here is how often."),
  timeoutMs: count(60_000, 100, 3_600_000).describe(
    "A write that takes longer counts as failed, and a worker that does not answer for so long is replaced.",
  ),
});

const sinkSetting = z
  .custom<SinkDefinition>((value) => isDefinition(value, "sink"), {
    error: "expected a sink such as sqlite()",
    abort: true,
  })
  .transform((definition, context) => {
    const { sink, given } = definition;
    if (typeof given !== "object" || given === null) {
      context.issues.push({ code: "custom", message: "expected an object with the sink's settings", input: given });
      return z.NEVER;
    }
    const [common, own] = divide(given as Readonly<Record<string, unknown>>, Object.keys(sinkSettings.shape));
    const parsed = parseWithin(sinkSettings, { name: defaultName(definition), ...common }, context);
    const schema = sink.settings.def.catchall === undefined ? sink.settings.strict() : sink.settings;
    const settings = parseWithin(schema, own, context, Object.keys(sinkSettings.shape));
    if (parsed === undefined || settings === undefined) return z.NEVER;
    const standard = { ...standardBatch, ...sink.batch };
    const { records = standard.records, bytes = standard.bytes, lingerMs = standard.lingerMs } = parsed.batch;
    const open: SinkType["open"] = (...args) => sink.open(...args);
    const holds = sink.holds ?? false;
    return { ...parsed, batch: { records, bytes, lingerMs }, holds, type: sink.type, settings, open };
  });

/** The settings named by `keys`, and the others. */
function divide(
  given: Readonly<Record<string, unknown>>,
  keys: readonly string[],
): readonly [Readonly<Record<string, unknown>>, Readonly<Record<string, unknown>>] {
  const entries = Object.entries(given).filter(([, value]) => value !== undefined);
  const isOne = ([key]: readonly [string, unknown]): boolean => keys.includes(key);
  return [Object.fromEntries(entries.filter(isOne)), Object.fromEntries(entries.filter((entry) => !isOne(entry)))];
}

/** Everything that `defineGateway` takes. */
export const gatewaySettings = z.strictObject({
  listeners: z
    .array(listenerSetting)
    .min(1, "expected at least one listener")
    .prefault(() => [tcp()])
    .describe("Where devices connect."),
  streams: streamsSettings,
  handlers: z
    .array(handlerSetting)
    .default([])
    .describe("Functions of yours, called for each reading of a stream: at least once, each with its own cursor."),
  sinks: z
    .array(sinkSetting)
    .default([])
    .describe("Where readings go. Every sink receives every reading, at its own pace, with its own cursor."),
  dataDir: path()
    .prefault("./data")
    .describe("Folder of the journal and of everything else that must survive a restart."),
  http: httpSettings.prefault({}).describe("The HTTP server for health, metrics and the dashboard."),
  log: logSettings.prefault({}).describe("The log on standard output."),
  credentials: credentialsSettings
    .optional()
    .describe("Who may connect. Without it anybody may, and only loopback addresses are listened on."),
  journal: journalSettings.prefault({}).describe("The log on disk that holds each message until every sink has it."),
  parked: parkedSettings
    .prefault({})
    .describe("How much is kept of the records that sinks and handlers cannot take, for `sluice parked`."),
  rejects: rejectsSettings
    .prefault({})
    .describe(
      "How much is kept of the messages that were rejected, for `sluice rejects`, after the journal has let them go.",
    ),
  limits: limitsSettings
    .prefault({})
    .describe("Bounds of everything that a client could make grow; each has a safe default."),
  shutdownMs: count(10_000, 0, 600_000).describe(
    "Time in milliseconds that sinks and connections have to finish when the gateway is stopped.",
  ),
});

/** What a configuration file says; see `gatewaySettings` for defaults and bounds. */
export interface GatewaySettings {
  readonly listeners?: readonly ListenerDefinition[];
  readonly streams: readonly StreamDefinition[];
  readonly handlers?: readonly HandlerDefinition[];
  readonly sinks?: readonly SinkDefinition[];
  readonly dataDir?: string;
  readonly http?: Readonly<z.input<typeof httpSettings>>;
  readonly log?: Readonly<z.input<typeof logSettings>>;
  readonly credentials?: Readonly<z.input<typeof credentialsSettings>>;
  readonly journal?: Readonly<z.input<typeof journalSettings>>;
  readonly parked?: Readonly<z.input<typeof parkedSettings>>;
  readonly rejects?: Readonly<z.input<typeof rejectsSettings>>;
  readonly limits?: Readonly<z.input<typeof limitsSettings>>;
  readonly shutdownMs?: number;
}

/** What a configuration file exports as its default, not yet validated. */
export interface GatewayDefinition {
  readonly kind: "gateway";
  readonly given: GatewaySettings;
}

/** The default export of a configuration file. Checks nothing and never throws; the loader reports what is wrong. */
export function defineGateway(given: GatewaySettings): GatewayDefinition {
  return Object.freeze({ kind: "gateway", given });
}

export interface ListenerConfig {
  readonly type: "tcp";
  /** As it was asked for, if it was; exposure.ts says what is really listened on. */
  readonly host: string | undefined;
  readonly port: number;
}

export interface HandlerConfig extends Readonly<Omit<z.output<typeof handlerSettings>, "name">> {
  readonly name: string;
  /** Name of the stream whose readings it is called for. */
  readonly stream: string;
  readonly handler: Handler;
}

export interface SinkConfig {
  readonly name: string;
  readonly type: string;
  /** Streams; undefined: all. */
  readonly only?: readonly string[] | undefined;
  readonly from: "start" | "now";
  readonly batch: BatchLimits;
  readonly holds: boolean;
  readonly retry: { readonly minimumMs: number; readonly maximumMs: number };
  readonly timeoutMs: number;
  /** Validated by the sink's own schema. May hold secrets. */
  readonly settings: Readonly<Record<string, unknown>>;
  readonly open: SinkType["open"];
}

/** A configuration that has been validated: every default filled in, the environment applied, every path absolute. */
export interface GatewayConfig {
  /** The configuration file, absolute. */
  readonly file: string;
  readonly listeners: readonly ListenerConfig[];
  readonly streams: readonly StreamDefinition[];
  readonly handlers: readonly HandlerConfig[];
  readonly sinks: readonly SinkConfig[];
  readonly dataDir: string;
  readonly http: Readonly<z.output<typeof httpSettings>>;
  readonly log: Readonly<z.output<typeof logSettings>>;
  readonly credentials?: Readonly<z.output<typeof credentialsSettings>> | undefined;
  readonly journal: Readonly<z.output<typeof journalSettings>>;
  readonly parked: Readonly<z.output<typeof parkedSettings>>;
  readonly rejects: Readonly<z.output<typeof rejectsSettings>>;
  readonly limits: Readonly<z.output<typeof limitsSettings>>;
  readonly shutdownMs: number;
}

/** The name of a sink or handler that was given none. */
export function defaultName(definition: SinkDefinition | HandlerDefinition): string {
  return definition.kind === "sink" ? definition.sink.type : `on-${definition.stream?.name}`;
}

/** True for what `tcp()`, `on()`, `sqlite()` and their like return. */
export function isDefinition(value: unknown, kind: "gateway" | "handler" | "listener" | "sink"): boolean {
  if (typeof value !== "object" || value === null || (value as { kind?: unknown }).kind !== kind) return false;
  if (kind !== "sink") return true;
  const { sink } = value as Partial<SinkDefinition>;
  return typeof sink?.open === "function" && typeof sink.type === "string" && "shape" in Object(sink.settings);
}

/** Validates what a definition was given as if it stood in the definition's place; undefined after a problem. */
function parseWithin<Schema extends z.ZodType>(
  schema: Schema,
  given: unknown,
  context: z.RefinementCtx,
  furtherKeys: readonly string[] = [],
): z.output<Schema> | undefined {
  const parsed = schema.safeParse(given, { reportInput: true });
  if (parsed.success) return parsed.data;
  for (const { path: place, sentence } of toSentences(schema, parsed.error.issues, furtherKeys)) {
    context.issues.push({ code: "custom", path: [...place], message: sentence, input: given });
  }
  return undefined;
}
