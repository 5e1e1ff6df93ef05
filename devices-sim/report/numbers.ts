// How the terminal and the page write numbers.

/** `12,345`. */
export const toCount = (count: number): string => Math.round(count).toLocaleString("en");

/** `0:05`, `12:30`, `1:02:03`. */
export function toClock(ms: number): string {
  const seconds = Math.round(ms / 1000);
  const [hours, minutes, rest] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const tail = String(rest).padStart(2, "0");
  return hours === 0 ? `${minutes}:${tail}` : `${hours}:${String(minutes).padStart(2, "0")}:${tail}`;
}

/** ` (empty 3, wrong-type 1)`, without what is 0; nothing when all are. */
export function inBrackets(counts: Readonly<Record<string, number>>): string {
  const parts = Object.entries(counts).flatMap(([name, count]) => (count > 0 ? `${name} ${count}` : []));
  return parts.length === 0 ? "" : ` (${parts.join(", ")})`;
}

export const totalOf = (counts: Readonly<Record<string, number>>): number =>
  Object.values(counts).reduce((sum, count) => sum + count, 0);

export const sum = (numbers: readonly number[]): number => numbers.reduce((total, each) => total + each, 0);

/** With one decimal place at most. */
export const tenths = (value: number): number => Math.round(value * 10) / 10;
