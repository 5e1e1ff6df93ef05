// What a handler remembers, in a SQLite file of its own: its state, and which entries that state is of. Both change in one
// transaction, so that a crash takes the state back to exactly those entries, and they are called again.
//
//   state          key TEXT: the key | value TEXT: as JSON
//   position       gateway TEXT: the gateway id, the key | offset INTEGER: every entry below it is done
//   done           offset INTEGER: done too, though some below it are not
//   user_version   1
//
// A transaction stays open over many calls, until `checkpoint`: a sync for each call would make them wait for the disk.

import { existsSync, mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { toError } from "../errors.ts";
import { toOffset } from "../reading.ts";
import type { Offset } from "../reading.ts";
import type { HandlerState } from "./handler.ts";

/** What a call has changed; undefined: deleted. Values are JSON. */
type Changes = ReadonlyMap<string, string | undefined>;

/** The state as one call sees it. */
export interface CallState extends Disposable {
  readonly state: HandlerState;
  readonly changes: Changes;
}

/** Synchronous: for worker threads. Throws StateFileError when the file cannot be used. */
export interface StateFile extends Disposable {
  /** There is state. Without any there is no file, and nothing to checkpoint. */
  readonly isOpen: boolean;
  /** Where its entries go on; undefined: it does not tell. */
  readonly position: Offset | undefined;
  /** The state is of this entry too, as of all below the position. */
  isDone(offset: Offset): boolean;
  /** For one call; disposed at its end. */
  begin(): CallState;
  /** Makes what a call has changed count, durably with the next checkpoint. StateLimit: it would be more than `maximumBytes`. */
  apply(changes: Changes): void;
  /** Everything that was applied is of the entries below `position` and of `ahead`. Durable when it returns. */
  checkpoint(position: Offset, ahead: readonly Offset[]): void;
  /** Forgets what was applied since the last checkpoint. */
  rollback(): void;
}

export interface StateOptions {
  /** Made with the first value. */
  readonly file: string;
  readonly gateway: string;
  /** Of all keys and values. */
  readonly maximumBytes: number;
}

/** The disk, or the file: not what the handler did. */
export class StateFileError extends Error {
  override readonly name = "StateFileError";
}

/** The handler wants to keep more than it may. */
export class StateLimit extends RangeError {
  override readonly name = "StateLimit";
}

const maximumKeyBytes = 256;
const maximumValueBytes = 64 * 1024;

const schema = `
  CREATE TABLE state (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE position (gateway TEXT NOT NULL PRIMARY KEY, "offset" INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE done ("offset" INTEGER NOT NULL PRIMARY KEY);
  PRAGMA user_version = 1;`;
const version = 1;

export function openState({ file, gateway, maximumBytes }: StateOptions): StateFile {
  const naming = <T>(work: () => T): T => {
    try {
      return work();
    } catch (cause) {
      throw new StateFileError(`${file}: ${toError(cause).message}`, { cause });
    }
  };
  let store = existsSync(file) ? naming(() => openStore(file, gateway)) : undefined;
  /** The state at the last checkpoint. */
  let checkpointed = { bytes: store?.bytes() ?? 0 };
  let bytes = checkpointed.bytes;

  const get = (key: string): string | undefined => (store === undefined ? undefined : naming(() => store?.get(key)));

  function checkGrowth(growth: number): void {
    if (growth <= 0 || bytes + growth <= maximumBytes) return;
    const would = `the state would have ${bytes + growth} bytes, more than the ${maximumBytes} of stateBytes`;
    throw new StateLimit(`${would}: delete what is old`);
  }

  return {
    get isOpen() {
      return store !== undefined;
    },
    get position() {
      return store?.position;
    },
    isDone: (offset) => store?.done.has(offset) ?? false,
    begin: () => openCallState({ get, entries: (prefix) => store?.entries(prefix) ?? [], checkGrowth }),
    apply(changes) {
      if (changes.size === 0) return;
      let growth = 0;
      for (const [key, value] of changes) growth += sizeOf(key, value) - sizeOf(key, get(key));
      checkGrowth(growth);
      naming(() => {
        store ??= openStore(file, gateway);
        store.write(changes);
      });
      bytes += growth;
    },
    checkpoint(position, ahead) {
      naming(() => store?.checkpoint(position, ahead));
      checkpointed = { bytes };
    },
    rollback() {
      naming(() => store?.rollback());
      bytes = checkpointed.bytes;
    },
    [Symbol.dispose]() {
      store?.[Symbol.dispose]();
      store = undefined;
    },
  };
}

const sizeOf = (key: string, value: string | undefined): number =>
  value === undefined ? 0 : Buffer.byteLength(key) + Buffer.byteLength(value);

interface Base {
  readonly get: (key: string) => string | undefined;
  readonly entries: (prefix: string) => Iterable<readonly [key: string, value: string]>;
  readonly checkGrowth: (growth: number) => void;
}

/** Changes are kept beside the file until the call is over. */
function openCallState({ get: getKept, entries, checkGrowth }: Base): CallState {
  const changes = new Map<string, string | undefined>();
  let growth = 0;
  let isOver = false;

  function check(key: string): void {
    if (isOver) throw new Error("the call has ended, and its state with it: await everything that it does");
    checkKey(key);
  }
  const get = (key: string): string | undefined => (changes.has(key) ? changes.get(key) : getKept(key));
  function put(key: string, text: string | undefined): void {
    const more = sizeOf(key, text) - sizeOf(key, get(key));
    if (more > 0) checkGrowth(growth + more);
    growth += more;
    changes.set(key, text);
  }

  const state: HandlerState = {
    get(key) {
      check(key);
      const text = get(key);
      return text === undefined ? undefined : (JSON.parse(text) as unknown);
    },
    set(key, value) {
      check(key);
      put(key, toText(key, value));
    },
    delete(key) {
      check(key);
      put(key, undefined);
    },
    entries(prefix = "") {
      check(prefix === "" ? "all" : prefix);
      const found = new Map<string, string | undefined>(entries(prefix));
      for (const [key, text] of changes) if (key.startsWith(prefix)) found.set(key, text);
      return [...found]
        .filter((entry): entry is [string, string] => entry[1] !== undefined)
        .sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
        .map(([key, text]) => [key, JSON.parse(text) as unknown] as const);
    },
  };
  return {
    state,
    changes,
    [Symbol.dispose]() {
      isOver = true;
    },
  };
}

function checkKey(key: string): void {
  if (typeof key !== "string" || key === "" || key.includes("\0") || !key.isWellFormed()) {
    throw new TypeError("a key of the state is a string of at least one character, without U+0000 and lone surrogates");
  }
  if (Buffer.byteLength(key) > maximumKeyBytes) {
    throw new StateLimit(`a key of the state has at most ${maximumKeyBytes} bytes: ${key.slice(0, 60)}…`);
  }
}

function toText(key: string, value: unknown): string {
  // Throws TypeError for a BigInt and what refers to itself.
  const text = JSON.stringify(value) as string | undefined;
  if (text === undefined) throw new TypeError(`JSON cannot hold the value of ${key}: use delete to forget a key`);
  const length = Buffer.byteLength(text);
  if (length > maximumValueBytes) {
    throw new StateLimit(
      `the value of ${key} has ${length} bytes of JSON, and at most ${maximumValueBytes} may be kept`,
    );
  }
  return text;
}

interface Store extends Disposable {
  /** Of the last checkpoint. */
  readonly position: Offset | undefined;
  readonly done: ReadonlySet<Offset>;
  bytes(): number;
  get(key: string): string | undefined;
  entries(prefix: string): Iterable<readonly [key: string, value: string]>;
  write(changes: Changes): void;
  checkpoint(position: Offset, ahead: readonly Offset[]): void;
  rollback(): void;
}

function openStore(file: string, gateway: string): Store {
  const db = openFile(file);
  const select = db.prepare("SELECT value FROM state WHERE key = ?");
  const from = db.prepare("SELECT key, value FROM state WHERE key >= ? ORDER BY key");
  const put = db.prepare("INSERT OR REPLACE INTO state (key, value) VALUES (?, ?)");
  const remove = db.prepare("DELETE FROM state WHERE key = ?");
  const move = db.prepare(`INSERT OR REPLACE INTO position (gateway, "offset") VALUES (?, ?)`);
  const addDone = db.prepare(`INSERT INTO done ("offset") VALUES (?)`);
  const row = db.prepare(`SELECT "offset" FROM position WHERE gateway = ?`).get(gateway);
  let position = row === undefined ? undefined : toOffset(Number(row["offset"]));
  let done: ReadonlySet<Offset> = new Set(
    position === undefined
      ? []
      : db
          .prepare(`SELECT "offset" FROM done`)
          .all()
          .map((one) => toOffset(Number(one["offset"]))),
  );
  const begin = (): void => {
    if (!db.isTransaction) db.exec("BEGIN IMMEDIATE");
  };
  return {
    get position() {
      return position;
    },
    get done() {
      return done;
    },
    bytes: () =>
      Number(db.prepare("SELECT sum(octet_length(key) + octet_length(value)) AS bytes FROM state").get()?.["bytes"]),
    get: (key) => select.get(key)?.["value"] as string | undefined,
    *entries(prefix) {
      for (const { key, value } of from.iterate(prefix) as Iterable<{ key: string; value: string }>) {
        if (!key.startsWith(prefix)) return;
        yield [key, value];
      }
    },
    write(changes) {
      begin();
      for (const [key, value] of changes) {
        if (value === undefined) remove.run(key);
        else put.run(key, value);
      }
    },
    checkpoint(to, ahead) {
      begin();
      move.run(gateway, to);
      if (done.size + ahead.length > 0) db.exec("DELETE FROM done");
      for (const offset of ahead) addDone.run(offset);
      db.exec("COMMIT");
      position = to;
      done = new Set(ahead);
    },
    // SQLite has rolled back itself after a full disk and the like.
    rollback: () => db.isTransaction && db.exec("ROLLBACK"),
    [Symbol.dispose]: () => db.close(),
  };
}

function openFile(file: string): DatabaseSync {
  mkdirSync(dirname(file), { recursive: true });
  const db = new DatabaseSync(file, { timeout: 5_000 });
  try {
    // FULL: the cursor, and with it the journal's trim, follows a checkpoint at once.
    db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
    const found = Number(db.prepare("PRAGMA user_version").get()?.["user_version"]);
    if (found > version) throw new Error(`its schema has version ${found}, written by a newer Sluice`);
    if (found === 0) db.exec(`BEGIN IMMEDIATE; ${schema} COMMIT`);
    return db;
  } catch (cause) {
    db.close();
    throw cause;
  }
}
