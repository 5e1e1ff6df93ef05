// Readings into NATS JetStream: a message for each, acknowledged by the stream that takes its subject.
//
//   subject   what the template gives; in a device id what would make several tokens of it is percent-encoded
//   payload   the document of document.ts
//   headers   Nats-Msg-Id: <gateway>/<offset>, by which JetStream knows a repetition; Nats-Expected-Stream when a stream is set

import { resolve } from "node:path";
import type { JetStreamClient, JetStreamManager } from "@nats-io/jetstream";
import { z } from "zod";
import { toError } from "../errors.ts";
import { connectNats, toOrigin } from "./nats-connection.ts";
import type { NatsLink } from "./nats-connection.ts";
import { createMessages, toWritten } from "./nats-messages.ts";
import type { Message } from "./nats-messages.ts";
import { defineSink, SinkError } from "./sink.ts";
import type { RefusedEntry, Sink, SinkContext } from "./sink.ts";
import { templateOf } from "./template.ts";
import { tlsSettings } from "./tls.ts";

const serverUrl = z
  .url({ protocol: /^(?:nats|tls)$/, error: "must be nats://host:port or tls://host:port" })
  .refine((text) => /^(?:nats|tls):\/\/[^/?#@]+\/?$/.test(text), {
    message: "must be host and port only: give the credentials as settings of their own",
  });

const secretFile = (sentence: string): z.ZodOptional<z.ZodType<string, string>> =>
  z
    .string()
    .min(1)
    .transform((text) => resolve(text))
    .optional()
    .describe(sentence);

/** https://docs.nats.io/nats-concepts/subjects: tokens between dots, and no white space. */
const isSubject = (text: string): boolean => /^[^\s.]+(?:\.[^\s.]+)*$/.test(text);

const createSettings = z.strictObject({
  subjects: z
    .array(z.string().refine(isSubject, "must be tokens between dots, without white space"))
    .min(1)
    .default(["telemetry.>"])
    .describe("The subjects that the stream takes; may have wildcards."),
  replicas: z.int().min(1).max(5).default(1).describe("On so many servers of a cluster; 1, 3 or 5."),
  maxBytes: z
    .int()
    .min(1)
    .max(Number.MAX_SAFE_INTEGER)
    .optional()
    .describe("The oldest messages are deleted when there are more bytes; no limit when left out."),
  maxAgeMs: z
    .int()
    .min(1_000)
    .max(100 * 365 * 86_400_000)
    .optional()
    .describe("Older messages are deleted; none when left out."),
  duplicateWindowMs: z
    .int()
    .min(1_000)
    .max(86_400_000)
    .default(120_000)
    .describe("For so long a repetition is known; JetStream holds the ids in memory. At most `maxAgeMs`."),
});

const natsSettings = z
  .strictObject({
    servers: z
      .array(serverUrl)
      .min(1)
      .default(["nats://127.0.0.1:4222"])
      .describe("The servers, tried in this order: nats://host:port, or tls://host:port for TLS."),
    token: z.string().min(1).optional().describe("A token, for a server that wants one."),
    username: z.string().min(1).optional().describe("The user; none when left out."),
    password: z.string().min(1).optional().describe("The password of the user."),
    nkey: secretFile("File with the seed of an NKey (one line that begins with SU)."),
    credentials: secretFile("File with a JWT and its seed, as `nsc` writes it (.creds)."),
    tls: tlsSettings.optional().describe("Certificates; with them a server without TLS is refused."),
    subject: templateOf(["{stream}", "{device}"])
      .refine((text) => isSubject(text) && !/[*>]|^\$/.test(text), {
        message: "must be tokens between dots, without white space, * and >, and not begin with $",
      })
      .default("telemetry.{stream}.{device}")
      .describe("Where a reading is published; may have {stream} and {device}."),
    stream: z
      .string()
      .regex(/^[^\s.*>/\\\p{Cc}]{1,255}$/u, "must be without white space, . * > / and \\")
      .optional()
      .describe("The JetStream stream that must take the messages; whichever takes the subject when left out."),
    create: createSettings
      .optional()
      .describe("Makes `stream` when it is not there, in files; a stream that is there stays as it is."),
    inFlight: z
      .int()
      .min(1)
      .max(4_096)
      .default(512)
      .describe("Messages that are on their way at a time; with 1 the order is kept whatever happens, slowly."),
    inboxPrefix: z
      .string()
      .regex(/^[\w-]+(?:\.[\w-]+)*$/, "must be tokens of letters, digits, _ and - between dots")
      .max(100)
      .default("_INBOX")
      .describe("Acknowledgements come on subjects below this one, to which the user must be allowed to subscribe."),
  })
  .refine(({ create, stream }) => create === undefined || stream !== undefined, "create needs the name as stream")
  .refine(
    ({ username, password }) => password === undefined || username !== undefined,
    "password needs the user as username",
  )
  .refine(
    ({ token, username, nkey, credentials }) =>
      [token, username, nkey, credentials].filter((one) => one !== undefined).length <= 1,
    "expected one of token, username, nkey and credentials at most",
  );

