// What parked.db and rejects.db have in common: messages that wait for a person, in a SQLite file that the gateway's workers
// and the command line use at the same time, each with a connection of its own. Both tables have these columns:
//
//   gateway TEXT, offset INTEGER: the record's place in the journal | time INTEGER: when it came here | error TEXT: why |
//   stream, device, client, topic TEXT, received_at INTEGER, payload BLOB, qos INTEGER, properties TEXT: the message; the
//   MQTT 5 properties as JSON, correlationData in base64 | retry_at INTEGER: since when it is to be tried again, else NULL
//
// Times are in milliseconds since 1970.

import { existsSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import type { SQLInputValue } from "node:sqlite";
import { SluiceError, toError } from "../errors.ts";
import { toOffset } from "../reading.ts";
import type { Issue, Message, MessageProperties, Offset, QoS, UnixMs } from "../reading.ts";

/** A kind of inbox: its table, and how its file is made and brought to the present version. */
export interface InboxKind {
  readonly table: "parked" | "rejects";
  readonly version: number;
  /** Statements that make an empty file; they set no version. */
  readonly schema: string;
  /** By the version that is found: statements that make it the next one. */
  readonly migrations: Readonly<Record<number, string>>;
  /** A query for how many gave way for want of room, as `n`. */
  readonly dropped?: string;
}

/** One message that waits. */
export interface InboxItem {
  /** Of a parked record: the sink or handler that has not taken it. */
  readonly sink: string | undefined;
  readonly gateway: string;
  readonly offset: Offset;
  readonly time: UnixMs;
  readonly error: string;
  /** Of a rejected message. */
  readonly reason: string | undefined;
  readonly issues: readonly Issue[] | undefined;
  /** Of a parked record: how often it was tried. 0: never, because the schema of then refused it. */
  readonly attempts: number | undefined;
  readonly retryAt: UnixMs | undefined;
  readonly stream: string;
  readonly message: Message;
}

/** Which items are meant: those for which all that is given is true. */
export interface Selection {
  readonly sink?: string | undefined;
  readonly gateway?: string | undefined;
  readonly offset?: number | undefined;
  readonly stream?: string | undefined;
  readonly device?: string | undefined;
  readonly reason?: string | undefined;
}

/** Others hold the lock only while they write. */
const BUSY_MS = 5_000;

/** Opens or makes the file, in the present version. Throws a plain error, which does not name the file. */
export function openInboxFile(file: string, kind: InboxKind): DatabaseSync {
  const db = new DatabaseSync(file, { timeout: BUSY_MS });
  try {
    db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
    if (readVersion(db, kind) < kind.version) inTransaction(db, () => migrate(db, kind));
    return db;
  } catch (cause) {
    db.close();
    throw cause;
  }
}

function readVersion(db: DatabaseSync, kind: InboxKind): number {
  const version = Number(db.prepare("PRAGMA user_version").get()?.["user_version"]);
  if (version > kind.version) throw new Error(`its schema has version ${version}, written by a newer Sluice`);
  return version;
}

/** Reads the version again: another process may have been faster. */
function migrate(db: DatabaseSync, kind: InboxKind): void {
  let version = readVersion(db, kind);
  if (version === 0) {
    db.exec(kind.schema);
    ({ version } = kind);
  }
  for (; version < kind.version; version += 1) db.exec(kind.migrations[version] ?? "");
  db.exec(`PRAGMA user_version = ${version}`);
}

export function inTransaction<T>(db: DatabaseSync, work: () => T): T {
  db.exec("BEGIN IMMEDIATE");
  try {
    const result = work();
    db.exec("COMMIT");
    return result;
  } catch (cause) {
    // SQLite has rolled back itself after a full disk and the like.
    if (db.isTransaction) db.exec("ROLLBACK");
    throw cause;
  }
}

/** The columns of a message, in the order of `toMessageValues`. */
export const MESSAGE_COLUMNS = "stream, device, client, topic, received_at, payload, qos, properties";

export function toMessageValues(stream: string, message: Message): readonly SQLInputValue[] {
  const { deviceId, clientId, topic, receivedAt, payload, qos, properties } = message;
  return [stream, deviceId, clientId, topic, receivedAt, payload, qos, toPropertiesText(properties)];
}

function toPropertiesText(properties: MessageProperties | undefined): string | null {
  if (properties === undefined) return null;
  const { correlationData } = properties;
  if (correlationData === undefined) return JSON.stringify(properties);
  return JSON.stringify({ ...properties, correlationData: Buffer.from(correlationData).toString("base64") });
}

function parseProperties(text: string): MessageProperties {
  const { correlationData, ...others } = JSON.parse(text) as Omit<MessageProperties, "correlationData"> & {
    readonly correlationData?: string;
  };
  if (correlationData === undefined) return others;
  return { ...others, correlationData: Buffer.from(correlationData, "base64") };
}

type Row = Readonly<Record<string, unknown>>;

/** A row of either table, also of one in an older version. */
function toItem(row: Row): InboxItem {
  const { sink, gateway, offset, time, error, reason, issues, attempts, retry_at: retryAt, stream } = row;
  return {
    sink: sink as string | undefined,
    gateway: gateway as string,
    offset: toOffset(offset as number),
    time: time as number,
    error: error as string,
    reason: reason as string | undefined,
    issues: typeof issues === "string" ? (JSON.parse(issues) as Issue[]) : undefined,
    attempts: attempts as number | undefined,
    retryAt: typeof retryAt === "number" ? retryAt : undefined,
    stream: stream as string,
    message: toMessage(row),
  };
}

function toMessage(row: Row): Message {
  const { topic, payload, client, device, received_at: receivedAt, qos, properties } = row;
  return {
    topic: topic as string,
    payload: toBuffer(payload as Uint8Array),
    clientId: client as string,
    deviceId: device as string,
    receivedAt: receivedAt as number,
    qos: (qos ?? 0) as QoS,
    packetId: 0,
    properties: typeof properties === "string" ? parseProperties(properties) : undefined,
  };
}

/** Codecs are used to Buffers. */
const toBuffer = ({ buffer, byteOffset, length }: Uint8Array): Buffer => Buffer.from(buffer, byteOffset, length);

export interface TakenRow {
  readonly item: InboxItem;
  readonly row: Row;
}

/** As many of the first rows as have payloads of so many bytes, but at least one. */
export function takeRows(rows: Iterable<Row>, maximumBytes: number): readonly TakenRow[] {
  const taken: TakenRow[] = [];
  let bytes = 0;
  for (const row of rows) {
    const item = toItem(row);
    bytes += item.message.payload.length;
    if (taken.length > 0 && bytes > maximumBytes) break;
    taken.push({ item, row });
  }
  return taken;
}

const PAGE_RECORDS = 500;
const PAGE_BYTES = 4 * 1024 * 1024;
/** A worker that wants to write waits no longer than this takes. */
const DROPPED_TOGETHER = 10_000;

/** What comes next in the order of the key; [] at the end. */
function readPage(
  db: DatabaseSync,
  { table }: InboxKind,
  selection: Selection,
  last: InboxItem | undefined,
): readonly InboxItem[] {
  const { where, values } = toWhere(selection);
  const key = table === "parked" ? `sink, gateway, "offset"` : `gateway, "offset"`;
  const after = last === undefined ? [] : [last.sink, last.gateway, last.offset].filter((part) => part !== undefined);
  const behind = after.length === 0 ? "" : ` AND (${key}) > (${after.map(() => "?").join(", ")})`;
  const sql = `SELECT * FROM ${table} WHERE ${where}${behind} ORDER BY ${key} LIMIT ${PAGE_RECORDS}`;
  return takeRows(db.prepare(sql).iterate(...values, ...after), PAGE_BYTES).map(({ item }) => item);
}

/** What the command line does with an inbox. Everything throws SLUICE_INBOX when the file cannot be used. */
export interface Inbox extends Disposable {
  /** In the order of the key. In pages, so that a reader that takes its time, such as `less`, does not let SQLite's log grow. */
  items(selection: Selection): Iterable<InboxItem>;
  count(selection: Selection): number;
  /** Of parked records only: the sinks and handlers that have some. */
  readonly sinks: readonly string[];
  /** How many were deleted. */
  drop(selection: Selection): number;
  /** To be tried again by the gateway: at once when it runs, else at its start. How many. */
  mark(selection: Selection): number;
  /** How many of them are still to be tried again. */
  countMarked(selection: Selection): number;
  /** How many gave way for want of room; of the rejects only. */
  readonly dropped: number;
}

/** undefined: there is no such file, so nothing was ever set aside. */
export function openInbox(file: string, kind: InboxKind): Inbox | undefined {
  if (!existsSync(file)) return undefined;
  const { table } = kind;
  let db: DatabaseSync | undefined;
  const naming = <T>(work: (opened: DatabaseSync) => T): T => {
    try {
      db ??= openAsIs(file, kind);
      return work(db);
    } catch (cause) {
      throw new SluiceError("SLUICE_INBOX", `${file}: ${toError(cause).message}`, { cause });
    }
  };
  const count = (condition: string, selection: Selection): number =>
    naming((opened) => {
      const { where, values } = toWhere(selection);
      const sql = `SELECT count(*) AS n FROM ${table} WHERE ${condition} AND ${where}`;
      return Number(opened.prepare(sql).get(...values)?.["n"]);
    });
  naming(() => {});
  return {
    *items(selection) {
      let last: InboxItem | undefined;
      do {
        const page = naming((opened) => readPage(opened, kind, selection, last));
        yield* page;
        last = page.at(-1);
      } while (last !== undefined);
    },
    get sinks() {
      if (table !== "parked") return [];
      const sql = "SELECT DISTINCT sink FROM parked ORDER BY sink";
      return naming((opened) => opened.prepare(sql).all()).map((row) => String(row["sink"]));
    },
    count: (selection) => count("TRUE", selection),
    drop(selection) {
      const { where, values } = toWhere(selection);
      const sql = `DELETE FROM ${table} WHERE rowid IN (SELECT rowid FROM ${table} WHERE ${where} LIMIT ${DROPPED_TOGETHER})`;
      let dropped = 0;
      for (let changes = DROPPED_TOGETHER; changes === DROPPED_TOGETHER; dropped += changes) {
        changes = naming((opened) => Number(opened.prepare(sql).run(...values).changes));
      }
      return dropped;
    },
    mark(selection) {
      // A gateway of an older version does not know the column, and would fail at the next record that it sets aside.
      naming((opened) => inTransaction(opened, () => migrate(opened, kind)));
      const { where, values } = toWhere(selection);
      const sql = `UPDATE ${table} SET retry_at = ${Date.now()} WHERE ${where}`;
      return naming((opened) => Number(opened.prepare(sql).run(...values).changes));
    },
    countMarked: (selection) => count("retry_at IS NOT NULL", selection),
    get dropped() {
      if (kind.dropped === undefined) return 0;
      const { dropped: sql } = kind;
      return naming((opened) => Number(opened.prepare(sql).get()?.["n"]));
    },
    [Symbol.dispose]: () => db?.close(),
  };
}

/** Of whatever version it is: looking at a file and deleting from it changes nothing for a gateway that uses it. */
function openAsIs(file: string, kind: InboxKind): DatabaseSync {
  const db = new DatabaseSync(file, { timeout: BUSY_MS });
  try {
    db.exec("PRAGMA synchronous = FULL");
    if (readVersion(db, kind) === 0) throw new Error("it has no records in the form that Sluice writes");
    return db;
  } catch (cause) {
    db.close();
    throw cause;
  }
}

function toWhere(selection: Selection): { readonly where: string; readonly values: readonly SQLInputValue[] } {
  const given = Object.entries(selection).filter((entry): entry is [string, string | number] => entry[1] !== undefined);
  return {
    where: ["TRUE", ...given.map(([column]) => `"${column}" = ?`)].join(" AND "),
    values: given.map(([, value]) => value),
  };
}
