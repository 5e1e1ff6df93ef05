// Reads the ledger of a run, also of one that was killed.

import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { WORKER_FILE, type LedgerLine, type Run } from "./format.ts";
import { readLines } from "./lines.ts";
import { Messages, type MessageIndex } from "./messages.ts";
import { readRun } from "./run.ts";

export interface Ledger {
  readonly run: Run;
  readonly messages: Messages;
  /** Ids; a message has its device as a number. */
  readonly devices: readonly string[];
  readonly deviceNumbers: ReadonlyMap<string, number>;
  /** Everything that was sent before is in it. Infinity unless the simulator was killed. */
  readonly completeUntil: number;
  /** Lines that cannot be read: the files were damaged. */
  readonly damaged: number;
}

/** Rejects when the folder has no ledger. */
export async function readLedger(dir: string): Promise<Ledger> {
  const run = await readRun(dir).catch((cause: unknown) => {
    throw new Error(`${dir} has no ledger of a run: ${String(cause)}`, { cause });
  });
  const ledger = new Reading(run);
  for (const file of await findWorkerFiles(dir)) await ledger.readFile(file);
  return ledger.finish();
}

/** What the threads have written. */
export async function findWorkerFiles(dir: string): Promise<readonly string[]> {
  const names = (await readdir(dir)).filter((name) => WORKER_FILE.test(name)).toSorted();
  return names.map((name) => join(dir, name));
}

class Reading {
  readonly #run: Run;
  readonly #messages = new Messages();
  readonly #devices: string[] = [];
  #completeUntil = Number.POSITIVE_INFINITY;
  #damaged = 0;
  /** Of the present file: the first device's number, and of each device the places of its messages. */
  #firstDevice = 0;
  #places: MessageIndex[][] = [];

  constructor(run: Run) {
    this.#run = run;
  }

  async readFile(path: string): Promise<void> {
    this.#firstDevice = this.#devices.length;
    this.#places = [];
    let lastAt = this.#run.startedAt;
    for await (const lines of readLines(path)) {
      for (const text of lines) {
        const line = parseLine(text);
        if (line === undefined) {
          this.#damaged += 1;
          continue;
        }
        this.#take(line);
        if (line[0] !== "device") [, , , lastAt] = line;
      }
    }
    this.#completeUntil = Math.min(this.#completeUntil, lastAt);
  }

  finish(): Ledger {
    this.#messages.seal();
    const isWhole = this.#run.endedAt !== undefined;
    return {
      run: this.#run,
      messages: this.#messages,
      devices: this.#devices,
      deviceNumbers: new Map(this.#devices.map((id, number) => [id, number])),
      completeUntil: isWhole ? Number.POSITIVE_INFINITY : this.#completeUntil,
      damaged: this.#damaged,
    };
  }

  #take(line: LedgerLine): void {
    switch (line[0]) {
      case "device":
        this.#devices.push(line[2]);
        this.#places.push([]);
        break;
      case "sent": {
        const [, device, message, sentAt, qos, seq, , print, fault = "", reason = ""] = line;
        const spoilt = reason === "" ? undefined : { fault, reason };
        const index = this.#messages.add({ device: this.#firstDevice + device, seq, qos, sentAt, print, spoilt });
        (this.#places[device] ??= [])[message] = index;
        break;
      }
      case "again": {
        const [, device, message, , session] = line;
        const index = this.#placeOf(device, message);
        // In the same session a message of QoS 2 is known again.
        const isKnown = index !== undefined && session === 1 && this.#messages.qosOf(index) === 2;
        if (index !== undefined && !isKnown) this.#messages.allowCopy(index);
        break;
      }
      case "ack": {
        const [, device, message, , code = 0, told = ""] = line;
        const index = this.#placeOf(device, message);
        if (index !== undefined) this.#messages.answer(index, code >= 0x80 ? "refused" : "accepted", told);
        break;
      }
      case "fault":
      case "done":
        // PUBREC has said already that the message is taken; a fault alone changes no promise.
        break;
    }
  }

  /** Undefined: the line that says so is damaged. */
  #placeOf(device: number, message: number): MessageIndex | undefined {
    const index = this.#places[device]?.[message];
    if (index === undefined) this.#damaged += 1;
    return index;
  }
}

/** Undefined: it is damaged. */
export function parseLine(text: string): LedgerLine | undefined {
  try {
    return JSON.parse(text) as LedgerLine;
  } catch {
    return undefined;
  }
}
