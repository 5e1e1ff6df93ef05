// The figures of a measured window of load, and what has to be true of the load for them to mean something.

import type { LoadResult } from "./load-protocol.ts";
import type { Figure, Measured } from "./report.ts";

export interface Saturated extends Measured {
  readonly saturated: LoadResult;
}

export const messagesPerSecond = ({ messages, seconds }: LoadResult): number => messages / seconds;

/** Undefined: the server acknowledged nothing. */
export const messagesPerCpuSecond = ({ messages, serverCpuSeconds }: LoadResult): number | undefined =>
  messages === 0 ? undefined : messages / serverCpuSeconds;

export const saturatedFigures: readonly Figure<Saturated>[] = [
  { name: "messages/s", digits: 0, pick: ({ saturated }) => messagesPerSecond(saturated) },
  { name: "messages per server-CPU-s", digits: 0, pick: ({ saturated }) => messagesPerCpuSecond(saturated) },
  { name: "PUBACK p50 ms, saturated", digits: 1, pick: ({ saturated }) => pubackMs(saturated, "p50"), compared: false },
  { name: "PUBACK p99 ms, saturated", digits: 1, pick: ({ saturated }) => pubackMs(saturated, "p99"), compared: false },
  {
    name: "server, cores",
    digits: 2,
    pick: ({ saturated }) => saturated.serverCpuSeconds / saturated.seconds,
    compared: false,
  },
  {
    name: "of it the main thread",
    digits: 2,
    pick: ({ saturated: { threadSeconds, seconds } }) => per(threadSeconds["MainThread"], seconds),
    compared: false,
  },
  {
    name: "load generator, cores",
    digits: 2,
    pick: ({ saturated }) => saturated.loadCpuSeconds / saturated.seconds,
    compared: false,
  },
];

function per(value: number | undefined, seconds: number): number | undefined {
  return value === undefined ? undefined : value / seconds;
}

function pubackMs({ messages, pubackMs: measured }: LoadResult, at: "p50" | "p99"): number | undefined {
  return messages === 0 ? undefined : measured[at];
}

/** A server has had what it could take when it was busy all the time, or waited for its disk. */
const busyCores = 0.9;
const quietCores = 0.15;

/** Sentences on what spoils the figures; none when nothing does. */
export function toCautions(rounds: readonly Saturated[]): readonly string[] {
  const cautions = rounds.flatMap(({ server, round, saturated }) => {
    const { seconds, serverCpuSeconds, loadCpuSeconds, otherCpuSeconds, leastInFlight } = saturated;
    const where = `${server}, round ${round}`;
    const said = [...toNoise(where, otherCpuSeconds / seconds)];
    if (loadCpuSeconds > serverCpuSeconds) {
      said.push(`${where}: the load generator was busier than the server; its messages/s are a lower bound`);
    } else if (serverCpuSeconds / seconds < busyCores) {
      said.push(`${where}: the server was busy for ${(serverCpuSeconds / seconds).toFixed(2)} cores only`);
    }
    if (leastInFlight < 1)
      said.push(`${where}: only ${(leastInFlight * 100).toFixed(0)} % of the windows were full once`);
    return said;
  });
  return cautions.map(toCaution);
}

export const toCaution = (sentence: string): string => `caution: ${sentence}`;

/** A sentence when something else than server and generator was at work while `where` was measured. */
export function toNoise(where: string, otherCores: number): readonly string[] {
  return otherCores > quietCores ? [`${where}: something else on the machine took ${otherCores.toFixed(2)} cores`] : [];
}

/** One measurement as a line on the terminal. */
export function toLine({ server, round, saturated }: Saturated): string {
  const perCpuSecond = messagesPerCpuSecond(saturated);
  if (perCpuSecond === undefined) return `round ${round}  ${server.padEnd(15)} acknowledged nothing any more`;
  return [
    `round ${round}  ${server.padEnd(15)}`,
    `${messagesPerSecond(saturated).toFixed(0)} messages/s`.padStart(18),
    `${perCpuSecond.toFixed(0)} per server-CPU-s`.padStart(26),
    `   PUBACK p50 ${saturated.pubackMs.p50.toFixed(1)} p99 ${saturated.pubackMs.p99.toFixed(1)} ms`,
  ].join("");
}
