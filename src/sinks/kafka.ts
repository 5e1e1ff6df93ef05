// Readings into Kafka: a record for each, acknowledged by all replicas in step, at least once.
//
//   topic      telemetry.{stream}, or what the template gives
//   key        the device id, so that a device's readings are in one partition, in order
//   value      the document of document.ts
//   headers    gateway, offset
//   timestamp  the device's time, or that of receipt, as the settings say

import type { MessageToProduce, Producer } from "@platformatic/kafka";
import { z } from "zod";
import type { Batch, Entry, Offset } from "../reading.ts";
import { toDocuments } from "./document.ts";
import { createKafkaConnection, OPENS_WITHIN_MS } from "./kafka-connection.ts";
import type { KafkaConnection } from "./kafka-connection.ts";
import { toRefusal } from "./kafka-errors.ts";
import { defineSink } from "./sink.ts";
import type { Sink, SinkContext, Written } from "./sink.ts";
import { templateOf } from "./template.ts";
import { tlsSettings } from "./tls.ts";

const LONGEST_STREAM = "s".repeat(63);

const kafkaSettings = z.strictObject({
  brokers: z
    .array(
      z
        .string()
        .regex(
          /^(?:\[[0-9a-fA-F:]+\]|[^\s[\]:/@,]+):\d{1,5}$/,
          "must be host:port, without a protocol, user or password",
        ),
    )
    .min(1)
    .default(["127.0.0.1:9092"])
    .describe("Brokers that are asked for all others, each as host:port; one that answers is enough."),
  sasl: z
    .strictObject({
      mechanism: z
        .enum(["plain", "scram-sha-256", "scram-sha-512"])
        .describe("How the password is shown; plain sends it as it is, so give tls too."),
      username: z.string().min(1).describe("The user."),
      password: z.string().min(1).describe("The password of the user."),
    })
    .optional()
    .describe("Who this client is; nobody in particular when left out."),
  tls: tlsSettings.optional().describe("TLS is spoken when this is given; {} for the authorities that Node.js knows."),
  topic: templateOf(["{stream}"])
    .refine((text) => /^(?!\.{1,2}$)[\w.{}-]+$/.test(text), {
      message: "may have letters, digits, . _ and - beside {stream}: Kafka takes no other topics",
    })
    .refine((text) => text.replaceAll("{stream}", LONGEST_STREAM).length <= 249, {
      message: "may be 249 characters long with the name of a stream, which may have 63",
    })
    .default("telemetry.{stream}")
    .describe("The topic that a reading goes to; may have {stream}."),
  createTopics: z
    .boolean()
    .default(true)
    .describe(
      "Topics that are missing are asked for; whether the cluster makes them, it says itself (auto.create.topics.enable).",
    ),
  compression: z
    .enum(["none", "gzip", "snappy", "lz4", "zstd"])
    .default("none")
    .describe("How records are compressed, as they stay on the brokers; zstd needs Kafka 2.1."),
  timestamp: z
    .enum(["time", "receivedAt"])
    .default("time")
    .describe("The timestamp of a record: when the device measured, or when the gateway received."),
  idempotent: z
    .boolean()
    .default(true)
    .describe(
      "true: what has to be sent again within a write, because a broker failed or another took over, is stored once.",
    ),
});

type KafkaSettings = z.output<typeof kafkaSettings>;

