// That each spoilt message which was answered was rejected, for the right reason: by what the gateway's inbox of rejected messages
// has, or by what MQTT 5 told the device.

import { existsSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { fingerprintOfPayload, type Fingerprint } from "../ledger/fingerprint.ts";
import type { MessageIndex } from "../ledger/messages.ts";
import type { Ledger } from "../ledger/reader.ts";
import { createRunTime, type RunTime } from "./run-time.ts";
import { describe } from "./sink-check.ts";

/** The names are the contract of `--json`. */
export interface RejectionVerdict {
  readonly source: string;
  /** Spoilt messages that were answered, with an acknowledgement or a refusal. */
  readonly spoilt: number;
  /** Of them, rejected for the reason that their fault has. */
  readonly rejected: number;
  readonly wrongReason: number;
  readonly notRejected: number;
  /** Good messages that were rejected. */
  readonly goodRejected: number;
  /** How many of the oldest the inbox has let go: as many may be missing without anything being broken. */
  readonly forgotten: number;
  readonly examples: readonly string[];
  readonly error?: string;
}

const MOST_EXAMPLES = 10;

/** One message that was rejected. */
interface Rejected {
  readonly device: string;
  readonly receivedAt: number;
  readonly print: Fingerprint;
  readonly reason: string;
}

export class RejectionCheck {
  readonly #ledger: Ledger;
  readonly #time: RunTime;
  /** By message: for which reason. */
  readonly #reasons = new Map<MessageIndex, string>();

  constructor(ledger: Ledger) {
    this.#ledger = ledger;
    this.#time = createRunTime(ledger);
  }

  /** What MQTT 5 told. */
  takeAnswers(): void {
    const { messages } = this.#ledger;
    for (let message = 0; message < messages.count; message += 1) {
      const told = messages.toldOf(message);
      if (messages.answerOf(message) === "refused") this.#reasons.set(message, told);
    }
  }

  take({ device: id, receivedAt, print, reason }: Rejected): void {
    const { messages, deviceNumbers } = this.#ledger;
    const device = deviceNumbers.get(id);
    if (device === undefined || this.#time.isBefore(receivedAt)) return;
    let chosen: MessageIndex | undefined;
    // Of messages that say the same, such as nothing at all, the first that has none yet.
    for (let twin = messages.find(device, print); twin !== undefined; twin = messages.nextTwin(twin)) {
      if (!this.#reasons.has(twin)) {
        chosen = twin;
        break;
      }
    }
    if (chosen !== undefined) this.#reasons.set(chosen, reason);
  }

  /** Every spoilt message that was answered was rejected. */
  get isComplete(): boolean {
    return this.verdict("").notRejected === 0;
  }

  /** Messages that are known to be rejected. */
  get taken(): number {
    return this.#reasons.size;
  }

  verdict(
    source: string,
    { forgotten = 0, error }: { forgotten?: number; error?: string | undefined } = {},
  ): RejectionVerdict {
    const { messages } = this.#ledger;
    const counts = { spoilt: 0, rejected: 0, wrongReason: 0, notRejected: 0, goodRejected: 0 };
    const examples: string[] = [];
    const tell = (message: MessageIndex, what: string): void => {
      if (examples.length < MOST_EXAMPLES) examples.push(`${describe(this.#ledger, message)} ${what}`);
    };
    for (let message = 0; message < messages.count; message += 1) {
      const reason = this.#reasons.get(message);
      if (messages.isGood(message)) {
        if (reason === undefined) continue;
        counts.goodRejected += 1;
        tell(message, `is a good one, and was rejected as ${reason}`);
      } else if (
        messages.answerOf(message) !== "none" &&
        !(isIgnored(messages.reasonOf(message)) && reason === undefined)
      ) {
        counts.spoilt += 1;
        const kind = messages.faultOf(message);
        const right = messages.reasonOf(message);
        if (reason === right) counts.rejected += 1;
        else if (reason === undefined) {
          counts.notRejected += 1;
          tell(message, `is ${kind}, and was not rejected`);
        } else {
          counts.wrongReason += 1;
          tell(message, `is ${kind}, and was rejected as ${reason}, not as ${right}`);
        }
      }
    }
    return { source, ...counts, forgotten, examples, ...(error !== undefined && { error }) };
  }
}

/** Of a message to a topic of no stream: it is acknowledged and never heard of again. */
const isIgnored = (reason: string): boolean => reason === "ignored";

export interface RejectsInbox extends Disposable {
  /** What has come since the last call. Throws when it cannot be read, or is not there yet. */
  read(): Iterable<Rejected>;
  /** How many gave way for want of room. */
  readonly forgotten: number;
}

const NEXT_ROWS = "SELECT id, device, received_at, reason, payload FROM rejects WHERE id > ? ORDER BY id LIMIT 1000";

/** The gateway's `rejects.db`. */
export function openRejects(path: string): RejectsInbox {
  let db: DatabaseSync | undefined;
  let last = 0;
  return {
    *read() {
      if (db === undefined && !existsSync(path)) throw new Error("there is no such file");
      db ??= new DatabaseSync(path, { readOnly: true, timeout: 5000 });
      for (;;) {
        const rows = db.prepare(NEXT_ROWS).all(last);
        if (rows.length === 0) return;
        for (const row of rows) {
          last = Number(row["id"]);
          yield {
            device: String(row["device"]),
            receivedAt: Number(row["received_at"]),
            print: fingerprintOfPayload(row["payload"] as Uint8Array),
            reason: String(row["reason"]),
          };
        }
      }
    },
    get forgotten() {
      return Number(db?.prepare("SELECT total(dropped) AS n FROM rejects_cursor").get()?.["n"] ?? 0);
    },
    [Symbol.dispose]: () => db?.close(),
  };
}
