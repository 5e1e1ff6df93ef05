// Calls in lanes: within a lane one after the other, of all lanes together no more than there are places.

export interface Lanes {
  /**
   * Calls `work` when all work that its lane was given before has settled and a place is free. Settles as `work` does; what
   * fails holds up nothing behind it.
   */
  run(lane: string, work: () => Promise<void>): Promise<void>;
  /** Work that has not ended. */
  readonly size: number;
}

export function createLanes(places: number): Lanes {
  /** By lane: settled when the lane is empty. */
  const tails = new Map<string, Promise<void>>();
  /** Work whose turn it is in its lane. */
  const waiting: (() => void)[] = [];
  let free = places;
  let size = 0;

  async function inPlace(work: () => Promise<void>): Promise<void> {
    if (free > 0) free -= 1;
    else {
      const { promise, resolve } = Promise.withResolvers<void>();
      waiting.push(resolve);
      await promise; // the place is handed over and not freed in between
    }
    try {
      await work();
    } finally {
      size -= 1;
      const next = waiting.shift();
      if (next === undefined) free += 1;
      else next();
    }
  }

  return {
    run(lane, work) {
      size += 1;
      const before = tails.get(lane);
      const running = before === undefined ? inPlace(work) : before.then(() => inPlace(work));
      const tail = running
        .catch(() => {}) // the caller is told
        .finally(() => {
          if (tails.get(lane) === tail) tails.delete(lane);
        });
      tails.set(lane, tail);
      return running;
    },
    get size() {
      return size;
    },
  };
}
