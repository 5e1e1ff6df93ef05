// How fast a position moves: an exponentially weighted moving average, sampled by whoever has a timer.

/** After this time a step has two thirds of its weight. */
const windowS = 10;

export interface RateMeter {
  /** Per second; 0 until two samples were taken. */
  readonly perSecond: number;
  sample(position: number, nowMs: number): void;
}

export function createRateMeter(): RateMeter {
  let last: { readonly position: number; readonly nowMs: number } | undefined;
  let perSecond = 0;
  return {
    get perSecond() {
      return perSecond;
    },
    sample(position, nowMs) {
      const elapsedS = last === undefined ? 0 : (nowMs - last.nowMs) / 1000;
      if (last !== undefined && elapsedS > 0) {
        const now = Math.max(0, position - last.position) / elapsedS;
        perSecond = now + Math.exp(-elapsedS / windowS) * (perSecond - now);
      }
      if (last === undefined || elapsedS > 0) last = { position, nowMs };
    },
  };
}

/** Seconds until a lag is gone; undefined: at these rates it is never. */
export function toEtaSeconds(lag: number, outPerSecond: number, inPerSecond: number): number | undefined {
  if (lag === 0) return 0;
  const gain = outPerSecond - inPerSecond;
  return gain > 0 ? lag / gain : undefined;
}