type NatsSettings = z.output<typeof natsSettings>;

/** Readings into NATS JetStream. */
export const nats = defineSink({
  type: "nats",
  settings: natsSettings,
  batch: { records: 1_000, bytes: 1024 * 1024 },
  reference: {
    writes:
      "Publishes each reading to NATS JetStream, by default to `telemetry.`, the name of its stream and its device, and waits for the acknowledgement of the JetStream stream that takes the subject. The message is one line of JSON with `gateway`, `offset`, `stream`, `device`, `topic`, `time`, `receivedAt` and `data`; its header `Nats-Msg-Id` is the gateway id, `/` and the offset.",
    once: "Once within the stream's duplicate window (`duplicate_window`, 2 minutes unless it was set), at least once after it. A batch counts as delivered when every message is acknowledged, and comes again as a whole when the connection broke before that; JetStream then drops by `Nats-Msg-Id` what it has. After an outage longer than the window, what was written but not acknowledged before it is there twice, and `gateway` and `offset` tell. A replay within the window adds nothing, a later one adds its readings once more.",
    notes: [
      "The acknowledgement is JetStream's word: a server acknowledges before it flushes to its disk, which it does every 2 minutes unless it has `sync_interval: always` (2.9 knows no such thing). A power cut of a single server may cost what it had acknowledged before; `replicas: 3` in a cluster makes that unlikely.",
      "Messages are published in the order of the journal, `inFlight` at a time. JetStream keeps that order, unless it refuses one message and takes a later one that was on its way already (a stream that is full for a moment, a cluster that elects a leader); the first then comes behind. `inFlight: 1` rules that out.",
      "In {stream} and {device} every `.`, `*`, `>`, `$`, `%`, space and control character is percent-encoded (`a.b` becomes `a%2Eb`), so that a device is always one token and two devices never share a subject; an empty device is a lone `%`. The message has the device as it is.",
      "Parked are readings whose message is larger than the server's `max_payload` or the stream's `max_msg_size`, whose subject is longer than 3,900 bytes, or whose data cannot be written as JSON.",
      "Without `create` the stream must be there (`nats stream add`), and its subjects must take everything that the template gives: the sink stands still at a subject which no stream takes. The user needs to publish to the subjects and to subscribe to `_INBOX.>`; with `create` also to publish to `$JS.API.STREAM.INFO.*` and `$JS.API.STREAM.CREATE.*`. In a cluster let it publish to `$JS.API.STREAM.NAMES` too: without that, a stream that elects its leader looks like one that is missing.",
      "Two nats sinks that write the same readings into the same JetStream stream are one to it: it keeps the first message of each reading. Give each a stream of its own. A stream with `no_ack` cannot be written to.",
    ],
    example: `nats({ servers: ["tls://nats-1.example:4222", "tls://nats-2.example:4222"], stream: "TELEMETRY", create: { replicas: 3 }, credentials: "secrets/sluice.creds" })`,
  },
  open: openNats,
});

/** For a message to be acknowledged, when the write has no shorter time. */
const ACKNOWLEDGES_WITHIN_MS = 10_000;
const ANSWERS_WITHIN_MS = 5_000;
/** JetStream's error code for a message that is larger than the stream's max_msg_size. */
const MESSAGE_TOO_LARGE = 10_054;

async function openNats(settings: NatsSettings, context: SinkContext): Promise<Sink> {
  const { jetstream, jetstreamManager } = await import("@nats-io/jetstream");
  const link = await connectNats(settings, context.name);
  try {
    const manager = await jetstreamManager(link.connection, { checkAPI: false, timeout: ANSWERS_WITHIN_MS });
    await link.during(AbortSignal.timeout(2 * ANSWERS_WITHIN_MS), () => makeStream(manager, settings));
    return createSink(link, { client: jetstream(link.connection), manager, settings });
  } catch (cause) {
    await link[Symbol.asyncDispose]();
    throw cause;
  }
}

