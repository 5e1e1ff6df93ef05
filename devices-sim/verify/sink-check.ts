// Holds the rows of one sink against the ledger: each acknowledged good message is there, once, in order and as it was sent, and
// no spoilt one is.

import { fingerprintOfValue, type Fingerprint } from "../ledger/fingerprint.ts";
import type { MessageIndex } from "../ledger/messages.ts";
import type { Ledger } from "../ledger/reader.ts";
import type { Row } from "./row.ts";
import { createRunTime, type RunTime } from "./run-time.ts";

/** What a sink has of a run. The names are the contract of `--json`. */
export interface SinkVerdict {
  readonly sink: string;
  /** Good messages that were acknowledged: PUBACK, or PUBREC with QoS 2, without an error. */
  readonly acknowledged: number;
  /** Good messages that are there, acknowledged or not; each counts once. */
  readonly found: number;
  /** Acknowledged, and neither there nor there in another form. */
  readonly lost: number;
  /** Rows that are one too many: the message was sent once, or sent again in a session that knows it. */
  readonly duplicated: number;
  /** There for the first time behind a later one of their device. */
  readonly reordered: number;
  /** Rows of the run that say what no message of their device has said. */
  readonly corrupted: number;
  /** Spoilt messages that are there. */
  readonly spoiltStored: number;
  /** No promise is broken by what follows. Rows that are there again because the device sent the message again. */
  readonly resent: number;
  /** Rows that a sink which promises "at least once" has again. */
  readonly redelivered: number;
  /** Of the found, those whose acknowledgement never came, or that have none (QoS 0). */
  readonly unacknowledged: number;
  /** Rows of other devices and of other runs. */
  readonly foreign: number;
  /** The first of what breaks a promise, in words. */
  readonly examples: readonly string[];
  /** Why it could not be read; then the rest is what could be. */
  readonly error?: string;
}

const MOST_EXAMPLES = 10;

type Count = Exclude<keyof SinkVerdict, "sink" | "examples" | "error" | "acknowledged" | "lost">;

