// What a gateway says of its sinks and takes of memory, looked at again and again.

import { readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import type { GatewayProcess } from "../gateway-process.ts";

export interface Seen {
  /** Of each look, by sink: age of the oldest record that it has not taken. */
  readonly lagSeconds: ReadonlyMap<string, readonly number[]>;
  readonly rssBytes: readonly number[];
}

export interface Watch {
  /** What was seen since the call before. */
  take(): Seen;
  /** Resolves when it looks no more. */
  stop(): Promise<void>;
}

const EVERY_MS = 250;
const LAG = /^gateway_sink_lag_seconds\{sink="([^"]+)"\} (\S+)$/gm;

export function watchGateway(gateway: GatewayProcess): Watch {
  const stop = new AbortController();
  let lagSeconds = new Map<string, number[]>();
  let rssBytes: number[] = [];

  async function look(): Promise<void> {
    const { text } = await gateway.fetch("/metrics");
    for (const [, sink = "", value] of text.matchAll(LAG)) {
      const seen = lagSeconds.get(sink) ?? [];
      lagSeconds.set(sink, seen);
      seen.push(Number(value));
    }
    rssBytes.push(await readRssBytes(gateway.pid));
  }

  const looking = (async () => {
    while (!stop.signal.aborted) {
      await look();
      await delay(EVERY_MS, undefined, { signal: stop.signal }).catch(() => {});
    }
  })();
  looking.catch(() => {}); // stop() tells
  return {
    take() {
      const seen = { lagSeconds, rssBytes };
      lagSeconds = new Map();
      rssBytes = [];
      return seen;
    },
    async stop() {
      stop.abort();
      await looking;
    },
  };
}

async function readRssBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
}

/** The value below which such a part of them is, from 0 to 1. */
export function quantile(values: readonly number[], part: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
}
