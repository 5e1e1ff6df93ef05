// Rows in the binary format of COPY, as the messages that carry them:
//
//   CopyData   "d" | length i32 | signature 11 | flags i32 | header extension length i32
//   CopyData   "d" | length i32 | rows; as many of these as there are
//     row      number of cells i16 | cells
//     cell     length i32, -1 for NULL | bytes
//   CopyData   "d" | length i32 | i16 -1
//   CopyDone   "c" | length i32
//
// https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4, …/protocol-message-formats.html; all big-endian, a length
// counts itself. This is plain and dense for speed: of the whole way to the server it is what JavaScript does for each row.

import { unreachable } from "../../errors.ts";
import type { Cells, ColumnType } from "../layout/table.ts";

const HEAD = Buffer.from("d\0\0\0\u0017PGCOPY\n\u00ff\r\n\0\0\0\0\0\0\0\0\0", "latin1");
const END = Buffer.from([0x64, 0, 0, 0, 6, 0xff, 0xff, 0x63, 0, 0, 0, 4]);
/** "d" and the length. */
const MESSAGE_HEAD_BYTES = 5;
/** What timestamps count from, 2000-01-01, in milliseconds since 1970. */
const EPOCH_MS = 946_684_800_000;
const JSONB_VERSION = 1;
const FIRST_BYTES = 128 * 1024;

export interface CopyRows {
  /** Of the rows since the last `take`. */
  readonly bytes: number;
  /**
   * Adds a row. undefined: it was added. A string names the column that PostgreSQL can never store, because a text of it has
   * U+0000 or half of a surrogate pair; the row was not added.
   */
  add(cells: Cells): string | undefined;
  /** CopyData with the rows since the last call, and at the end CopyDone. */
  take(isLast: boolean): Buffer;
}

/** JSON.stringify writes \u for control characters and halves of surrogate pairs only. */
const unwritableInJson = /(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f])/;

export function createCopyRows(columns: readonly { readonly name: string; readonly type: ColumnType }[]): CopyRows {
  const types = columns.map(({ type }) => type);
  let bytes = Buffer.allocUnsafeSlow(FIRST_BYTES);
  /** Of the message with the rows. */
  let start = HEAD.copy(bytes);
  let at = start + MESSAGE_HEAD_BYTES;

  function reserve(more: number): void {
    if (at + more <= bytes.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(bytes.length * 2, at + more));
    bytes.copy(larger, 0, 0, at);
    bytes = larger;
  }

  function addText(text: string, version?: number): void {
    const extra = version === undefined ? 0 : 1;
    // A UTF-16 unit has at most three bytes in UTF-8.
    reserve(5 + text.length * 3);
    const length = bytes.write(text, at + 4 + extra);
    bytes.writeInt32BE(length + extra, at);
    if (version !== undefined) bytes[at + 4] = version;
    at += 4 + extra + length;
  }

  /** Without a BigInt for each number. */
  function addInteger(value: number): void {
    at = bytes.writeInt32BE(8, at);
    if (Number.isSafeInteger(value)) {
      at = bytes.writeInt32BE(Math.floor(value / 2 ** 32), at);
      at = bytes.writeUInt32BE(value >>> 0, at);
    } else at = bytes.writeBigInt64BE(BigInt(value), at);
  }

  /** Exact to the microsecond up to 2255, to the millisecond beyond. */
  function addTimestamp(ms: number): void {
    const micros = Math.round((ms - EPOCH_MS) * 1_000);
    if (Number.isSafeInteger(micros)) return addInteger(micros);
    at = bytes.writeInt32BE(8, at);
    at = bytes.writeBigInt64BE(BigInt(Math.round(ms - EPOCH_MS)) * 1_000n, at);
  }

  /** False: it cannot be stored. */
  function addCell(cell: Cells[number], type: ColumnType): boolean {
    if (cell === null) {
      at = bytes.writeInt32BE(-1, at);
      return true;
    }
    switch (type) {
      case "text":
        addText(String(cell));
        return isText(String(cell));
      case "json":
        addText(String(cell), JSONB_VERSION);
        return !(String(cell).includes("\\u") && unwritableInJson.test(String(cell)));
      case "bigint":
        addInteger(Number(cell));
        return true;
      case "timestamp":
        addTimestamp(Number(cell));
        return true;
      case "double":
        at = bytes.writeInt32BE(8, at);
        at = bytes.writeDoubleBE(Number(cell), at);
        return true;
      case "boolean":
        at = bytes.writeInt32BE(1, at);
        at = bytes.writeUInt8(cell === true ? 1 : 0, at);
        return true;
      default:
        return unreachable(type);
    }
  }

  return {
    get bytes() {
      return at;
    },
    add(cells) {
      const rowAt = at;
      // Of what is no text.
      reserve(2 + types.length * 12);
      at = bytes.writeInt16BE(types.length, at);
      for (const [index, type] of types.entries()) {
        reserve((types.length - index) * 12);
        if (addCell(cells[index] ?? null, type)) continue;
        at = rowAt;
        return columns[index]?.name ?? "";
      }
      return undefined;
    },
    take(isLast) {
      bytes.write("d", start, "latin1");
      bytes.writeInt32BE(at - start - 1, start + 1);
      if (isLast) {
        reserve(END.length);
        at += END.copy(bytes, at);
      }
      const taken = bytes.subarray(0, at);
      // What was taken is on its way, and must stay as it is.
      bytes = Buffer.allocUnsafeSlow(FIRST_BYTES);
      start = 0;
      at = MESSAGE_HEAD_BYTES;
      return taken;
    },
  };
}

/** Whether PostgreSQL's text can hold it. */
export const isText = (text: string): boolean => text.isWellFormed() && !text.includes("\0");
