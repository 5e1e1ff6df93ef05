// The table `readings` in the layout `document`, the same in every database: gateway by gateway, in the order of the offsets.

import { parseData, type Row } from "./row.ts";

/** Rows that are read at once. */
export const PAGE = 10_000;

/** A row as the queries return it. */
export interface StoredReading {
  readonly offset: number;
  /** In milliseconds since 1970. */
  readonly received_at: number;
  readonly device: string;
  /** JSON. */
  readonly data: string;
}

/** How a database is asked. */
export interface ReadingsTable {
  /** The first gateway whose id is greater; no text when there is none. */
  readonly nextGateway: (after: string) => unknown;
  /** Its first rows behind the offset: at least `PAGE` of them, unless there are no more. */
  readonly nextRows: (gateway: string, offset: number) => Promise<readonly StoredReading[]> | readonly StoredReading[];
}

/** Each call of what it returns reads what has been added since the one before. */
export function createReadingsReader(): (table: ReadingsTable) => AsyncGenerator<readonly Row[]> {
  /** By gateway: the offset up to which it was read. */
  const lasts = new Map<string, number>();

  async function* readGateway(table: ReadingsTable, gateway: string): AsyncGenerator<readonly Row[]> {
    for (;;) {
      const rows = await table.nextRows(gateway, lasts.get(gateway) ?? -1);
      const last = rows.at(-1);
      if (last === undefined) return;
      lasts.set(gateway, last.offset);
      yield rows.map(({ offset, received_at: receivedAt, device, data }) => ({
        lane: gateway,
        offset,
        device,
        receivedAt,
        data: parseData(data),
      }));
      if (rows.length < PAGE) return;
    }
  }

  return async function* read(table) {
    for (let gateway = ""; ;) {
      const next = await table.nextGateway(gateway);
      if (typeof next !== "string") return;
      gateway = next;
      yield* readGateway(table, gateway);
    }
  };
}
