// Every error that Sluice reports to an operator: its code, its sentence and a hint what to do.

export const errors = {
  SLUICE_CONFIG_NOT_FOUND: {
    sentence: "The configuration file does not exist",
    hint: "Give the path of a configuration file, or run from a folder that has config/gateway.ts.",
  },
  SLUICE_CONFIG_UNREADABLE: {
    sentence: "The configuration file could not be loaded",
    hint: "It is a TypeScript module; only types may be erased, so no enum, namespace or parameter property.",
  },
  SLUICE_CONFIG_INVALID: {
    sentence: "The configuration is not valid",
    hint: "Every problem is listed with its place and what was expected; `sluice check` shows them without starting.",
  },
  SLUICE_PORT_IN_USE: {
    sentence: "The port is already in use",
    hint: "Stop the other program, or choose another port with SLUICE_MQTT_PORT or SLUICE_HTTP_PORT.",
  },
  SLUICE_LISTEN_FAILED: {
    sentence: "The listener could not be opened",
    hint: "Check host and port; ports below 1024 need a privilege.",
  },
  SLUICE_DATA_DIR: {
    sentence: "The data directory cannot be used",
    hint: "It must be a folder that the gateway may read and write: set SLUICE_DATA_DIR.",
  },
  SLUICE_JOURNAL_LOCKED: {
    sentence: "Another process uses this journal",
    hint: "Only one gateway may run on a data directory. Stop the other one, or set SLUICE_DATA_DIR.",
  },
  SLUICE_JOURNAL_VERSION: {
    sentence: "The journal was written by a newer version of Sluice",
    hint: "Start the newer version, or let it drain its sinks and start with an empty data directory.",
  },
  SLUICE_JOURNAL_WRITE: {
    sentence: "The journal cannot write to its disk",
    hint: "No message is acknowledged until it can. Check free space, mount state and the disk itself.",
  },
  SLUICE_JOURNAL_DAMAGED: {
    sentence: "The journal's files cannot be read as one journal",
    hint: "Put back the folder as it was, or move its *.seg files away; see docs/journal-format.md.",
  },
  SLUICE_INBOX: {
    sentence: "The file of parked records or rejected messages cannot be used",
    hint: "It is a SQLite database: look at its permissions, at the disk, and with `sqlite3` at what it holds.",
  },
  SLUICE_PASSWORD_FILE: {
    sentence: "The password file cannot be used",
    hint: "Make it with `mosquitto_passwd -c FILE USER`; it has one `user:$7$…` line per user.",
  },
  SLUICE_CONSUMER_FAILED: {
    sentence: "A sink or handler could not be started",
    hint: "Its worker is started again with backoff; nothing is lost, its records wait in the journal.",
  },
} as const satisfies Record<string, { readonly sentence: string; readonly hint: string }>;

export type ErrorCode = keyof typeof errors;

/** A broken gateway: thrown, never returned. `detail` says what exactly; the table above says what it means. */
export class SluiceError extends Error {
  readonly code: ErrorCode;
  readonly hint: string;

  constructor(code: ErrorCode, detail: string, options?: ErrorOptions) {
    super(`${errors[code].sentence}: ${detail}`, options);
    this.name = "SluiceError";
    this.code = code;
    this.hint = errors[code].hint;
  }
}

/** The end of a closed union: the compiler refuses the call while a member is not handled. */
export function unreachable(value: never): never {
  throw new TypeError(`unreachable: ${String(value)}`);
}

/** What a server's "error" event before "listening" means; `place` is what was to be opened, as `mqtt host:port`. */
export const toListenError = (place: string, cause: NodeJS.ErrnoException): SluiceError =>
  cause.code === "EADDRINUSE"
    ? new SluiceError("SLUICE_PORT_IN_USE", place, { cause })
    : new SluiceError("SLUICE_LISTEN_FAILED", `${place}: ${cause.message}`, { cause });

export const toError = (cause: unknown): Error => (cause instanceof Error ? cause : new Error(String(cause)));
