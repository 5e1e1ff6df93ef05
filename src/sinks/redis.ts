// Readings into Redis Streams, exactly once: up to 2,000 entries and the position behind them are one script.
//
//   telemetry:{stream}   a stream for each key that the template gives; an entry has the fields gateway, offset, stream,
//                        device, topic, time, received_at (times in milliseconds since 1970) and data (JSON)
//   sluice:cursor        a hash: <gateway>/<sink> → everything below this offset has been written
//
// Redis runs a script as a whole, and writes it to its append-only file and its replicas as one transaction: what a crash
// or a failover takes with it are entries and position together, and they come again.

import type { RedisClientOptions } from "@redis/client";
import { z } from "zod";
import { toError } from "../errors.ts";
import { toOffset } from "../reading.ts";
import type { Batch } from "../reading.ts";
import { toJson } from "./document.ts";
import { toReason } from "./connection-error.ts";
import { defineSink, SinkError } from "./sink.ts";
import type { RefusedEntry, Sink, SinkContext, Written } from "./sink.ts";
import { createTemplate, templateOf } from "./template.ts";
import { readTls, tlsSettings, toTlsHint } from "./tls.ts";

const redisSettings = z.strictObject({
  url: z
    .url({ protocol: /^rediss?$/, error: "must be redis://host:port or rediss://host:port" })
    .refine((text) => /^rediss?:\/\/[^/?#@]+\/?$/.test(text), {
      message: "must be host and port only: give username, password and database as settings of their own",
    })
    .default("redis://127.0.0.1:6379")
    .describe("The server: redis://host:port, or rediss://host:port for TLS."),
  username: z
    .string()
    .min(1)
    .optional()
    .describe("The user of Redis's access control list; by default its default user."),
  password: z.string().min(1).optional().describe("The password of the user; none when left out."),
  tls: tlsSettings.optional().describe("For rediss://: certificates."),
  database: z.int().min(0).max(65_535).default(0).describe("The number of the database."),
  key: templateOf(["{stream}", "{device}"])
    .default("telemetry:{stream}")
    .describe("The key of the stream that a reading goes to; may have {stream} and {device}."),
  maxLength: z
    .int()
    .min(1)
    .max(Number.MAX_SAFE_INTEGER)
    .default(1_000_000)
    .describe("Each stream keeps at least so many entries, and a few more; Redis deletes the oldest (MAXLEN ~)."),
});

type RedisSettings = z.output<typeof redisSettings>;

/** Readings into Redis Streams. */
export const redis = defineSink({
  type: "redis",
  settings: redisSettings,
  batch: { records: 1_000, bytes: 1024 * 1024 },
  reference: {
    writes:
      "Adds each reading to a Redis Stream (`XADD`), by default `telemetry:` and the name of its stream, with the fields `gateway`, `offset`, `stream`, `device`, `topic`, `time`, `received_at` (milliseconds since 1970) and `data` (JSON). The position of each sink is a field of the hash `sluice:cursor`.",
    once: "Exactly once. Up to 2,000 entries and the position behind them are one script, which Redis runs, persists and replicates as a whole, and what the position has passed is not added again. A crash or failover that costs Redis its last second (`appendfsync everysec`) takes entries and position together, and what the journal still has of it comes again; when Redis comes back empty the gateway's own position counts. A replay adds its entries once more: `gateway` and `offset` tell them.",
    notes: [
      "Redis 5 or later, or a server that speaks its protocol and has `EVAL` and streams; no Redis Cluster. A user of the access control list needs `+eval +hget +hset +type +xadd` on the streams and `sluice:cursor`.",
      "Set `maxmemory-policy` to `noeviction`, or a policy for keys with an expiry only: others may evict whole streams, and the position. While Redis is out of memory the sink waits, and the readings wait in the journal.",
      "A stream has about `maxLength` entries; the oldest are deleted, also when no consumer has read them. With `{device}` in `key` each device has so many.",
      "Parked is only what cannot be written as JSON. A reading must be smaller than Redis's `proto-max-bulk-len` (512 MB unless it was lowered): Redis closes the connection for a larger one, and the sink stands still there.",
    ],
    example: `redis({ url: "rediss://redis.example:6379", username: "sluice", password: env.REDIS_PASSWORD })`,
  },
  open: openRedis,
});

