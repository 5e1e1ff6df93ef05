// Source addresses: between one address of this machine and one port of a broker the system has about 28,000 ports, so a larger
// fleet comes from several addresses. Of 127.0.0.0/8 every address is this machine.

import { isIP, isIPv4 } from "node:net";
import { InvalidArgumentError } from "commander";

/** Addresses that follow each other. */
export interface AddressRange {
  readonly first: string;
  /** 1 with IPv6. */
  readonly count: number;
}

/** `10.0.0.5`, `10.0.0.5-10.0.0.9`, `10.0.0.0/24` (without the network's own and the broadcast address), or several with commas. */
export function addresses(text: string): readonly AddressRange[] {
  return text.split(",").map((part) => {
    const range = toRange(part.trim());
    if (range !== undefined) return range;
    throw new InvalidArgumentError(
      `expected addresses like 127.0.0.2, 127.0.0.2-127.0.0.9 or 127.0.0.0/24, with commas between them; '${part}' is none.`,
    );
  });
}

/** The address of device number `index`: they take turns. Undefined: the system chooses. */
export function addressOf(ranges: readonly AddressRange[], index: number): string | undefined {
  const count = ranges.reduce((sum, range) => sum + range.count, 0);
  if (count === 0) return undefined;
  let left = index % count;
  for (const range of ranges) {
    if (left < range.count) return range.count === 1 ? range.first : toText(toNumber(range.first) + left);
    left -= range.count;
  }
  return undefined;
}

function toRange(text: string): AddressRange | undefined {
  if (isIP(text) !== 0) return { first: text, count: 1 };
  const [address = "", bits] = text.split("/");
  if (bits !== undefined) return toNetwork(address, /^\d{1,2}$/.test(bits) ? Number(bits) : 33);
  const [first = "", last = ""] = text.split("-");
  if (!isIPv4(first) || !isIPv4(last) || toNumber(last) < toNumber(first)) return undefined;
  return { first, count: toNumber(last) - toNumber(first) + 1 };
}

function toNetwork(address: string, bits: number): AddressRange | undefined {
  if (!isIPv4(address) || bits > 32) return undefined;
  const size = 2 ** (32 - bits);
  const start = Math.floor(toNumber(address) / size) * size;
  return size <= 2 ? { first: toText(start), count: size } : { first: toText(start + 1), count: size - 2 };
}

const toNumber = (ip: string): number => ip.split(".").reduce((value, byte) => value * 256 + Number(byte), 0);

const toText = (value: number): string => [24, 16, 8, 0].map((shift) => (value >>> shift) & 0xff).join(".");
