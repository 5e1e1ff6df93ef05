// A kind of sink in the benchmark of sinks, and the readings as the naive ways write them.

import type { Entry, Reading } from "../src/reading.ts";
import type { SinkDefinition } from "../src/sinks/sink.ts";
import type { Server } from "../test/servers/server.ts";

/** Where a turn writes; everything in it is new. */
export interface Place {
  /** An empty folder. */
  readonly dir: string;
  /** Of the server on 127.0.0.1; 0: there is none. */
  readonly port: number;
  /** The server's own folder, where its Unix socket is if it has one. */
  readonly serverDir: string;
}

/** The library used naively. */
export interface Naive extends AsyncDisposable {
  /** Resolves when it is written; the next reading waits for that. */
  readonly row?: (entry: Entry) => unknown;
  readonly batch: (entries: readonly Entry[]) => unknown;
}

export interface Target {
  readonly name: string;
  /** Whose versions are part of what is measured. */
  readonly packages: readonly string[];
  readonly start?: () => Promise<AsyncDisposable & Pick<Server, "port"> & Partial<Pick<Server, "dir">>>;
  readonly sink: (place: Place) => SinkDefinition;
  readonly naive: (place: Place) => Promise<Naive>;
  /** `naive` has no single rows. */
  readonly noRows?: true;
  /** The sink as a configuration says it, when a journal is to be drained into it. */
  readonly call?: (place: Place) => string;
}

/** A place for a turn in an empty folder. */
export const toPlace = (dir: string, server: { readonly port: number; readonly dir?: string } | undefined): Place => ({
  dir,
  port: server?.port ?? 0,
  serverDir: server?.dir ?? "",
});

/** The columns that all of them have. */
export const toRow = ({ offset, reading }: Entry) => ({
  gateway: "bench",
  offset,
  stream: reading.stream,
  device: reading.deviceId,
  topic: reading.topic,
  time: reading.time,
  received_at: reading.receivedAt,
  data: JSON.stringify(reading.data),
});
export const toLine = (entry: Entry): string => `${JSON.stringify({ ...toRow(entry), data: entry.reading.data })}\n`;
export const toLines = (entries: readonly Entry[]): string => entries.map(toLine).join("");
export const toData = ({ data }: Reading): string => JSON.stringify(data);
