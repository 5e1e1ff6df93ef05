// The fuzzer: thousands of connections that send damaged and whole packets to a gateway process, and what must hold.

import { errorsOf, readMetric } from "../e2e/observe.ts";
import { type GatewayProcess, startGateway } from "../gateway-process.ts";
import { attack, type Outcome } from "./attack.ts";
import { type Control, openControl } from "./control.ts";
import { measure, type Memory, withProbe } from "./memory.ts";

export interface FuzzOptions {
  readonly dataDir: string;
  readonly seed: number;
  readonly seconds: number;
  /** The first stream of the seed; for a repetition. */
  readonly from?: number;
  /** Streams at most; for a repetition. */
  readonly count?: number;
  readonly parallel?: number;
}

export interface FuzzReport {
  readonly seed: number;
  readonly streams: number;
  readonly intact: number;
  readonly bytes: number;
  /** Packets of intact streams that were taken, by type. */
  readonly taken: ReadonlyMap<string, number>;
  /** Intact streams that the gateway ended, by reason code. */
  readonly reasons: ReadonlyMap<number, number>;
  readonly control: { readonly acknowledged: number; readonly heard: number; readonly worstMs: number };
  /** After each round. */
  readonly memory: readonly Memory[];
  readonly counted: Readonly<Record<"received" | "accepted" | "rejected" | "refused", number>>;
  /** What does not hold, one sentence each. */
  readonly broken: readonly string[];
}

/** Small limits: what may grow has grown to them before memory is looked at the first time. */
const config = `
import { defineGateway, defineStream, json, tcp, z } from "sluice";
const metrics = z.record(z.string(), z.number());
const climate = defineStream({
  name: "climate", topic: "devices/{device}/telemetry", codec: json,
  schema: z.looseObject({ ts: z.int(), seq: z.int(), metrics }), time: (data) => data.ts,
});
export default defineGateway({
  listeners: [tcp({ port: 1883 })],
  streams: [climate],
  limits: {
    maximumPacketBytes: 65_536, subscriberQueueBytes: 65_536, maximumConnections: 500, connectTimeoutMs: 2_000,
    sessions: 60, retainedMessages: 60, queuedMessagesPerSession: 20, maximumSubscriptionsPerClient: 50,
  },
});
`;

const megabyte = 2 ** 20;
/** After each of them memory is measured; the first is for what grows to its limit. */
const rounds = 3;
/** From the first round to the last: what garbage collection leaves differs by a few megabytes, and the allocator keeps more. */
const growth = {
  heapUsed: 16 * megabyte,
  arrayBuffers: 4 * megabyte,
  rss: 128 * megabyte,
  sockets: 4,
  timers: 150,
} as const;
const patienceMs = 10_000;

/** Every packet type that a client may send: each must have been taken at least once. */
const types = [
  "connect",
  "publish",
  "puback",
  "pubrec",
  "pubrel",
  "pubcomp",
  "subscribe",
  "unsubscribe",
  "pingreq",
  "disconnect",
];

export async function runFuzz(options: FuzzOptions): Promise<FuzzReport> {
  const { dataDir, seed, seconds, from = 0 } = options;
  const gateway = await startGateway({ dataDir, config, env: { ...withProbe, SLUICE_LOG_LEVEL: "info" } });
  try {
    await using control = await openControl(gateway.mqttPort, "control", patienceMs);
    const outcomes: Outcome[] = [];
    const memory: Memory[] = [];
    let failed: string | undefined;
    for (let round = 0; round < rounds && failed === undefined; round += 1) {
      failed = await fire(gateway, control, options, outcomes, (seconds * 1_000) / rounds, from + outcomes.length);
      if (failed === undefined) memory.push(await measure(gateway, 1));
    }
    return await toReport(seed, gateway, control, outcomes, memory, failed);
  } finally {
    await gateway.end("SIGKILL");
  }
}

/** Fires for a time; returns what ended it before. */
async function fire(
  gateway: GatewayProcess,
  control: Control,
  { seed, parallel = 24, count = Number.POSITIVE_INFINITY }: FuzzOptions,
  outcomes: Outcome[],
  forMs: number,
  from: number,
): Promise<string | undefined> {
  let untilMs = performance.now() + forMs;
  let next = from;
  const gunner = async (): Promise<void> => {
    while (performance.now() < untilMs && next - from < count) {
      const index = next;
      next += 1;
      outcomes.push(await attack(gateway.mqttPort, seed, index));
    }
  };
  const all = Promise.all(Array.from({ length: parallel }, gunner)).then(() => undefined);
  const died = gateway.ended.then((code) => `the gateway ended with ${code} at about stream ${next} of seed ${seed}`);
  const unserved = control.served.then(
    () => "the control device stopped",
    (error: unknown) => `the control device was not served, at about stream ${next} of seed ${seed}: ${String(error)}`,
  );
  const failed = await Promise.race([all, died, unserved]);
  untilMs = 0;
  await all;
  return failed;
}

