// Messages that a gateway has to reject, or at least to survive.

import type { Message } from "../payloads/payload.ts";
import type { Random } from "../random.ts";
import type { Telemetry } from "../telemetry.ts";
import type { Outcome, PayloadFault } from "./fault.ts";

/** One whose payload alone is another one. */
const spoilt = (
  about: string,
  outcome: Outcome,
  spoil: (reading: Telemetry, random: Random) => string | Buffer,
): PayloadFault => ({
  kind: "payload",
  about,
  outcome,
  spoil: ({ topic }, reading, random) => ({ topic, payload: spoil(reading, random) }),
});

export const malformedJson = spoilt("JSON that is cut off", "undecodable", (reading) =>
  JSON.stringify(reading).slice(0, -20),
);

export const wrongType = spoilt("a text where a number belongs", "invalid", ({ metrics, ...rest }) => {
  const [name = "value", value = 0] = Object.entries(metrics)[0] ?? [];
  return JSON.stringify({ ...rest, metrics: { ...metrics, [name]: String(value) } });
});

export const missingSeq = spoilt("a field is missing: seq", "invalid", ({ ts, metrics }) =>
  JSON.stringify({ ts, metrics }),
);

export const empty = spoilt("no payload at all", "undecodable", () => "");

export const notAnObject = spoilt("a list instead of an object", "invalid", ({ metrics }) =>
  JSON.stringify(Object.values(metrics)),
);

/** A counter that ran below 0 in 64 bits without a sign: more than JSON can say exactly. */
export const outOfRange = spoilt("a sequence number of 2^64", "invalid", (reading) =>
  JSON.stringify({ ...reading, seq: 2 ** 64 }),
);

/** A device without a battery for its clock that counts from a wrong epoch. */
export const impossibleTime = spoilt("a time before 1970", "time", (reading) => JSON.stringify({ ...reading, ts: -1 }));

const inMetrics = ({ ts, seq }: Telemetry, text: string): string => `{"ts":${ts},"seq":${seq},"metrics":${text}}`;

/** What has broken parsers before; each is one that RFC 8259 or I-JSON (RFC 7493) forbids, or that is nested too deep. */
const hostilities: readonly ((reading: Telemetry, random: Random) => string | Buffer)[] = [
  // Bytes that are no UTF-8, wherever they are cut.
  (_reading, random) => Buffer.from(Array.from({ length: 1 + Math.floor(64 * random()) }, () => 128 + 64 * random())),
  (reading) => inMetrics(reading, `${'{"a":'.repeat(100)}1${"}".repeat(100)}`),
  (reading) => inMetrics(reading, '{"__proto__":{"polluted":1}}'),
  (reading) => inMetrics(reading, String.raw`{"\ud800":1}`),
  (reading) => inMetrics(reading, '{"a":1,"a":2}'),
  (reading) => inMetrics(reading, '{"a":1e999}'),
  (reading) => `\uFEFF${JSON.stringify(reading)}`,
  (reading) => `${JSON.stringify(reading)}\0`,
];

export const hostileBytes = spoilt(
  "no UTF-8, nested 100 deep, __proto__, a name twice, 1e999, NUL …",
  "undecodable",
  (reading, random) => hostilities[Math.floor(random() * hostilities.length)]?.(reading, random) ?? "",
);

/** More than Sluice can be told to take; one for all, because a fleet sends many. */
const ballast = "x".repeat(512 * 1024);

export const oversize: PayloadFault = {
  ...spoilt("512 KiB of payload", "too-large", (reading) => JSON.stringify({ ...reading, ballast })),
  anyShape: true,
};

export const wrongTopic: PayloadFault = {
  kind: "payload",
  about: "a misspelt topic, to which nobody listens",
  outcome: "ignored",
  anyShape: true,
  spoil: ({ topic, ...rest }): Message => ({ ...rest, topic: misspelt(topic) }),
};

/** Without its last letter, or with one more. */
const misspelt = (topic: string): string => (/[^/]{2}$/u.test(topic) ? topic.slice(0, -1) : `${topic}x`);
