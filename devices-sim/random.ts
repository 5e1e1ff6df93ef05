/** A stream of numbers in [0, 1). The same seed gives the same stream, so a run can be repeated. */
export type Random = () => number;

/**
 * A stream of its own for each `path` below a seed, e.g. (seed, device, purpose): drawing from one does not move another.
 * The generator is mulberry32 (32 bits of state, period 2^32): plenty for sensor noise, useless for secrets.
 */
export function createRandom(seed: number, ...path: readonly number[]): Random {
  let state = seed >>> 0;
  for (const step of path) state = (mix(state) + Math.imul(step + 1, 0x9e3779b1)) >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    return mix(state) / 2 ** 32;
  };
}

/** A normally distributed number with mean 0 and standard deviation 1 (Box–Muller). */
export function gaussian(random: Random): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

function mix(value: number): number {
  let t = Math.imul(value ^ (value >>> 15), value | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return (t ^ (t >>> 14)) >>> 0;
}
