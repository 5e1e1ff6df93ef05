// The columns of a Parquet file. In every layout:
//
//   gateway STRING, offset INT64, stream STRING, device STRING, topic STRING, time TIMESTAMP, receivedAt TIMESTAMP
//   (milliseconds, UTC); none of them is null
//
// document: data STRING, JSON as in document.ts.

import type { Entry } from "../../reading.ts";
import { toJson } from "../document.ts";

/** As the type of its column wants it; TIMESTAMP: milliseconds since 1970. */
export type Cell = string | number | boolean | null;
/** A row: a cell for each column. */
export type Cells = readonly Cell[];

export interface Column {
  readonly name: string;
  readonly type: "STRING" | "INT64" | "TIMESTAMP" | "DOUBLE" | "BOOLEAN";
  readonly nullable: boolean;
  /** For whole numbers that mostly go up. */
  readonly encoding?: "DELTA_BINARY_PACKED";
}

export interface Table {
  columnsOf(stream: string): readonly Column[];
  /** The rows of an entry; an Error says why it can never be written. */
  toRows(gateway: string, entry: Entry): readonly Cells[] | Error;
}

const rising = { nullable: false, encoding: "DELTA_BINARY_PACKED" } as const;
const text = { type: "STRING", nullable: false } as const;

const commonColumns: readonly Column[] = [
  { name: "gateway", ...text },
  { name: "offset", type: "INT64", ...rising },
  { name: "stream", ...text },
  { name: "device", ...text },
  { name: "topic", ...text },
  { name: "time", type: "TIMESTAMP", ...rising },
  { name: "receivedAt", type: "TIMESTAMP", ...rising },
];

function toCommonCells(gateway: string, { offset, reading }: Entry): Cells {
  const { stream, deviceId, topic, time, receivedAt } = reading;
  return [gateway, offset, stream, deviceId, topic, time, receivedAt];
}

export function createDocumentTable(): Table {
  const columns = [...commonColumns, { name: "data", ...text }];
  return {
    columnsOf: () => columns,
    toRows(gateway, entry) {
      const data = toJson(entry.reading.data);
      if (data instanceof Error)
        return new Error(`its data cannot be written as JSON: ${data.message}`, { cause: data });
      return [[...toCommonCells(gateway, entry), data]];
    },
  };
}
