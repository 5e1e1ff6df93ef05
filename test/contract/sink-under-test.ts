// What a sink's test gives to the suites of this folder, and what they make of it.

import type { Entry } from "../../src/reading.ts";
import type { Sink, SinkContext } from "../../src/sinks/sink.ts";
import type { Server } from "../servers/server.ts";

/** One row as the sink's destination gives it back. */
export interface WrittenRow {
  readonly gateway: string;
  readonly offset: number;
  readonly device: string;
  readonly time: number;
  readonly data: unknown;
}

/** An address, and a process for those that can be ended. */
export type ServerUnderTest = Pick<Server, "host" | "port"> & Partial<Server>;

export interface SinkUnderTest {
  /** Opens the sink; called several times in a test, always for the same destination, which is new in each test. */
  readonly open: (context: SinkContext) => Promise<Sink>;
  /**
   * Everything at the destination, read by other means than the sink: by gateway, and then in the order in which it stands
   * there; in that of the offsets where there is none.
   */
  readonly rows: (context: SinkContext) => Promise<readonly WrittenRow[]>;
  /**
   * exactly: the sink keeps its position with the rows. by key: the destination knows what comes again. at least: an entry
   * may be there more than once, and counts where it was first.
   */
  readonly once: "exactly" | "by key" | "at least";
  /** Data of a reading that must be parked. Default: a BigInt, which JSON does not have. */
  readonly refuses?: unknown;
  /** What the destination gives back for data; default: what JSON makes of it. */
  readonly keeps?: (data: unknown) => unknown;
  /** Names of the values of hostile.ts that are parked. Default: none. */
  readonly parks?: readonly string[];
  /** The server behind `open`, which runs. */
  readonly server?: (context: SinkContext) => ServerUnderTest | Promise<ServerUnderTest>;
  /** As open, but by another address: that of a proxy before the server. */
  readonly openAt?: (context: SinkContext, place: Pick<Server, "host" | "port">) => Promise<Sink>;
  /**
   * The worst that `server` has everything after: SIGSTOP, which is a while without an answer; SIGTERM, an orderly restart; SIGKILL, a
   * crash. Default: nothing of these is tried.
   */
  readonly survives?: "SIGSTOP" | "SIGTERM" | "SIGKILL";
}

export function toRow({ offset, reading }: Entry, gateway = "gateway-1"): WrittenRow {
  const { deviceId, time, data } = reading;
  return { gateway, offset, device: deviceId, time, data };
}

/** What the destination has, each entry as often as it may be there. */
export async function readOnce({ rows, once }: SinkUnderTest, context: SinkContext): Promise<readonly WrittenRow[]> {
  const found = await rows(context);
  if (once !== "at least") return found;
  const keyOf = ({ gateway, offset }: WrittenRow): string => `${gateway}/${offset}`;
  const seen = new Set<string>();
  return found.filter((row) => {
    const isFirst = !seen.has(keyOf(row));
    seen.add(keyOf(row));
    return isFirst;
  });
}

/** Settles like `promise`; rejects when that takes longer than the contract allows. */
export async function within<T>(ms: number, what: string, promise: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`${what} takes longer than ${ms} ms`)), ms);
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
