// Files of Parquet. A file is made in memory: cells are gathered in columns, and a row group is encoded and compressed as soon
// as it is large. The columns are those of the layout: whole numbers are INT64, times TIMESTAMP (milliseconds, UTC), JSON is STRING.

import { gzipSync, zstdCompressSync } from "node:zlib";
import type * as library from "hyparquet-writer";
import { toRows } from "../layout/layout.ts";
import type { Cell, Cells, Column, Table } from "../layout/table.ts";
import type { Contents, Format } from "./format.ts";

/** A row group ends with the row that makes it so large: rows, and bytes of memory. */
const LARGEST_GROUP = { rows: 100_000, bytes: 16 * 1024 * 1024 };
/** Of memory: what a row and a cell take beside the text of a cell, about. */
const ROW_BYTES = 32;
const CELL_BYTES = 8;

const codecs = { none: "UNCOMPRESSED", snappy: "SNAPPY", gzip: "GZIP", zstd: "ZSTD" } as const;
/** Snappy comes with the library. */
const compressors = { GZIP: gzipSync, ZSTD: zstdCompressSync };

type Library = typeof library;
/** An entry may have several rows, or none. */
type Rows = readonly Cells[];

/** `tables`: of each stream. */
export async function openParquet(
  tables: ReadonlyMap<string, Table>,
  compression: keyof typeof codecs = "snappy",
): Promise<Format<Rows>> {
  const writer: Library = await import("hyparquet-writer");
  return {
    extension: "parquet",
    toRows(batch) {
      const made = toRows(tables, batch);
      return made.kind === "except" ? made : { kind: "rows", rows: made.entries.map(({ rows }) => rows) };
    },
    createContents: (stream) => createContents(writer, codecs[compression], tables.get(stream)?.columns ?? []),
  };
}

/** The same names as in a line of ndjson. */
const toName = ({ name, path }: Column): string => (path === undefined && name === "received_at" ? "receivedAt" : name);

const types = {
  text: "STRING",
  json: "STRING",
  bigint: "INT64",
  double: "DOUBLE",
  boolean: "BOOLEAN",
  timestamp: "TIMESTAMP",
} as const;

function createContents(
  { ByteWriter, ParquetWriter, schemaFromColumnData }: Library,
  codec: (typeof codecs)[keyof typeof codecs],
  columns: readonly Column[],
): Contents<Rows> {
  const bytes = new ByteWriter();
  const schema = schemaFromColumnData({
    columnData: columns.map((column) => ({
      name: toName(column),
      type: types[column.type],
      nullable: column.nullable,
      data: [],
    })),
  });
  const file = new ParquetWriter({ writer: bytes, schema, codec, compressors, createdBy: "sluice version 1" });
  let group = startGroup();

  function startGroup(): { readonly cells: readonly Cell[][]; rows: number; bytes: number } {
    return { cells: columns.map(() => []), rows: 0, bytes: 0 };
  }

  function endGroup(): void {
    const columnData = columns.map((column, index) => toSource(column, group.cells[index] ?? []));
    // In memory nothing is waited for.
    void file.write({ columnData, rowGroupSize: group.rows });
    group = startGroup();
  }

  function addRow(row: Cells): number {
    let size = ROW_BYTES;
    for (const [index, cell] of row.entries()) {
      group.cells[index]?.push(cell);
      size += CELL_BYTES + (typeof cell === "string" ? cell.length : 0);
    }
    group.rows += 1;
    group.bytes += size;
    if (group.rows >= LARGEST_GROUP.rows || group.bytes >= LARGEST_GROUP.bytes) endGroup();
    return size;
  }

  return {
    add: (rows) => rows.reduce((size, row) => size + addRow(row), 0),
    finish() {
      if (group.rows > 0) endGroup();
      if (file.num_rows === 0n) return [];
      void file.finish();
      return [bytes.getBytes()];
    },
  };
}

function toSource(column: Column, cells: readonly Cell[]): library.ColumnSource {
  const name = toName(column);
  if (column.type !== "bigint" && column.type !== "timestamp") return { name, data: [...cells] };
  const data = cells.map((cell) => (cell === null ? null : BigInt(cell)));
  // Those that every row has mostly go up.
  return column.nullable ? { name, data } : { name, data, encoding: "DELTA_BINARY_PACKED" };
}
