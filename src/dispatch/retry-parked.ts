// Parked records that an operator wants tried again, beside live delivery: `sluice parked retry` marks them, and the worker
// of their sink or handler finds the marks here.

import { toError } from "../errors.ts";
import { toOffset } from "../reading.ts";
import type { Batch, Entry, Offset } from "../reading.ts";
import type { Registry } from "../validate/registry.ts";
import { describeRejection } from "./feed.ts";
import type { InboxItem } from "./inbox.ts";
import type { Parking, StillParked } from "./parked.ts";

export interface RetrierOptions {
  readonly parking: Pick<Parking, "takeMarked" | "settle">;
  readonly registry: Registry;
  /** Names of the streams whose readings the consumer is given; undefined: all. */
  readonly only?: ReadonlySet<string> | undefined;
  /**
   * Resolves when each entry is taken, or refused by a call of `refuse`; held: what was taken is durable later. When it
   * rejects none counts as taken.
   */
  readonly attempt: (batch: Batch, refuse: (offset: Offset, reason: string) => void) => Promise<"all" | "held">;
  /** The file of parked records could not be looked at: no reason to hold up live delivery. */
  readonly onError: (error: Error) => void;
  /** The gateway stops: what fails now keeps its mark. */
  readonly abort: AbortSignal;
}

export interface Retrier {
  /**
   * Between two batches. Looks for marks once a second, and while there are some at each call. True: some were tried, and
   * there may be more. Rejects like `attempt`.
   */
  turn(): Promise<boolean>;
  /** The sink has some that are not durable yet. */
  readonly isHeld: boolean;
  /** What was held is durable. */
  settle(): void;
}

/** From one look to the next. */
const lookMs = 1_000;

export function createRetrier(options: RetrierOptions): Retrier {
  const { parking, attempt, abort } = options;
  let lookAtMs = 0;
  let held: (() => void) | undefined;

  async function tryAgain(items: readonly InboxItem[]): Promise<void> {
    const { entries, failed } = toEntries(items, options);
    const gateway = items[0]?.gateway ?? "";
    const next = toOffset((items.at(-1)?.offset ?? 0) + 1);
    const attempts = new Map(items.map((item) => [item.offset, (item.attempts ?? 0) + 1]));
    const refuse = (offset: Offset, error: string): void => {
      failed.set(offset, { offset, error, attempts: attempts.get(offset) ?? 1 });
    };
    const settle = (): void => {
      const taken = items.map(({ offset }) => offset).filter((offset) => !failed.has(offset));
      parking.settle(gateway, taken, [...failed.values()]);
    };
    try {
      const batch = { gateway, entries, next, replay: true };
      if (entries.length === 0 || (await attempt(batch, refuse)) === "all") settle();
      else held = settle;
    } catch (cause) {
      if (!abort.aborted) {
        for (const { offset } of entries) if (!failed.has(offset)) refuse(offset, toError(cause).message);
        settle();
      }
      throw cause;
    }
  }

  function look(): readonly InboxItem[] {
    try {
      return parking.takeMarked();
    } catch (cause) {
      options.onError(toError(cause));
      return [];
    }
  }

  return {
    get isHeld() {
      return held !== undefined;
    },
    async turn() {
      if (held !== undefined || performance.now() < lookAtMs) return false;
      const items = look();
      if (items.length === 0) lookAtMs = performance.now() + lookMs;
      else await tryAgain(items);
      return items.length > 0;
    },
    settle() {
      const settleHeld = held;
      held = undefined;
      settleHeld?.();
    },
  };
}

/** By today's streams. */
function toEntries(
  items: readonly InboxItem[],
  { registry, only }: RetrierOptions,
): { readonly entries: readonly Entry[]; readonly failed: Map<Offset, StillParked> } {
  const entries: Entry[] = [];
  const failed = new Map<Offset, StillParked>();
  for (const { offset, stream, message, attempts = 0 } of items) {
    const result = registry.read(message, stream);
    let error: string | undefined;
    if (only?.has(stream) === false) error = `it is of stream ${stream}, whose readings the consumer is not given`;
    else if (result.kind === "rejected") error = describeRejection(result.rejection);
    else entries.push({ offset, reading: result.reading });
    if (error !== undefined) failed.set(offset, { offset, error, attempts });
  }
  return { entries, failed };
}