const CURSORS = "sluice:cursor";
/** For the connection and for reading the position. */
const ANSWERS_WITHIN_MS = 10_000;
const FIELDS = ["offset", "stream", "device", "topic", "time", "received_at", "data"] as const;

/**
 * KEYS: the hash of positions, then the streams. ARGV: gateway, the hash's field, the new position ("" for a replay, which
 * has none), the position when there is none yet, MAXLEN; then for each entry the number of its key and its FIELDS.
 * A script that fails half-way is not rolled back: so whatever can fail does before the first entry, also writing the position.
 */
const SCRIPT = `
local gateway, field, following, first, length = unpack(ARGV, 1, 5)
for i = 2, #KEYS do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= 'stream' and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind .. ' and no stream')
  end
end
local kept = '0'
if following ~= '' then
  kept = redis.call('HGET', KEYS[1], field) or first
  redis.call('HSET', KEYS[1], field, kept)
end
kept = tonumber(kept)
for i = 6, #ARGV, ${FIELDS.length + 1} do
  if tonumber(ARGV[i + 1]) >= kept then
    redis.call('XADD', KEYS[tonumber(ARGV[i])], 'MAXLEN', '~', length, '*', 'gateway', gateway,
      ${FIELDS.map((name, index) => `'${name}', ARGV[i + ${index + 1}]`).join(", ")})
  end
end
if following ~= '' and tonumber(following) > kept then redis.call('HSET', KEYS[1], field, following) end
return 0`;

/** What this sink uses of the library's client. */
interface Client {
  connect(): Promise<unknown>;
  hGet(key: string, field: string): Promise<string | null>;
  eval(script: string, call: { readonly keys: string[]; readonly arguments: string[] }): Promise<unknown>;
  /** Waiting calls reject. */
  destroy(): void;
}

async function openRedis(settings: RedisSettings, context: SinkContext): Promise<Sink> {
  const { createClient } = await import("@redis/client");
  const options = await toClientOptions(settings);
  const client = createClient({ RESP: 2, maintNotifications: "disabled", ...options });
  // What breaks the connection rejects the call that waits, or the next one.
  client.on("error", () => {});
  await during(client, settings.url, AbortSignal.timeout(ANSWERS_WITHIN_MS), () => client.connect());
  return createSink(client, settings, context);
}

async function toClientOptions(settings: RedisSettings): Promise<Omit<RedisClientOptions, "RESP">> {
  const { username, password, database } = settings;
  const { protocol, hostname, port } = new URL(settings.url);
  const place = {
    host: hostname.replaceAll(/[[\]]/g, ""),
    port: port === "" ? 6379 : Number(port),
    connectTimeout: ANSWERS_WITHIN_MS,
    reconnectStrategy: false,
  } as const;
  const tls = protocol === "rediss:" ? await readTls(settings.tls ?? tlsSettings.parse({})) : undefined;
  return {
    disableOfflineQueue: true,
    database,
    ...(username !== undefined && { username }),
    ...(password !== undefined && { password }),
    socket: tls === undefined ? place : { ...place, ...tls, tls: true },
  };
}

function createSink(client: Client, settings: RedisSettings, { gateway, name }: SinkContext): Sink {
  const { url, maxLength } = settings;
  const field = `${gateway}/${name}`;
  const toKey = createTemplate(settings.key);
  return {
    async position() {
      const late = AbortSignal.timeout(ANSWERS_WITHIN_MS);
      const kept = await during(client, url, late, () => client.hGet(CURSORS, field));
      return kept === null ? undefined : toOffset(Number(kept));
    },
    async write(batch, signal) {
      signal.throwIfAborted();
      const made = toCalls(batch, { field, toKey, maxLength });
      if (made.kind === "except") return made;
      for (const call of made.calls) await during(client, url, signal, () => client.eval(SCRIPT, call));
      return { kind: "all" };
    },
    [Symbol.asyncDispose]() {
      client.destroy();
      return Promise.resolve();
    },
  };
}

interface Call {
  readonly keys: string[];
  readonly arguments: string[];
}

interface CallOptions {
  readonly field: string;
  readonly toKey: ReturnType<typeof createTemplate>;
  readonly maxLength: number;
}

/** Entries of one script: Redis answers nobody else meanwhile, and the client's stack ends at some 100,000 arguments. */
const LARGEST_CALL = 2_000;

