// A connection to PostgreSQL: what this sink needs of the library, how it ends, and what its errors mean.

import { Socket } from "node:net";
import type { Connection as Wire, Submittable } from "pg";
import { toError } from "../../errors.ts";
import { toReason } from "../connection-error.ts";
import { SinkError } from "../sink.ts";
import { readTls, toTlsHint } from "../tls.ts";
import type { TlsSettings } from "../tls.ts";

export interface ServerSettings {
  /** A name, an address, or the folder of a Unix domain socket. */
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
  readonly password?: string | undefined;
  readonly tls?: TlsSettings | undefined;
}

type Row = Readonly<Record<string, unknown>>;

export interface Connection {
  query(text: string, values?: readonly unknown[]): Promise<readonly Row[]>;
  /**
   * Sends statements and, without waiting, what each COPY … FROM STDIN among them reads: one round trip, and one transaction
   * that is rolled back as a whole when one of them fails. What a copy throws fails it too, and is what this rejects with.
   */
  run(statements: readonly string[], copies?: readonly CopyMessages[]): Promise<void>;
  /** Rejects with a sentence for the operator; when the signal aborts, with its reason, and the connection is gone then. */
  during<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T>;
  /** Waiting calls reject. */
  readonly destroy: () => void;
}

/** All messages that one COPY reads, CopyDone the last. */
type CopyMessages = AsyncIterable<Buffer>;

/** Connects. Rejects with a sentence that names the server. */
export async function openConnection(settings: ServerSettings, name: string, signal: AbortSignal): Promise<Connection> {
  const { host, port, database, user, password = "" } = settings;
  const { Client } = await import("pg");
  const ssl = settings.tls === undefined ? false : { ...(await readTls(settings.tls)) };
  const socket = new Socket();
  const client = new Client({
    host,
    port,
    database,
    user,
    ssl,
    // A function, or else an empty one makes the library look into the environment and ~/.pgpass.
    password: () => password,
    application_name: `sluice ${name}`,
    stream: () => socket,
  });
  // What breaks the connection rejects the call that waits, or the next one.
  client.on("error", () => {});
  const place = `${host.startsWith("/") ? `${host}, port ${port}` : `${host}:${port}`}, database ${database}`;

  const connection: Connection = {
    query: async (text, values) => (await client.query<Row>(text, values === undefined ? undefined : [...values])).rows,
    run: (statements, copies = []) =>
      new Promise((resolve, reject) => {
        client.query(toSubmittable(statements.join("; "), copies, { resolve, reject }));
      }),
    async during(until, work) {
      until.addEventListener("abort", connection.destroy, { once: true });
      try {
        until.throwIfAborted();
        return await work();
      } catch (cause) {
        throw until.aborted ? toEnd(place, until) : explain(place, cause);
      } finally {
        until.removeEventListener("abort", connection.destroy);
      }
    },
    destroy: () => void socket.destroy(),
  };
  try {
    await connection.during(signal, () => client.connect());
  } catch (cause) {
    connection.destroy();
    throw cause;
  }
  return connection;
}

interface Settle {
  readonly resolve: () => void;
  readonly reject: (cause: unknown) => void;
}

/** What the library asks of a query of one's own. */
function toSubmittable(text: string, copies: readonly CopyMessages[], { resolve, reject }: Settle): Submittable {
  let isOver = false;
  let failure: unknown;
  const settle = (cause?: unknown): void => {
    isOver = true;
    if (failure === undefined && cause === undefined) resolve();
    else reject(failure ?? cause);
  };
  /** The server reads on where it needs it, and passes over what a failed statement has left. */
  async function feed(stream: Wire["stream"]): Promise<void> {
    try {
      for (const messages of copies) {
        for await (const bytes of messages) {
          // The next query may have begun, which would take it for its own.
          if (isOver) return;
          stream.write(bytes);
          stream.uncork();
        }
      }
    } catch (cause) {
      failure = cause;
      if (!isOver) stream.write(COPY_FAIL);
    }
    stream.uncork();
  }
  return {
    submit(wire: Wire) {
      wire.stream.cork();
      wire.query(text);
      void feed(wire.stream);
    },
    handleReadyForQuery: () => settle(),
    handleError: settle,
    handleCopyInResponse: ignore,
    handleCommandComplete: ignore,
    handleRowDescription: ignore,
    handleDataRow: ignore,
  } as Submittable;
}

/** CopyFail, with an empty reason. */
const COPY_FAIL = Buffer.from([0x66, 0, 0, 0, 5, 0]);

function ignore(): void {}

/** What the server says of a failure: https://www.postgresql.org/docs/current/errcodes-appendix.html. */
export interface ServerError extends Error {
  readonly code: string;
  readonly table?: string;
  readonly column?: string;
  readonly constraint?: string;
}

export const toServerError = (cause: unknown): ServerError | undefined =>
  cause instanceof Error && "severity" in cause && "code" in cause && typeof cause.code === "string"
    ? (cause as ServerError)
    : undefined;

/** By SQLSTATE, or its class; what only a person can mend. */
const hints: Readonly<Record<string, string>> = {
  "0A": "The server cannot do what this sink needs of it.",
  "23514":
    "The partition of a day is missing and cannot be made: attach the detached table of that day again, or rename it.",
  "28": "Check user and password, and the server's pg_hba.conf; when it wants TLS, give `tls`.",
  "3D": "Make the database, or check `database`.",
  "3F": "Make the schema, or check `schema`.",
  "42": "The tables must be as this sink makes them; give it a schema of its own.",
  "42501":
    "The user needs SELECT, INSERT and UPDATE on sluice_cursor, SELECT and INSERT on the tables, and CREATE on the schema and ownership of the tables where something is to be made.",
  "42P01": "A table was deleted: it is made again when the sink is opened again.",
};

const transientHints: Readonly<Record<string, string>> = {
  "23502": "Another writer has moved the position of this sink: it is read again.",
  "25006": "It is a standby or read-only: the address must lead to the primary.",
  "53100": "Its disk is full: make space, and writing goes on.",
  "53200": "It has no memory left.",
  "53300": "It has no connection left: raise its max_connections, or use a pool.",
  "55P03": "Another transaction holds a lock on what is to be written.",
  "57014": "It was cancelled, or took too long.",
};

const find = (table: Readonly<Record<string, string>>, code: string): string | undefined =>
  table[code] ?? table[code.slice(0, 2)];

function explain(place: string, cause: unknown): SinkError {
  const message = toReason(cause);
  if (cause instanceof SinkError) return new SinkError(cause.kind, `${place}: ${message}`, { cause });
  const { code = "" } = toServerError(cause) ?? {};
  const hint = toConnectionHint(cause, message) ?? find(hints, code);
  if (hint !== undefined) return new SinkError("misconfigured", `${place}: ${message}. ${hint}`, { cause });
  return new SinkError("transient", [`${place}: ${message}.`, find(transientHints, code)].filter(Boolean).join(" "), {
    cause,
  });
}

/** What the library says itself. */
function toConnectionHint(cause: unknown, message: string): string | undefined {
  if (/does not support SSL/.test(message)) return "The server speaks no TLS: leave `tls` out, or set ssl = on there.";
  if (/^SASL: .*password/.test(message)) return "The server wants a password: give `password`.";
  return toTlsHint(cause);
}

function toEnd(place: string, { reason }: AbortSignal): Error {
  const error = toError(reason);
  if (error.name !== "TimeoutError") return error;
  return new SinkError("transient", `${place}: it does not answer.`, { cause: reason });
}
