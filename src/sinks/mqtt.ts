// Readings to another MQTT broker: a message for each, at least once with QoS 1.
//
//   topic     that of the reading, or what the template gives
//   payload   the reading's data as JSON, or the document of document.ts
//   MQTT 5    content type application/json; user properties: those of the reading's message, then gateway and offset

import type { MqttClient } from "mqtt";
import { z } from "zod";
import { toError, unreachable } from "../errors.ts";
import type { Batch, Entry } from "../reading.ts";
import { toDocuments, toJson } from "./document.ts";
import { connectMqtt } from "./mqtt-connection.ts";
import type { MqttConnection } from "./mqtt-connection.ts";
import { defineSink } from "./sink.ts";
import type { RefusedEntry, Sink, SinkContext, Written } from "./sink.ts";
import { createTemplate, templateOf } from "./template.ts";
import { readTls, tlsSettings } from "./tls.ts";

const mqttSettings = z.strictObject({
  url: z
    .url({ protocol: /^(?:mqtt|ws)s?$/, error: "must be mqtt://, mqtts://, ws:// or wss:// with a host" })
    .refine((text) => URL.parse(text)?.username === "" && URL.parse(text)?.password === "", {
      message: "must be without user and password: give them as username and password",
    })
    .describe("The broker: mqtt://host:port, mqtts:// for TLS, ws:// and wss:// for WebSocket."),
  username: z.string().min(1).optional().describe("The user name for the broker; none when left out."),
  password: z.string().min(1).optional().describe("The password of the user; none when left out."),
  tls: tlsSettings.optional().describe("For mqtts:// and wss://: certificates."),
  clientId: z
    .string()
    .min(1)
    .max(1024)
    .optional()
    .describe(
      "The MQTT client identifier; by default sluice-, the sink's name and the first characters of the gateway id.",
    ),
  topic: templateOf(["{topic}", "{stream}", "{device}"])
    .refine((text) => !/[+#\0]/.test(text), { message: "must be without + and #" })
    .default("{topic}")
    .describe(
      "Where a reading is published; may have {topic}, which is the topic that it came with, {stream} and {device}.",
    ),
  payload: z
    .enum(["data", "document"])
    .default("data")
    .describe(
      "data: what the stream's schema returned, as JSON. document: with gateway, offset, stream, device, topic and times.",
    ),
  qos: z
    .literal([0, 1, 2])
    .default(1)
    .describe("With 0 the broker acknowledges nothing, and what was on its way is lost with the connection."),
  retain: z.boolean().default(false).describe("true: the broker keeps the last message of each topic."),
  protocolVersion: z.literal([4, 5]).default(5).describe("5: MQTT 5. 4: MQTT 3.1.1, for brokers that know no other."),
});

type MqttSettings = z.output<typeof mqttSettings>;

/** Readings to another MQTT broker. */
export const mqtt = defineSink({
  type: "mqtt",
  settings: mqttSettings,
  batch: { records: 1_000, bytes: 1024 * 1024 },
  reference: {
    writes:
      "Publishes each reading to another MQTT broker, by default on the topic that it came with and with its data as JSON. With MQTT 5 the content type is `application/json`, and the user properties are those that the reading's own message had and then `gateway` and `offset`.",
    once: "At least once with QoS 1 and 2, at most once with 0. A batch counts as delivered when the broker has acknowledged all of its messages, and comes again as a whole when the connection broke before that. `gateway` and `offset`, in the user properties or in the document, tell a repetition. With QoS 0, which has no acknowledgement, what was on its way when the connection broke is lost. The acknowledgement is the other broker's word: mosquitto acknowledges before it writes anything to its disk.",
    notes: [
      "Messages are in the order of the journal, and many are on their way at a time: as many as the broker of MQTT 5 says that it takes (at most 1,000), and 100 with MQTT 3.1.1, or 20 with its QoS 2. With mosquitto, `set_tcp_nodelay true` makes each batch 40 ms faster.",
      "Parked are readings that this gateway has published before, which says that the bridge leads in a circle (the user property `gateway` tells it, also through other gateways; MQTT 3.1.1 has no such thing, so let no topic that a bridge writes lead back into a stream), topics longer than 65,535 bytes, packets larger than the broker of MQTT 5 says that it takes, and what it refuses with the reason codes 0x90 (topic name invalid) and 0x99 (payload format invalid). Mosquitto's `message_size_limit` is answered against the protocol, so that the messages which it forbids are found by bisecting; its `max_packet_size` is announced.",
      "MQTT 3.1.1 cannot say that it refuses a message: mosquitto acknowledges and drops what its access control list or its `message_size_limit` does not allow, and closes the connection for what is larger than `max_packet_size`, so that the sink stands still there. Give `protocolVersion: 4` only to a broker that knows no other.",
      "In a device id that stands in the topic `/`, `+`, `#`, `$` and `%` are percent-encoded, so that it stays one level; control characters and non-characters are percent-encoded everywhere, because a broker may close the connection for them.",
      "Each connection needs a client id of its own. The default one has the name of the sink in it, so that a replay has another; when you set `clientId`, the broker ends one connection for the other while a replay runs.",
    ],
    example: `mqtt({ url: "mqtts://broker.example:8883", topic: "site-7/{topic}", username: "site-7", password: env.BROKER_PASSWORD })`,
  },
  open: openMqtt,
});

/**
 * Messages that are not acknowledged yet. A broker of MQTT 5 says how many it takes; of 3.1.1, some end the connection when
 * there are more than 100 (AWS IoT Core), or with QoS 2 more than 20 (mosquitto).
 */
const toInFlight = ({ protocolVersion, qos }: MqttSettings, receiveMaximum: number): number =>
  protocolVersion === 5 ? Math.min(1_000, receiveMaximum) : qos === 2 ? 20 : 100;
const TOPIC_BYTES = 65_535;

async function openMqtt(settings: MqttSettings, context: SinkContext): Promise<Sink> {
  const tls = /^(?:mqtts|wss):/.test(settings.url) ? await readTls(settings.tls ?? tlsSettings.parse({})) : undefined;
  const connect: Connect = (signal) => connectMqtt(settings, { tls, context, signal });
  return createSink(await connect(), connect, settings);
}

type Connect = (signal?: AbortSignal) => Promise<MqttConnection>;

function createSink(first: MqttConnection, connect: Connect, settings: MqttSettings): Sink {
  let connection = first;
  const inFlight = toInFlight(settings, first.limits.receiveMaximum);
  const toMessage = createMessages(settings, first.limits.packetBytes);
  return {
    async write(batch, signal) {
      signal.throwIfAborted();
      const plan = toPlan(batch, toMessage);
      if (plan.kind === "except") return plan;
      const { client } = connection;
      try {
        const refused = await connection.during(signal, () => publishAll(client, plan.messages, inFlight));
        return toWritten(refused);
      } catch (cause) {
        if (!isStrangeAnswer(cause)) throw cause;
        // It has broken the connection, and smaller batches are to find out which message it was.
        connection = await connect(signal);
        return { kind: "refused", reason: "the broker answers with a reason code that MQTT does not have: too large?" };
      }
    },
    [Symbol.asyncDispose]: () => connection[Symbol.asyncDispose](),
  };
}

/** Mosquitto has 0x95, packet too large, in a PUBACK for what its message_size_limit forbids; MQTT.js cannot read that. */
const isStrangeAnswer = (cause: unknown): boolean => /Invalid pub(?:ack|rec) reason code/.test(toError(cause).message);

interface Message {
  readonly kind: "message";
  readonly entry: Entry;
  readonly topic: string;
  readonly payload: Buffer;
  readonly options: NonNullable<Parameters<MqttClient["publishAsync"]>[2]>;
}

type ToMessage = (entry: Entry, gateway: string) => Message | (RefusedEntry & { readonly kind: "refused" });

/** All messages of a batch, or which of its entries can never be one: then none of them is published. */
function toPlan(
  { gateway, entries }: Batch,
  toMessage: ToMessage,
): { readonly kind: "messages"; readonly messages: readonly Message[] } | (Written & { readonly kind: "except" }) {
  const messages: Message[] = [];
  const refused: RefusedEntry[] = [];
  for (const entry of entries) {
    const message = toMessage(entry, gateway);
    if (message.kind === "message") messages.push(message);
    else refused.push({ offset: message.offset, reason: message.reason });
  }
  const written = toWritten(refused);
  return written.kind === "except" ? written : { kind: "messages", messages };
}

function toWritten(refused: readonly RefusedEntry[]): Written & { readonly kind: "all" | "except" } {
  const [first, ...others] = refused;
  return first === undefined ? { kind: "all" } : { kind: "except", refused: [first, ...others] };
}

function createMessages(
  { topic: template, payload: form, qos, retain, protocolVersion }: MqttSettings,
  most: number,
): ToMessage {
  const toTopic = createTemplate(template, (value, place) => (place === "{topic}" ? value : toLevel(value)));
  return (entry, gateway) => {
    const refuse = (reason: string): ReturnType<ToMessage> => ({ kind: "refused", offset: entry.offset, reason });
    const text = toPayload(entry, gateway, form);
    if (text instanceof Error) return refuse(`its data cannot be written as JSON: ${text.message}`);
    const topic = toTopic(entry.reading).replaceAll(notForTopics, encodeURIComponent);
    if (Buffer.byteLength(topic) > TOPIC_BYTES) return refuse(`its topic would be longer than ${TOPIC_BYTES} bytes`);
    const payload = Buffer.from(text);
    if (protocolVersion === 4) return { kind: "message", entry, topic, payload, options: { qos, retain } };
    const user = [...(entry.reading.properties?.user ?? [])];
    if (user.some(([name, value]) => name === "gateway" && value === gateway)) {
      return refuse("it has come from this gateway already: the bridge leads in a circle");
    }
    user.push(["gateway", gateway], ["offset", `${entry.offset}`]);
    const bytes = countBytes(qos, topic, payload, user);
    if (bytes > most) return refuse(`it would be a packet of ${bytes} bytes, and the broker takes ${most} at most`);
    const properties = { contentType: CONTENT_TYPE, payloadFormatIndicator: true, userProperties: toRecord(user) };
    return { kind: "message", entry, topic, payload, options: { qos, retain, properties } };
  };
}

const CONTENT_TYPE = "application/json";

function toPayload(entry: Entry, gateway: string, form: MqttSettings["payload"]): string | Error {
  switch (form) {
    case "data":
      return toJson(entry.reading.data);
    case "document": {
      const made = toDocuments({ gateway, entries: [entry] });
      return made.kind === "documents" ? made.documents.join("") : new Error(made.refused[0].reason);
    }
    default:
      return unreachable(form);
  }
}

/**
 * A device id as a level of a topic: what would make several levels or a filter of it, or a topic of the broker's own, is
 * percent-encoded, and so two devices never share a topic.
 */
const toLevel = (value: string): string => value.replaceAll(/[%/+#$]/g, encodeURIComponent);

/** [MQTT-1.5.4-2] and section 1.5.4: a broker may end the connection for control characters and non-characters. */
const notForTopics = /[\p{Cc}\p{Noncharacter_Code_Point}]/gu;

/** As MQTT writes text and lengths, section 1.5. */
const textBytes = (value: string): number => 2 + Buffer.byteLength(value);
const lengthBytes = (bytes: number): number => (bytes < 0x80 ? 1 : bytes < 0x4000 ? 2 : bytes < 0x20_0000 ? 3 : 4);

/** Of a PUBLISH of MQTT 5, section 3.3. */
function countBytes(qos: number, topic: string, payload: Buffer, user: readonly (readonly [string, string])[]): number {
  let properties = 2 + 1 + textBytes(CONTENT_TYPE);
  for (const [name, value] of user) properties += 1 + textBytes(name) + textBytes(value);
  const rest = textBytes(topic) + (qos === 0 ? 0 : 2) + lengthBytes(properties) + properties + payload.length;
  return 1 + lengthBytes(rest) + rest;
}

/** A name that comes more than once has a list of values. */
const toRecord = (user: readonly (readonly [string, string])[]): Record<string, string[]> =>
  Object.fromEntries(
    [...Map.groupBy(user, ([name]) => name)].map(([name, values]) => [name, values.map(([, value]) => value)]),
  );

/** Reason codes of PUBACK and PUBREC that are about this message, section 3.4.2.1. */
const aboutContent: Readonly<Record<number, string>> = {
  0x90: "the broker refuses its topic",
  0x99: "the broker refuses its payload",
};

/** Sends them in order, so many unacknowledged at a time, and waits for all acknowledgements. */
async function publishAll(
  client: MqttClient,
  messages: readonly Message[],
  inFlight: number,
): Promise<readonly RefusedEntry[]> {
  const refused: RefusedEntry[] = [];
  let next = 0;
  async function publishNext(): Promise<void> {
    for (let message = messages[next++]; message !== undefined; message = messages[next++]) {
      const { topic, payload, options, entry } = message;
      try {
        await client.publishAsync(topic, payload, options);
      } catch (cause) {
        const code = (cause as { readonly code?: unknown }).code;
        const reason = typeof code === "number" ? aboutContent[code] : undefined;
        if (reason === undefined) throw cause;
        refused.push({ offset: entry.offset, reason });
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(inFlight, messages.length) }, publishNext));
  return refused.toSorted((a, b) => a.offset - b.offset);
}
