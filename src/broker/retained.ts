// Retained messages, in memory: the last one of each topic, bounded in number and bytes, found for a filter by a tree of
// topic levels. Aedes' own store tries every message against every filter (50,000 messages and 50 filters stop the loop
// for a third of a second); here a filter visits what it matches, and lets others work after so many.

import { setImmediate as turn } from "node:timers/promises";
import { isReservedTopic } from "./authorize.ts";
import type { Limits } from "./limits.ts";
import type { OutgoingMessage } from "./outgoing-message.ts";

export interface RetainedMessage extends Omit<OutgoingMessage, "subscriptionIds"> {
  readonly bytes: number;
}

interface Level {
  readonly below: Map<string, Level>;
  message: RetainedMessage | undefined;
}

/** Where a search is: the level, which name of the filter stands for what is there, and whether `#` has come. */
interface Place {
  readonly level: Level;
  readonly at: number;
  readonly rest: boolean;
}

/** The levels below one that a search is going through. */
interface Visit {
  readonly below: Iterator<[string, Level]>;
  readonly at: number;
  readonly rest: boolean;
}

const createLevel = (): Level => ({ below: new Map(), message: undefined });

/** Levels that a search visits before it lets others work: well below a millisecond. */
const SLICE = 500;
/** Messages that a sweep looks at. */
const SWEPT = 5_000;

export class RetainedMessages {
  readonly #limits: Pick<Limits, "retainedMessages" | "retainedBytes">;
  readonly #root = createLevel();
  readonly #byTopic = new Map<string, RetainedMessage>();
  #swept: Iterator<RetainedMessage> = this.#byTopic.values();
  #bytes = 0;
  /** The gateway's own topics, of a fixed number, are beside the limits. */
  #own = 0;

  constructor(limits: Pick<Limits, "retainedMessages" | "retainedBytes">) {
    this.#limits = limits;
  }

  /** Messages held without those of the gateway itself. */
  get size(): number {
    return this.#byTopic.size - this.#own;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Puts the message in the place of its topic's last; an empty payload removes that [MQTT-3.3.1-6]. Returns what keeps it out. */
  store(message: RetainedMessage): "retainedMessages" | "retainedBytes" | undefined {
    const { topic, bytes } = message;
    if (message.payload.length === 0) {
      this.#remove(topic);
      return undefined;
    }
    const before = this.#byTopic.get(topic);
    if (!isReservedTopic(topic)) {
      if (before === undefined && this.size >= this.#limits.retainedMessages) return "retainedMessages";
      if (this.#bytes - (before?.bytes ?? 0) + bytes > this.#limits.retainedBytes) return "retainedBytes";
      this.#bytes += bytes - (before?.bytes ?? 0);
    } else if (before === undefined) {
      this.#own += 1;
    }
    this.#byTopic.set(topic, message);
    let level = this.#root;
    for (const name of topic.split("/")) {
      const known = level.below.get(name) ?? createLevel();
      level.below.set(name, known);
      level = known;
    }
    level.message = message;
    return undefined;
  }

  /** The messages that match now; one that is stored meanwhile may be among them or not. */
  async *match(filter: string): AsyncGenerator<RetainedMessage> {
    const names = filter.split("/");
    // A wildcard in the first level does not match topics that begin with $ [MQTT-4.7.2-1].
    const hides = names[0] === "+" || names[0] === "#";
    const path: Visit[] = [];
    let visited = 0;
    for (let next: Place | undefined = { level: this.#root, at: 0, rest: false }; next; next = nextOf(path, hides)) {
      visited += 1;
      if (visited % SLICE === 0) await turn();
      const { level, at, rest } = next;
      const name = names[at];
      const takesAll = rest || name === "#"; // `a/#` matches `a` too, MQTT 5 section 4.7.1.2
      if ((takesAll || name === undefined) && level.message !== undefined && !this.#forgetIfExpired(level.message)) {
        yield level.message;
      }
      if (takesAll) path.push({ below: level.below.entries(), at, rest: true });
      else if (name === "+") path.push({ below: level.below.entries(), at: at + 1, rest: false });
      else if (name !== undefined) path.push({ below: only(level, name), at: at + 1, rest: false });
    }
  }

  /** Removes what has expired, a slice at a time. */
  sweep(): void {
    for (let count = 0; count < SWEPT; count += 1) {
      const next = this.#swept.next();
      if (next.done === true) {
        this.#swept = this.#byTopic.values();
        return;
      }
      this.#forgetIfExpired(next.value);
    }
  }

  #forgetIfExpired({ topic, expiresAt }: RetainedMessage): boolean {
    if (expiresAt === undefined || expiresAt > Date.now()) return false;
    this.#remove(topic);
    return true;
  }

  #remove(topic: string): void {
    const message = this.#byTopic.get(topic);
    if (message === undefined) return;
    this.#byTopic.delete(topic);
    if (isReservedTopic(topic)) this.#own -= 1;
    else this.#bytes -= message.bytes;
    const names = topic.split("/");
    const path: Level[] = [this.#root];
    for (const name of names) {
      const below = path.at(-1)?.below.get(name);
      if (below === undefined) return;
      path.push(below);
    }
    const last = path.at(-1);
    if (last !== undefined) last.message = undefined;
    for (let depth = names.length; depth > 0; depth -= 1) {
      const level = path[depth];
      if (level === undefined || level.message !== undefined || level.below.size > 0) return;
      path[depth - 1]?.below.delete(names[depth - 1] ?? "");
    }
  }
}

function* only({ below }: Level, name: string): Generator<[string, Level]> {
  const level = below.get(name);
  if (level !== undefined) yield [name, level];
}

/** The next place of a search, deepest first; `hides`: topics that begin with $ are not for it. */
function nextOf(path: Visit[], hides: boolean): Place | undefined {
  for (let visit = path.at(-1); visit !== undefined; visit = path.at(-1)) {
    const next = visit.below.next();
    if (next.done === true) {
      path.pop();
      continue;
    }
    const [name, level] = next.value;
    if (!hides || path.length > 1 || !name.startsWith("$")) return { level, at: visit.at, rest: visit.rest };
  }
  return undefined;
}