export class SinkCheck {
  readonly #ledger: Ledger;
  readonly #once: () => boolean;
  readonly #time: RunTime;
  readonly #counts: Record<Count, number> = {
    found: 0,
    duplicated: 0,
    reordered: 0,
    corrupted: 0,
    spoiltStored: 0,
    resent: 0,
    redelivered: 0,
    unacknowledged: 0,
    foreign: 0,
  };
  readonly #examples: string[] = [];
  /** By message: rows that are there, at most 255. */
  readonly #rows: Uint8Array;
  /** By message: the offset of its first row. */
  readonly #offsets: Float64Array;
  /** By message: 1 when it is there in another form. */
  readonly #changed: Uint8Array;
  /** By lane and device: the last message that is there, + 1. */
  readonly #last = new Map<string, Uint32Array>();
  /** By device and seq, made when the first row is found that says something else. */
  #bySeq: ReadonlyMap<string, MessageIndex> | undefined;
  readonly #acknowledged: number;
  #acknowledgedThere = 0;
  #taken = 0;

  /** `once`: see Source. */
  constructor(ledger: Ledger, once: () => boolean) {
    const { messages } = ledger;
    this.#ledger = ledger;
    this.#once = once;
    this.#time = createRunTime(ledger);
    this.#rows = new Uint8Array(messages.count);
    this.#offsets = new Float64Array(messages.count);
    this.#changed = new Uint8Array(messages.count);
    let acknowledged = 0;
    for (let message = 0; message < messages.count; message += 1) {
      if (this.#isAcknowledged(message)) acknowledged += 1;
    }
    this.#acknowledged = acknowledged;
  }

  /** Every acknowledged good message is there. */
  get isComplete(): boolean {
    return this.#acknowledgedThere === this.#acknowledged;
  }

  /** Rows that were taken. */
  get taken(): number {
    return this.#taken;
  }

  take(rows: readonly Row[]): void {
    this.#taken += rows.length;
    for (const row of rows) {
      const device = this.#ledger.deviceNumbers.get(row.device);
      if (device === undefined || this.#time.isBefore(row.receivedAt)) this.#counts.foreign += 1;
      else this.#takeRow(row, device);
    }
  }

  /** `error`: why the sink could not be read to its end. */
  verdict(sink: string, error?: string): SinkVerdict {
    const lost = this.#acknowledged - this.#acknowledgedThere;
    return {
      sink,
      acknowledged: this.#acknowledged,
      ...this.#counts,
      lost,
      examples: [...this.#examples, ...this.#lostExamples(MOST_EXAMPLES - this.#examples.length)],
      ...(error !== undefined && { error }),
    };
  }

  #takeRow(row: Row, device: number): void {
    const first = this.#ledger.messages.find(device, printOf(row.data));
    if (first === undefined) {
      this.#takeUnknown(row, device);
      return;
    }
    const message = this.#choose(first, row.offset);
    const rows = this.#rows[message] ?? 0;
    this.#rows[message] = Math.min(255, rows + 1);
    if (rows === 0) this.#takeFirst(row, message);
    else if (this.#offsets[message] === row.offset && !this.#once()) {
      // It does not use up what a device that sends again may have.
      this.#rows[message] = rows;
      this.#counts.redelivered += 1;
    } else if (this.#offsets[message] !== row.offset && rows < this.#ledger.messages.copiesOf(message)) {
      this.#counts.resent += 1;
    } else this.#breach("duplicated", message, `is there once more at offset ${row.offset}`);
  }

  /**
   * Of messages that say the same: the one that has this place already, else the first that is not there, a good one before one
   * that was spoilt by its topic alone, else the last.
   */
  #choose(first: MessageIndex, offset: number): MessageIndex {
    const { messages } = this.#ledger;
    let missing: MessageIndex | undefined;
    let last = first;
    for (let twin: MessageIndex | undefined = first; twin !== undefined; twin = messages.nextTwin(twin)) {
      if (this.#rows[twin] === 0) {
        if (missing === undefined || (!messages.isGood(missing) && messages.isGood(twin))) missing = twin;
      } else if (this.#offsets[twin] === offset) return twin;
      last = twin;
    }
    return missing ?? last;
  }

  #takeFirst({ lane, offset }: Row, message: MessageIndex): void {
    const { messages, devices } = this.#ledger;
    this.#offsets[message] = offset;
    if (!messages.isGood(message)) {
      this.#breach("spoiltStored", message, `is ${messages.faultOf(message)}, and there at offset ${offset}`);
      return;
    }
    this.#counts.found += 1;
    if (!this.#isAcknowledged(message)) this.#counts.unacknowledged += 1;
    else if (this.#changed[message] === 0) this.#acknowledgedThere += 1;
    let last = this.#last.get(lane);
    if (last === undefined) this.#last.set(lane, (last = new Uint32Array(devices.length)));
    const device = messages.deviceOf(message);
    if (message + 1 > (last[device] ?? 0)) last[device] = message + 1;
    else this.#breach("reordered", message, `is behind a later one, at offset ${offset}`);
  }

  /** Nothing that the device sent says this: it was changed, or is of another run. */
  #takeUnknown({ data, offset, receivedAt, device: id }: Row, device: number): void {
    if (!this.#time.isWithin(receivedAt)) {
      this.#counts.foreign += 1;
      return;
    }
    const message = this.#findBySeq(device, data);
    if (message === undefined || this.#rows[message] !== 0 || this.#changed[message] !== 0) {
      this.#counts.corrupted += 1;
      this.#tell(`${id}: what is at offset ${offset} was never sent: ${JSON.stringify(data)}`);
      return;
    }
    this.#changed[message] = 1;
    if (this.#isAcknowledged(message)) this.#acknowledgedThere += 1;
    this.#breach("corrupted", message, `is another one at offset ${offset}: ${JSON.stringify(data)}`);
  }

  /** The good message that has the number which the data has. */
  #findBySeq(device: number, data: unknown): MessageIndex | undefined {
    const { messages } = this.#ledger;
    const { seq } = (data ?? {}) as { readonly seq?: unknown };
    if (typeof seq !== "number") return undefined;
    if (this.#bySeq === undefined) {
      const bySeq = new Map<string, MessageIndex>();
      for (let message = 0; message < messages.count; message += 1) {
        if (messages.isGood(message)) bySeq.set(`${messages.deviceOf(message)} ${messages.seqOf(message)}`, message);
      }
      this.#bySeq = bySeq;
    }
    return this.#bySeq.get(`${device} ${seq}`);
  }

  #isAcknowledged(message: MessageIndex): boolean {
    const { messages } = this.#ledger;
    return messages.isGood(message) && messages.answerOf(message) === "accepted";
  }

  #breach(count: Count, message: MessageIndex, what: string): void {
    this.#counts[count] += 1;
    this.#tell(`${describe(this.#ledger, message)} ${what}`);
  }

  #tell(example: string): void {
    if (this.#examples.length < MOST_EXAMPLES) this.#examples.push(example.slice(0, 300));
  }

  #lostExamples(most: number): readonly string[] {
    const examples: string[] = [];
    const { count } = this.#ledger.messages;
    for (let message = 0; message < count && examples.length < most && !this.isComplete; message += 1) {
      const isThere = this.#rows[message] !== 0 || this.#changed[message] !== 0;
      if (!isThere && this.#isAcknowledged(message)) examples.push(`${describe(this.#ledger, message)} is lost`);
    }
    return examples;
  }
}

/** `sim-000017: message 12, sent at 2026-11-29T08:12:31.123Z,`. */
export function describe({ messages, devices }: Pick<Ledger, "messages" | "devices">, message: MessageIndex): string {
  const sentAt = new Date(messages.sentAtOf(message)).toISOString();
  return `${devices[messages.deviceOf(message)]}: message ${messages.seqOf(message)}, sent at ${sentAt},`;
}

/** What cannot be fingerprinted was not sent. */
function printOf(data: unknown): Fingerprint {
  try {
    return fingerprintOfValue(data);
  } catch {
    return -1;
  }
}
