// How far the journal is durable, who is told, and who waits for it.

import type { Offset } from "../reading.ts";

/** Functions that are told, and must not throw. */
export class Listeners<Args extends readonly unknown[]> {
  readonly #all = new Set<(...args: Args) => void>();

  add(listener: (...args: Args) => void): Disposable {
    this.#all.add(listener);
    return { [Symbol.dispose]: () => this.#all.delete(listener) };
  }

  tell(...args: Args): void {
    for (const listener of this.#all) listener(...args);
  }
}

interface Waiter {
  readonly to: Offset;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

export class Watermark {
  readonly #listeners = new Listeners<[to: Offset]>();
  #position: Offset;
  #waiters: readonly Waiter[] = [];

  constructor(position: Offset) {
    this.#position = position;
  }

  /** Everything below is durable. */
  get position(): Offset {
    return this.#position;
  }

  onAdvance(listener: (to: Offset) => void): Disposable {
    return this.#listeners.add(listener);
  }

  /** Resolves when the position is `to` or above, rejects with what `fail` is given before that. */
  reached(to: Offset): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#waiters = [...this.#waiters, { to, resolve, reject }];
    return promise;
  }

  /** Moves, and tells nobody yet: what else has changed with it can be put right before. */
  set(to: Offset): void {
    this.#position = to;
  }

  tell(): void {
    const to = this.#position;
    this.#listeners.tell(to);
    const done = this.#waiters.filter((waiter) => waiter.to <= to);
    if (done.length === 0) return;
    this.#waiters = this.#waiters.filter((waiter) => waiter.to > to);
    for (const { resolve } of done) resolve();
  }

  fail(error: Error): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const { reject } of waiters) reject(error);
  }
}