async function makeStream(manager: JetStreamManager, { stream, create }: NatsSettings): Promise<void> {
  if (stream === undefined || create === undefined) return;
  try {
    await manager.streams.info(stream);
  } catch (cause) {
    if (toError(cause).name !== "StreamNotFoundError") throw cause;
    const { subjects, replicas, maxBytes, maxAgeMs, duplicateWindowMs } = create;
    await manager.streams.add({
      name: stream,
      subjects,
      num_replicas: replicas,
      ...(maxBytes !== undefined && { max_bytes: maxBytes }),
      ...(maxAgeMs !== undefined && { max_age: toNanoseconds(maxAgeMs) }),
      duplicate_window: toNanoseconds(duplicateWindowMs),
    });
  }
}

const toNanoseconds = (ms: number): number => ms * 1_000_000;

interface JetStream {
  readonly client: JetStreamClient;
  readonly manager: JetStreamManager;
  readonly settings: NatsSettings;
}

function createSink(link: NatsLink, { client, manager, settings }: JetStream): Sink {
  const toMessages = createMessages(settings, link.connection.info?.max_payload);
  return {
    async write(batch, signal) {
      signal.throwIfAborted();
      const made = toMessages(batch);
      if (made.kind === "except") return made;
      return await link.during(signal, async () => {
        const { failure, refused } = await publishAll(client, made.messages, settings);
        if (failure !== undefined) throw await explainFailure(failure, manager, link.place);
        return toWritten(refused);
      });
    },
    [Symbol.asyncDispose]: () => link[Symbol.asyncDispose](),
  };
}

interface Failure {
  readonly subject: string;
  readonly cause: unknown;
}

interface Published {
  /** The first that failed; what was behind it on its way is answered, and no other was published. */
  readonly failure: Failure | undefined;
  /** In the order of the journal. */
  readonly refused: readonly RefusedEntry[];
}

/** Sends them in order, so many unacknowledged at a time, and waits for all acknowledgements. */
async function publishAll(
  client: JetStreamClient,
  messages: readonly Message[],
  { stream, inFlight }: NatsSettings,
): Promise<Published> {
  const refused: RefusedEntry[] = [];
  const expect = stream === undefined ? {} : { streamName: stream };
  let failure: Failure | undefined;
  let next = 0;
  async function publishNext(): Promise<void> {
    for (let message = messages[next++]; message !== undefined && failure === undefined; message = messages[next++]) {
      const { offset, id, subject, payload } = message;
      try {
        await client.publish(subject, payload, { msgID: id, expect, timeout: ACKNOWLEDGES_WITHIN_MS });
      } catch (cause) {
        if ((cause as { readonly code?: unknown }).code === MESSAGE_TOO_LARGE) {
          refused.push({ offset, reason: "it is larger than the stream takes (max_msg_size)" });
        } else failure ??= { subject, cause };
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(inFlight, messages.length) }, publishNext));
  return { failure, refused: refused.toSorted((a, b) => a.offset - b.offset) };
}

/** That nobody takes a subject is not said with a reason: JetStream is off, the stream is missing, or it has no leader. */
async function explainFailure({ subject, cause }: Failure, manager: JetStreamManager, place: string): Promise<unknown> {
  if (toError(cause).name !== "JetStreamNotEnabled") return cause;
  const problem = await findProblem(manager, subject);
  if (problem !== undefined) return new SinkError("misconfigured", `${place}: ${problem}`, { cause });
  return new SinkError("transient", `${place}: the stream that takes ${subject} is not there now: has it no leader?`, {
    cause,
  });
}

async function findProblem(manager: JetStreamManager, subject: string): Promise<string | undefined> {
  const missing = `No JetStream stream takes the subject ${subject}`;
  try {
    await manager.streams.find(subject);
    return undefined;
  } catch (cause) {
    switch (toOrigin(toError(cause)).name) {
      case "JetStreamNotEnabled":
        return "JetStream is not enabled: enable it in the server's configuration, for the account of this user.";
      case "StreamNotFoundError":
        return `${missing}: add it to the subjects of one, or set stream and create.`;
      case "PermissionViolationError":
        return `${missing}, or the stream has no leader; the user may not ask which ($JS.API.STREAM.NAMES).`;
      default:
        return undefined;
    }
  }
}