/** Readings into Kafka topics. */
export const kafka = defineSink({
  type: "kafka",
  settings: kafkaSettings,
  reference: {
    writes:
      'Produces a record for each reading, by default to the topic `telemetry.` and the name of its stream. The key is the device id, so that the readings of a device are in one partition, in order, and in the same one that Kafka\'s Java client chooses; the value is the document `{"gateway","offset","stream","device","topic","time","receivedAt","data"}` as JSON, the headers are `gateway` and `offset`.',
    once: "At least once. A batch counts as delivered when all replicas in step have acknowledged its records (`acks=all`), and comes again as a whole when one was not acknowledged; `gateway` and `offset`, in the headers and in the document, tell a repetition. With `idempotent` what the client itself sends again within a write is stored once; after a failed write, a crash or a parked reading the batch may be there twice, because it comes from a new producer. Transactions are not used.",
    notes: [
      "Kafka 0.11 or later, or what speaks its protocol. The user needs the rights Describe and Write on the topics, Create for topics that are to be made, and before Kafka 2.8 IdempotentWrite on the cluster unless `idempotent` is false. When a topic is missing and the cluster does not make it, the sink says so when it is opened, and stands still.",
      "How safe an acknowledged record is the topic says: with a replication factor of 3 and `min.insync.replicas` of 2 one broker may be lost. A topic with one replica, which is what many clusters make of themselves, loses what its broker loses.",
      "Order is kept per device. A repetition comes in order too, but it may come late: what was on its way to a broker that hung is stored when the broker goes on, maybe behind what was sent to it since. Consumers that must not step back compare `offset` with the last one of the same gateway and device.",
      "Parked are records that the topic's `max.message.bytes` forbids, those whose timestamp it forbids (`message.timestamp.before.max.ms`, `message.timestamp.after.max.ms`; Kafka 4 refuses what lies more than an hour ahead), those that the broker calls invalid, and what cannot be written as JSON. Requests are made of at most 1 MB of records, which Kafka's default of `max.message.bytes` takes; when the topic takes less, give less as `batch.bytes`, because a batch that is refused is sent again in halves.",
      'Retention goes by the timestamp: a reading that a device has kept for longer than the topic\'s `retention.ms` is deleted soon after it was written. `timestamp: "receivedAt"` avoids that, and wrong clocks; `time` is in the document all the same.',
      "A topic with `cleanup.policy=compact` keeps the last reading of each device. There is no topic for each device: it is the key.",
      "Tested with librdkafka's mock of a cluster, as Debian's kcat has it, which has one broker, stores in memory, and knows neither replicas nor repetitions, rights, limits, TLS or SASL: TLS, SASL PLAIN, limits, errors and broken connections come from a forwarder in front of it. Not tested are SCRAM, which is the client library's, that a repetition is stored once, which is the broker's, and a change of the leader among brokers.",
    ],
    example: `kafka({ brokers: ["kafka-1.example:9093", "kafka-2.example:9093"], tls: {}, sasl: { mechanism: "scram-sha-512", username: "sluice", password: env.KAFKA_PASSWORD } })`,
  },
  open: openKafka,
});

/**
 * Records of one request at most, before compression, so that what a partition gets of it is not larger than brokers take
 * by default (message.max.bytes, 1,048,588). A record that is larger alone is sent all the same: the topic may take it.
 */
const REQUEST_BYTES = 1_000_000;
/** Of a record, beside key, value and what the headers say: lengths, deltas, the names of the headers; at most. */
const RECORD_OVERHEAD_BYTES = 64;
/** How long what is known of a topic's partitions counts; as in Kafka's own client. */
const TOPIC_KNOWN_FOR_MS = 5 * 60 * 1_000;
/** With the pauses between them a few seconds: a topic that has just been made is unknown to brokers for a moment. */
const RETRIES_FOR_NEW_TOPIC = 15;

async function openKafka(settings: KafkaSettings, context: SinkContext): Promise<Sink> {
  const connection = await createKafkaConnection(settings, `sluice-${context.name}`);
  const signal = AbortSignal.timeout(OPENS_WITHIN_MS);
  try {
    await connection.during(signal, undefined, async (producer) => {
      await producer.metadata({ topics: [], retries: 0 });
      if (settings.idempotent) await producer.initIdempotentProducer({});
    });
    const topics = context.streams.map(({ name }) => toTopic(settings, name));
    await Promise.all([...new Set(topics)].map((topic) => findTopic(connection, settings, topic, signal)));
  } catch (cause) {
    await connection[Symbol.asyncDispose]();
    throw cause;
  }
  return createSink(connection, settings);
}

const toTopic = ({ topic }: KafkaSettings, stream: string): string => topic.replaceAll("{stream}", stream);

