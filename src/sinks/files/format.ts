// What the sink of files and its formats have to say to each other.

import type { Batch } from "../../reading.ts";
import type { Written } from "../sink.ts";

/** `Row` is an entry in the form that the format writes. */
type Rows<Row> =
  /** One for each entry of the batch, in its order. */
  { readonly kind: "rows"; readonly rows: readonly Row[] } | (Written & { readonly kind: "except" });

/** How readings become the bytes of a file. */
export interface Format<Row> {
  /** What the names of its files end with, without the first dot. */
  readonly extension: string;
  /** The rows of a batch, or which of its entries can never be one. */
  toRows(batch: Batch): Rows<Row>;
  /** A new file, in memory, for the readings of a stream. */
  createContents(stream: string): Contents<Row>;
}

/** What a file will have in it. */
export interface Contents<Row> {
  /** Adds a row behind the others; returns about how many bytes of memory it takes. */
  add(row: Row): number;
  /** The bytes of the whole file, in pieces; nothing is added afterwards. None: there is nothing to write. */
  finish(): readonly Uint8Array[];
}