const tally = <Key>(keys: readonly Key[]): ReadonlyMap<Key, number> => {
  const counts = new Map<Key, number>();
  for (const key of keys) counts.set(key, (counts.get(key) ?? 0) + 1);
  return counts;
};

async function toReport(
  seed: number,
  gateway: GatewayProcess,
  control: Control,
  outcomes: readonly Outcome[],
  memory: readonly Memory[],
  failed: string | undefined,
): Promise<FuzzReport> {
  const { acknowledged, heard, worstMs } = control;
  await control[Symbol.asyncDispose]();
  const sum = async (kind: string): Promise<number> =>
    failed === undefined ? readMetric(gateway, `gateway_messages_${kind}_total`).catch(() => 0) : 0;
  const counted = {
    received: await sum("received"),
    accepted: await sum("accepted"),
    rejected: await sum("rejected"),
    refused: await sum("refused"),
  };
  const report = {
    seed,
    streams: outcomes.length,
    intact: outcomes.filter(({ intact }) => intact).length,
    bytes: outcomes.reduce((total, { bytes }) => total + bytes, 0),
    taken: tally(outcomes.flatMap(({ taken }) => taken as readonly string[])),
    reasons: tally(outcomes.flatMap(({ reason, intact }) => (intact && reason !== undefined ? [reason] : []))),
    control: { acknowledged, heard, worstMs },
    memory,
    counted,
  };
  const hung = outcomes.flatMap((outcome, index) => (outcome.hung ? [index] : []));
  return { ...report, broken: [...(failed === undefined ? [] : [failed]), ...whatIsBroken(report, gateway, hung)] };
}

function whatIsBroken(
  { taken, reasons, control, memory, counted, seed }: Omit<FuzzReport, "broken">,
  gateway: GatewayProcess,
  hung: readonly number[],
): readonly string[] {
  const broken: string[] = [];
  const hold = (holds: boolean, sentence: string): void => void (holds || broken.push(sentence));
  for (const type of types) hold((taken.get(type) ?? 0) > 0, `no ${type} was taken`);
  hold(hung.length === 0, `${hung.length} streams of seed ${seed} were neither answered nor ended`);
  for (const code of [0x81, 0x82])
    hold(!reasons.has(code), `${reasons.get(code)} valid streams were called wrong: 0x${code.toString(16)}`);
  hold(control.acknowledged > 0, "the control device was never acknowledged");
  hold(control.heard > 0, "$SYS said nothing");
  const { received, accepted, rejected, refused } = counted;
  hold(received === accepted + rejected + refused, `received ${received} ≠ ${accepted} + ${rejected} + ${refused}`);
  for (const { msg } of errorsOf(gateway)) broken.push(`error in the log: ${msg}`);
  const [first, last] = [memory[0], memory.at(-1)];
  if (first === undefined || last === undefined) return broken;
  for (const key of ["heapUsed", "arrayBuffers", "rss", "sockets", "timers"] as const)
    hold(last[key] - first[key] <= growth[key], `${key} has grown from ${first[key]} to ${last[key]}`);
  return broken;
}

const list = (counts: ReadonlyMap<string | number, number>): string =>
  [...counts].map(([key, count]) => `${typeof key === "number" ? `0x${key.toString(16)}` : key} ${count}`).join(", ");

export function formatReport(report: FuzzReport): string {
  const { seed, streams, intact, bytes, taken, reasons, control, memory, counted, broken } = report;
  return [
    `fuzz: seed ${seed}, ${streams} streams (${intact} intact), ${Math.round(bytes / 1024)} KiB`,
    `  taken: ${list(taken)}`,
    `  intact streams that were ended: ${list(reasons)}`,
    `  control: ${control.acknowledged} acknowledged, worst ${Math.round(control.worstMs)} ms, ${control.heard} of $SYS`,
    `  counted: ${JSON.stringify(counted)}`,
    ...memory.map((measured) => `  memory: ${JSON.stringify(measured)}`),
    ...broken.map((sentence) => `  BROKEN: ${sentence}`),
  ].join("\n");
}
