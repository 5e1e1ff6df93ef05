// The producer of the kafka sink: its connections to the brokers, how it gives up waiting, and how all of it is closed.

import type { Connection, Producer, ProducerOptions, SASLOptions } from "@platformatic/kafka";
import { isIP } from "node:net";
import { toError } from "../errors.ts";
import { explainKafka } from "./kafka-errors.ts";
import { readTls } from "./tls.ts";
import type { TlsSettings } from "./tls.ts";

export interface KafkaConnectionSettings {
  /** host:port of each; an IPv6 address in brackets. */
  readonly brokers: readonly string[];
  readonly sasl?:
    | {
        readonly mechanism: "plain" | "scram-sha-256" | "scram-sha-512";
        readonly username: string;
        readonly password: string;
      }
    | undefined;
  readonly tls?: TlsSettings | undefined;
  readonly idempotent: boolean;
}

export interface KafkaConnection extends AsyncDisposable {
  /**
   * Waits for the work; aborting the signal ends all connections and rejects at once. `place` is the topic that the work
   * is about, for the sentence of the error.
   */
  during<T>(signal: AbortSignal, place: string | undefined, work: (producer: Producer) => Promise<T>): Promise<T>;
}

/** For opening the sink: connecting, logging in, finding its topics. */
export const OPENS_WITHIN_MS = 10_000;
const CONNECTS_WITHIN_MS = 5_000;
const ANSWERS_WITHIN_MS = 30_000;
/** Pauses between the tries of one call; they are few, because the sink is opened again for whatever lasts longer. */
const RETRY_DELAY_MS = 200;
const RETRIES = 3;
/** Longer than the sink keeps what it has asked for itself: the library must not ask for many topics at once; see kafka.ts. */
const METADATA_MAX_AGE_MS = 24 * 60 * 60 * 1_000;

const mechanisms = {
  plain: "PLAIN",
  "scram-sha-256": "SCRAM-SHA-256",
  "scram-sha-512": "SCRAM-SHA-512",
} satisfies Readonly<Record<string, SASLOptions["mechanism"]>>;

/** Connects to nothing yet. Rejects when a file of `tls` cannot be used. */
export async function createKafkaConnection(
  settings: KafkaConnectionSettings,
  clientId: string,
): Promise<KafkaConnection> {
  const library = await import("@platformatic/kafka");
  const producer = new library.Producer({
    ...(await toProducerOptions(settings, clientId)),
    // The library's default one agrees with no other client about the partition of a key: it does not take the sign away.
    partitioner: library.compatibilityPartitioner,
  });
  const connections = new Set<Connection>();
  /** Why a connection broke; what waits for an answer is told only that it did. */
  let broken: Error | undefined;
  producer.connections.on("connecting", ({ connection }) => {
    connections.add(connection);
    // What breaks a connection rejects the call that waits, or the next one.
    connection.on("error", (error) => {
      broken = error;
    });
  });

  /** The library would wait until a frozen broker has read what was written to it, and forgets connections that failed. */
  async function close(): Promise<void> {
    const closing = [...connections].map((connection) => {
      const closed = connection.close();
      connection.socket?.destroy();
      return closed;
    });
    await Promise.all([...closing, producer.close()]);
  }

  return {
    async during(signal, place, work) {
      signal.throwIfAborted();
      broken = undefined;
      const ended = Promise.withResolvers<never>();
      const abandon = (): void => {
        ended.reject(signal.reason);
        void close();
      };
      signal.addEventListener("abort", abandon, { once: true });
      try {
        return await Promise.race([work(producer), ended.promise]);
      } catch (cause) {
        if (signal.aborted) throw toEnd(settings, signal);
        throw explainKafka(broken === undefined ? cause : new AggregateError([cause, broken]), settings, place);
      } finally {
        signal.removeEventListener("abort", abandon);
      }
    },
    [Symbol.asyncDispose]: close,
  };
}

function toEnd({ brokers }: KafkaConnectionSettings, { reason }: AbortSignal): Error {
  const error = toError(reason);
  if (error.name !== "TimeoutError") return error;
  return new Error(`${brokers.join(",")}: it does not answer within ${OPENS_WITHIN_MS / 1_000} s.`, { cause: reason });
}

type Options = ProducerOptions<Buffer, Buffer, Buffer, Buffer>;

async function toProducerOptions(settings: KafkaConnectionSettings, clientId: string): Promise<Options> {
  const { brokers, sasl, tls, idempotent } = settings;
  return {
    clientId,
    bootstrapBrokers: [...brokers],
    connectTimeout: CONNECTS_WITHIN_MS,
    requestTimeout: ANSWERS_WITHIN_MS,
    metadataMaxAge: METADATA_MAX_AGE_MS,
    retryDelay: RETRY_DELAY_MS,
    // Only a broker that knows a repetition may be asked again: each would otherwise be stored twice.
    ...(idempotent ? { idempotent, retries: RETRIES, ...NO_PRODUCER } : { retries: 0, repeatOnStaleMetadata: false }),
    ...(sasl !== undefined && { sasl: { ...sasl, mechanism: mechanisms[sasl.mechanism] } }),
    ...(tls !== undefined && { tls: { ...(await readTls(tls)) }, tlsServerName: !brokers.some(isAddress) }),
  };
}

/** "I have no id yet", KIP-360; the library would ask to go on with the id 0. */
const NO_PRODUCER = { producerId: -1n, producerEpoch: -1 };

/** TLS knows server names only, no addresses: RFC 6066, section 3. */
const isAddress = (broker: string): boolean =>
  isIP(broker.slice(0, broker.lastIndexOf(":")).replaceAll(/[[\]]/g, "")) > 0;
