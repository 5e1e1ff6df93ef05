// What a Kafka client's failure says: for the operator, and for what the sink does next.

import { toError } from "../errors.ts";
import { SinkError } from "./sink.ts";
import { toTlsHint } from "./tls.ts";

/** Brokers whose failure it is, and whether a password or TLS was tried. */
interface Attempt {
  readonly brokers: readonly string[];
  readonly sasl?: object | undefined;
  readonly tls?: object | undefined;
}

/** An error of the library: those of the protocol have the name that the protocol gives them. */
interface Failure extends Error {
  readonly apiId?: unknown;
  readonly serverErrorMessage?: unknown;
  readonly code?: unknown;
}

/** The errors that nothing else has caused, of a tree of attempts, answers and causes. */
function leavesOf(cause: unknown): readonly Failure[] {
  const error = toError(cause);
  const inner: readonly unknown[] = error instanceof AggregateError ? error.errors : [];
  const below = error.cause === undefined ? inner : [...inner, error.cause];
  return below.length === 0 ? [error] : below.flatMap(leavesOf);
}

/** Of the broker's answer about records: https://kafka.apache.org/protocol#protocol_error_codes. */
const aboutContent: Readonly<Record<string, string>> = {
  MESSAGE_TOO_LARGE: "it is larger than the topic takes (max.message.bytes)",
  RECORD_LIST_TOO_LARGE: "it is larger than a segment of the topic",
  INVALID_TIMESTAMP: "its time is too far from the broker's clock for the topic (message.timestamp.*.max.ms)",
  INVALID_RECORD: "the broker does not accept it as a record of this topic",
};

/** Why the broker will never take these records; undefined: the failure is about something else. */
export function toRefusal(cause: unknown): string | undefined {
  const [reason] = leavesOf(cause).flatMap((leaf) => {
    const known = typeof leaf.apiId === "string" ? aboutContent[leaf.apiId] : undefined;
    return known === undefined ? [] : [[known, leaf.serverErrorMessage].filter(Boolean).join(": ")];
  });
  return reason;
}

/** What only a person can mend, by the protocol's names of errors. */
const hints: Readonly<Record<string, string>> = {
  UNKNOWN_TOPIC_OR_PARTITION: "Create the topic, or give another one as topic.",
  INVALID_TOPIC_EXCEPTION: "Give another topic.",
  TOPIC_AUTHORIZATION_FAILED:
    "The user must be allowed to Write and Describe the topic, and to Create it if it is new.",
  CLUSTER_AUTHORIZATION_FAILED: "Allow the user IdempotentWrite on the cluster, or set idempotent: false.",
  SASL_AUTHENTICATION_FAILED: "It refuses these credentials: check sasl.username and sasl.password.",
  UNSUPPORTED_SASL_MECHANISM: "Give another sasl.mechanism.",
  ILLEGAL_SASL_STATE:
    "The broker's listener is one without SASL: leave sasl out, or give the port of another listener.",
  UNSUPPORTED_COMPRESSION_TYPE: "Give another compression.",
  POLICY_VIOLATION: "A policy of the cluster does not allow it.",
  UNSUPPORTED_VERSION: "The broker is too old for this client: it must be Kafka 0.11 or later.",
};

/** The same, by the library's codes of errors that are its own. */
const ownHints: Readonly<Record<string, string>> = {
  PLT_KFK_UNSUPPORTED_API:
    "The broker is too old for this client, or lacks idempotent producers: try idempotent: false.",
  PLT_KFK_AUTHENTICATION: "It refuses this login: check sasl.mechanism, sasl.username and sasl.password.",
};

const sayings: readonly (readonly [RegExp, string])[] = [
  [/Unknown topic/, "Create the topic, or give another one as topic."],
  [/Broker requires TLS/, "Give tls: {} to speak TLS with it."],
];

const transientHints: readonly (readonly [RegExp, string])[] = [
  [
    /ENOTFOUND|EAI_AGAIN/,
    "If that is no name of yours, it is how the broker calls itself (advertised.listeners): it must be one that this machine can reach.",
  ],
  [/before secure TLS connection/, "If that lasts, the broker speaks no TLS on this port: leave tls out."],
  [/NOT_ENOUGH_REPLICAS/, "Brokers are away: fewer copies are in step than min.insync.replicas wants."],
];

/** A sentence with the brokers, the topic and the library's words, each once; a SinkError for what only a person can mend. */
export function explainKafka(cause: unknown, { brokers, sasl, tls }: Attempt, topic: string | undefined): Error {
  const leaves = leavesOf(cause);
  const said = [...new Set(leaves.map(toSaying))].join(", ");
  const where = `${brokers.join(",")}${topic === undefined ? "" : `: topic ${topic}`}`;
  const hint = leaves.map(toHint).find((one) => one !== undefined);
  if (hint !== undefined) return new SinkError("misconfigured", `${where}: ${said}. ${hint}`, { cause });
  const isFirst = topic === undefined && sasl === undefined && tls === undefined;
  const more =
    transientHints.find(([shape]) => shape.test(said))?.[1] ??
    (isFirst && /^Connection closed|ECONNRESET/.test(said) ? WANTS_MORE : undefined);
  return new Error([`${where}: ${said}.`, more].filter(Boolean).join(" "), { cause });
}

/** A broker closes connections that break its rules without a word. */
const WANTS_MORE = "If that lasts, the broker may want TLS or SASL: give tls or sasl.";

function toSaying({ message, apiId, serverErrorMessage }: Failure): string {
  const said = message.replace(/\.$/, "");
  const more = typeof serverErrorMessage === "string" ? ` (${serverErrorMessage})` : "";
  return typeof apiId === "string" ? `${apiId}: ${said}${more}` : said;
}

function toHint(leaf: Failure): string | undefined {
  const { apiId, code, message } = leaf;
  if (typeof apiId === "string") return hints[apiId];
  const own = typeof code === "string" ? ownHints[code] : undefined;
  return own ?? sayings.find(([shape]) => shape.test(message))?.[1] ?? toTlsHint(leaf);
}
