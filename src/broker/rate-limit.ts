// How fast one client may send: a bucket of tokens each for messages and bytes, filled by the clock and not by a timer. It may
// be overdrawn by one packet; while it is, the client is not read. One second's worth may come at once.

import type { LimitName } from "../events.ts";
import { packetType } from "./frames.ts";
import type { Limits } from "./limits.ts";

type Rates = Pick<Limits, "messagesPerSecond" | "bytesPerSecond">;

export class RateLimit {
  readonly #rates: Rates;
  readonly #onExceeded: (limit: LimitName) => void;
  #isExceeded = false;
  #messages: number;
  #bytes: number;
  #atMs: number;

  /** `onExceeded` is called whenever the client begins to be too fast. `nowMs` is performance.now(), here and below. */
  constructor(rates: Rates, nowMs: number, onExceeded: (limit: LimitName) => void) {
    this.#rates = rates;
    this.#onExceeded = onExceeded;
    this.#messages = rates.messagesPerSecond;
    this.#bytes = rates.bytesPerSecond;
    this.#atMs = nowMs;
  }

  take(firstByte: number, bytes: number): void {
    if (firstByte >> 4 === packetType.publish) this.#messages -= 1;
    this.#bytes -= bytes;
  }

  /** True while the client must not be read. */
  isExceeded(nowMs: number): boolean {
    const { messagesPerSecond, bytesPerSecond } = this.#rates;
    const seconds = (nowMs - this.#atMs) / 1000;
    this.#atMs = nowMs;
    this.#messages = Math.min(messagesPerSecond, this.#messages + seconds * messagesPerSecond);
    this.#bytes = Math.min(bytesPerSecond, this.#bytes + seconds * bytesPerSecond);
    const tooMany = messagesPerSecond > 0 && this.#messages < 0;
    const isExceeded = tooMany || (bytesPerSecond > 0 && this.#bytes < 0);
    if (isExceeded && !this.#isExceeded) this.#onExceeded(tooMany ? "messagesPerSecond" : "bytesPerSecond");
    this.#isExceeded = isExceeded;
    return isExceeded;
  }
}

/** Without a limit, which is the default, no bucket is needed. */
export const hasRateLimit = ({ messagesPerSecond, bytesPerSecond }: Rates): boolean =>
  messagesPerSecond > 0 || bytesPerSecond > 0;

interface Throttled {
  proceed(): void;
}

/** The clients that wait for tokens: they are asked to go on every now and then, while there are any. */
export interface Throttle extends Disposable {
  wait(client: Throttled): void;
}

/** A tenth of what may come at once, so that a client at its limit loses none of its rate. */
const INTERVAL_MS = 50;

export function openThrottle(): Throttle {
  let waiting = new Set<Throttled>();
  let timer: NodeJS.Timeout | undefined;
  const run = (): void => {
    timer = undefined;
    const ready = waiting;
    waiting = new Set();
    for (const client of ready) client.proceed();
  };
  return {
    wait(client) {
      waiting.add(client);
      timer ??= setTimeout(run, INTERVAL_MS);
    },
    [Symbol.dispose]: () => clearTimeout(timer),
  };
}