function createSink(connection: KafkaConnection, settings: KafkaSettings): Sink {
  const toRecords = createRecords(settings);
  return {
    async write(batch, signal) {
      signal.throwIfAborted();
      const made = toDocuments(batch);
      if (made.kind === "except") return made;
      for (const [topic, records] of toRecords(batch, made.documents)) {
        await findTopic(connection, settings, topic, signal);
        for (const request of toRequests(records)) {
          const reason = await connection.during(signal, topic, (producer) => send(producer, request, settings));
          if (reason !== undefined) return toRefused(request, reason);
        }
      }
      return { kind: "all" };
    },
    [Symbol.asyncDispose]: () => connection[Symbol.asyncDispose](),
  };
}

/**
 * Learns where the topic's partitions are, unless that is known. Each topic is asked for alone: a failure then is that
 * topic's, and the library keeps something for ever for each set of topics that it asks for.
 */
function findTopic(
  connection: KafkaConnection,
  { createTopics: autocreateTopics }: KafkaSettings,
  topic: string,
  signal: AbortSignal,
): Promise<unknown> {
  const retries = autocreateTopics ? RETRIES_FOR_NEW_TOPIC : 0;
  return connection.during(signal, topic, (producer) =>
    producer.metadata({ topics: [topic], autocreateTopics, retries, metadataMaxAge: TOPIC_KNOWN_FOR_MS }),
  );
}

interface KafkaRecord {
  readonly offset: Offset;
  readonly bytes: number;
  readonly message: MessageToProduce;
}

const headerNames = { gateway: Buffer.from("gateway"), offset: Buffer.from("offset") };

/** The records of a batch by topic; those of a topic in the batch's order. */
function createRecords(
  settings: KafkaSettings,
): (batch: Batch, documents: readonly string[]) => Map<string, readonly KafkaRecord[]> {
  const topics = new Map<string, string>();
  /** Filling the template for each record is a thirtieth of all that is done for it. */
  function topicOf(stream: string): string {
    const topic = topics.get(stream) ?? toTopic(settings, stream);
    topics.set(stream, topic);
    return topic;
  }
  return (batch, documents) => {
    const gateway = Buffer.from(batch.gateway);
    const toRecord = ({ offset, reading }: Entry, index: number): KafkaRecord => {
      const [topic, key, value] = [
        topicOf(reading.stream),
        Buffer.from(reading.deviceId),
        Buffer.from(documents[index] ?? ""),
      ];
      const number = Buffer.from(`${offset}`);
      const bytes = RECORD_OVERHEAD_BYTES + key.length + value.length + gateway.length + number.length;
      const headers = new Map([
        [headerNames.gateway, gateway],
        [headerNames.offset, number],
      ]);
      return { offset, bytes, message: { topic, key, value, headers, timestamp: BigInt(reading[settings.timestamp]) } };
    };
    return Map.groupBy(batch.entries.map(toRecord), ({ message }) => message.topic);
  };
}

/** Puts them into requests in order. */
function* toRequests(records: readonly KafkaRecord[]): Generator<readonly KafkaRecord[]> {
  let [start, bytes] = [0, 0];
  for (const [index, record] of records.entries()) {
    if (index > start && bytes + record.bytes > REQUEST_BYTES) {
      yield records.slice(start, index);
      [start, bytes] = [index, 0];
    }
    bytes += record.bytes;
  }
  yield records.slice(start);
}

/** Resolves when all replicas in step have them, or with why the broker never takes one of them. */
async function send(
  producer: Producer,
  records: readonly KafkaRecord[],
  { compression }: KafkaSettings,
): Promise<string | undefined> {
  try {
    // The library counts these of a call only, not of its producer.
    await producer.send({ messages: records.map(({ message }) => message), acks: ALL_IN_STEP, compression });
    return undefined;
  } catch (cause) {
    const reason = toRefusal(cause);
    if (reason === undefined) throw cause;
    return reason;
  }
}

const ALL_IN_STEP = -1;

function toRefused([first, ...others]: readonly KafkaRecord[], reason: string): Written {
  if (first === undefined || others.length > 0) return { kind: "refused", reason };
  return { kind: "except", refused: [{ offset: first.offset, reason }] };
}
