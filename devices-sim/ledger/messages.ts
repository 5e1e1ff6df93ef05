// The messages of a run in memory: columns of numbers, so that a million take 50 MB, and an index by what they say.

import type { Fingerprint } from "./fingerprint.ts";

/** A message's place in the columns. Those of a device are in the order in which it sent them. */
export type MessageIndex = number;

export interface SentMessage {
  readonly device: number;
  readonly seq: number;
  readonly qos: number;
  readonly sentAt: number;
  readonly print: Fingerprint;
  /** Undefined: a good one. */
  readonly spoilt: { readonly fault: string; readonly reason: string } | undefined;
}

const FIRST_CAPACITY = 1 << 16;
const GOOD = 0;

/** What is known of an answer: none yet, accepted (no code of MQTT 5 that is an error), or refused. */
export type Answer = "none" | "accepted" | "refused";
const answers: readonly Answer[] = ["none", "accepted", "refused"];

/** One place in each for a message. */
const createColumns = (capacity: number) => ({
  device: new Uint32Array(capacity),
  seq: new Float64Array(capacity),
  sentAt: new Float64Array(capacity),
  print: new Float64Array(capacity),
  /** How often it may be stored: once, and once more for each time that it was sent again to who cannot know it. */
  copies: new Uint8Array(capacity),
  qos: new Uint8Array(capacity),
  /** In `answers`. */
  answer: new Uint8Array(capacity),
  /** In `#names`; 0 for none. */
  fault: new Uint8Array(capacity),
  reason: new Uint8Array(capacity),
  told: new Uint8Array(capacity),
});

export class Messages {
  #count = 0;
  #columns = createColumns(FIRST_CAPACITY);
  readonly #names: string[] = [""];
  /** The next message of the same device that says the same; 0 for none, else its index + 1. */
  #next = new Uint32Array(0);
  /** Open addressing: the first message of a device that says something; 0 for none, else its index + 1. */
  #slots = new Uint32Array(0);

  get count(): number {
    return this.#count;
  }

  add({ device, seq, qos, sentAt, print, spoilt }: SentMessage): MessageIndex {
    if (this.#count === this.#columns.device.length) this.#grow();
    const index = this.#count;
    this.#count += 1;
    this.#columns.device[index] = device;
    this.#columns.seq[index] = seq;
    this.#columns.qos[index] = qos;
    this.#columns.sentAt[index] = sentAt;
    this.#columns.print[index] = print;
    this.#columns.copies[index] = 1;
    this.#columns.fault[index] = spoilt === undefined ? GOOD : this.#nameOf(spoilt.fault);
    this.#columns.reason[index] = spoilt === undefined ? 0 : this.#nameOf(spoilt.reason);
    return index;
  }

  /** It was sent again so that it may be there once more. */
  allowCopy(index: MessageIndex): void {
    this.#columns.copies[index] = Math.min(255, this.copiesOf(index) + 1);
  }

  /** `told` is the reason that MQTT 5 gave. */
  answer(index: MessageIndex, answer: Answer, told: string): void {
    this.#columns.answer[index] = answers.indexOf(answer);
    this.#columns.told[index] = this.#nameOf(told);
  }

  deviceOf = (index: MessageIndex): number => this.#columns.device[index] ?? 0;
  seqOf = (index: MessageIndex): number => this.#columns.seq[index] ?? 0;
  qosOf = (index: MessageIndex): number => this.#columns.qos[index] ?? 0;
  sentAtOf = (index: MessageIndex): number => this.#columns.sentAt[index] ?? 0;
  copiesOf = (index: MessageIndex): number => this.#columns.copies[index] ?? 1;
  answerOf = (index: MessageIndex): Answer => answers[this.#columns.answer[index] ?? 0] ?? "none";
  isGood = (index: MessageIndex): boolean => this.#columns.fault[index] === GOOD;
  faultOf = (index: MessageIndex): string => this.#names[this.#columns.fault[index] ?? 0] ?? "";
  /** For which it is to be rejected; "" for a good one. */
  reasonOf = (index: MessageIndex): string => this.#names[this.#columns.reason[index] ?? 0] ?? "";
  toldOf = (index: MessageIndex): string => this.#names[this.#columns.told[index] ?? 0] ?? "";

  /** After the last `add`; `find` needs it. */
  seal(): void {
    this.#next = new Uint32Array(this.#count);
    let size = 1024;
    while (size < 2 * this.#count) size *= 2;
    this.#slots = new Uint32Array(size);
    // Backwards, so that each is put before the later ones that say the same.
    for (let index = this.#count - 1; index >= 0; index -= 1) {
      const slot = this.#slotOf(this.deviceOf(index), this.#columns.print[index] ?? 0);
      this.#next[index] = this.#slots[slot] ?? 0;
      this.#slots[slot] = index + 1;
    }
  }

  /** The first message of the device that says this. */
  find(device: number, print: Fingerprint): MessageIndex | undefined {
    const found = this.#slots[this.#slotOf(device, print)] ?? 0;
    return found === 0 ? undefined : found - 1;
  }

  /** The next one of the same device that says the same. */
  nextTwin(index: MessageIndex): MessageIndex | undefined {
    const next = this.#next[index] ?? 0;
    return next === 0 ? undefined : next - 1;
  }

  #slotOf(device: number, print: Fingerprint): number {
    const mask = this.#slots.length - 1;
    let slot = (Math.imul(device + 1, 0x9e3779b1) ^ print) & mask;
    for (;;) {
      const there = this.#slots[slot] ?? 0;
      if (there === 0) return slot;
      if (this.#columns.print[there - 1] === print && this.#columns.device[there - 1] === device) return slot;
      slot = (slot + 1) & mask;
    }
  }

  #nameOf(name: string): number {
    const known = this.#names.indexOf(name);
    if (known !== -1) return known;
    // What a broker tells may be anything: what has no number any more is as good as another reason.
    if (this.#names.length === 255) return 255;
    return this.#names.push(name) - 1;
  }

  #grow(): void {
    const grown = createColumns(2 * this.#columns.device.length);
    for (const name of Object.keys(grown) as (keyof typeof grown)[]) grown[name].set(this.#columns[name]);
    this.#columns = grown;
  }
}