/** What the script is given for a batch, once or more often, or which of its entries cannot be written as JSON. */
function toCalls(
  batch: Batch,
  options: CallOptions,
): { readonly kind: "calls"; readonly calls: readonly Call[] } | (Written & { readonly kind: "except" }) {
  const refused: RefusedEntry[] = [];
  const texts = batch.entries.map(({ offset, reading }) => {
    const text = toJson(reading.data);
    if (typeof text === "string") return text;
    refused.push({ offset, reason: `its data cannot be written as JSON: ${text.message}` });
    return "";
  });
  const [first, ...others] = refused;
  if (first !== undefined) return { kind: "except", refused: [first, ...others] };
  const calls: Call[] = [];
  for (let from = 0; from === 0 || from < texts.length; from += LARGEST_CALL) {
    const entries = batch.entries.slice(from, from + LARGEST_CALL);
    const next = batch.entries[from + LARGEST_CALL]?.offset ?? batch.next;
    calls.push(toCall({ ...batch, entries, next }, texts.slice(from, from + LARGEST_CALL), options));
  }
  return { kind: "calls", calls };
}

function toCall(
  { gateway, entries, next, replay = false }: Batch,
  texts: readonly string[],
  { field, toKey, maxLength }: CallOptions,
): Call {
  const numbers = new Map<string, number>();
  const values = [gateway, field, replay ? "" : `${next}`, `${entries[0]?.offset ?? next}`, `${maxLength}`];
  for (const [index, { offset, reading }] of entries.entries()) {
    const { stream, deviceId, topic, time, receivedAt } = reading;
    const key = toKey(reading);
    const number = numbers.get(key) ?? numbers.size + 2;
    numbers.set(key, number);
    values.push(`${number}`, `${offset}`, stream, deviceId, topic, `${time}`, `${receivedAt}`, texts[index] ?? "null");
  }
  return { keys: [CURSORS, ...numbers.keys()], arguments: values };
}

/** Waits for an answer; when the signal aborts first, the connection is gone, and nothing that it was asked for follows. */
async function during<T>(client: Client, url: string, signal: AbortSignal, call: () => Promise<T>): Promise<T> {
  const abandon = (): void => client.destroy();
  signal.addEventListener("abort", abandon, { once: true });
  try {
    return await call();
  } catch (cause) {
    throw signal.aborted ? toEnd(url, signal) : explain(url, cause);
  } finally {
    signal.removeEventListener("abort", abandon);
  }
}

function toEnd(url: string, { reason }: AbortSignal): Error {
  const error = toError(reason);
  if (error.name !== "TimeoutError") return error;
  return new Error(`${url}: it does not answer within ${ANSWERS_WITHIN_MS / 1_000} s.`, { cause: reason });
}

/** What only a person can mend, by how Redis says it: https://redis.io/docs/latest/develop/reference/protocol-spec/. */
const hints: readonly (readonly [RegExp, string])[] = [
  [/\bNOAUTH\b/, "It wants a password: give username and password."],
  [/\bWRONGPASS\b|^ERR (?:AUTH|invalid password)/, "It refuses these credentials: check username and password."],
  [
    /\bNOPERM\b|can't run this command/,
    `The user must be allowed +eval +hget +hset +type +xadd on the keys of the template and ${CURSORS}.`,
  ],
  [/\bWRONGTYPE\b/, "Delete or rename that key, or give another template as key."],
  [/^(?:MOVED|CROSSSLOT|ASK)\b/, "It is a Redis Cluster, which this sink cannot write to: give a single server."],
  [/DB index/, "It has no database of that number: see its setting databases."],
  [/unknown command/i, "It must be Redis 5 or later, with the commands EVAL and XADD."],
];

const transientHints: readonly (readonly [RegExp, string])[] = [
  [/\bOOM\b/, "It has no memory left: raise its maxmemory, or lower maxLength."],
  [/\bREADONLY\b/, "It is a replica: the address must lead to the primary."],
  [/\bMISCONF\b/, "It cannot write to its disk: look into its log."],
];

function explain(url: string, cause: unknown): Error {
  const message = toReason(cause);
  const find = (table: typeof hints): string | undefined => table.find(([shape]) => shape.test(message))?.[1];
  const hint = find(hints) ?? toTlsHint(cause);
  if (hint !== undefined) return new SinkError("misconfigured", `${url}: ${message}. ${hint}`, { cause });
  return new Error([`${url}: ${message}.`, find(transientHints)].filter(Boolean).join(" "), { cause });
}
