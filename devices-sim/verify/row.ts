// What the ledger is compared with: the contract of what reads a sink.

/** A reading as a sink has it. */
export interface Row {
  /** Rows of a lane are in the order in which the sink got them, so that each device's are in the order of its messages. */
  readonly lane: string;
  /** The gateway's place for it; a row that comes again has the same one. */
  readonly offset: number;
  readonly device: string;
  /** By the gateway's clock, in milliseconds since 1970. */
  readonly receivedAt: number;
  /** As JSON.parse returns it; the text itself where the sink has no JSON. */
  readonly data: unknown;
}

/** Reads a sink from its beginning and then what is added to it. */
export interface Source extends AsyncDisposable {
  /** The sink promises each reading once; false: at least once, so that a row may come again. */
  readonly once: boolean;
  /**
   * What has been added since the last call. Rejects when the sink cannot be read, or is not there yet; the next call goes on.
   * Rejects with an IncomparableError when what is there can never be compared.
   */
  read(): AsyncIterable<readonly Row[]>;
  /** Rejects as `read` does, and reads nothing. Left out where everything can be compared. */
  check?(): Promise<void>;
}

/** What is there is not what devices said, but made of it: whoever named it wants to name something else. */
export class IncomparableError extends Error {}

/** The same of a table; in these layouts a reading is spread over columns or rows, and the ledger has fingerprints of whole ones. */
export const toIncomparableTable = (table: string): IncomparableError =>
  new IncomparableError(
    `the table ${table} has the layout ${table === "metrics" ? "narrow" : "wide"}, in which no reading is whole: only the layout document can be compared`,
  );

/** A text that is not JSON is its own value, which nothing that was sent is equal to. */
export function parseData(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
