// What goes wrong with bytes on their way, or is done to them: one stream of packets damaged in a few places.

import type { Random } from "./random.ts";

type Mutation = (random: Random, packets: Buffer[]) => void;

const place = (random: Random, packets: readonly Buffer[]): number => random.below(packets.length);

function change(random: Random, packets: Buffer[], to: (packet: Buffer) => Buffer): void {
  const index = place(random, packets);
  const packet = packets[index];
  if (packet !== undefined) packets[index] = to(Buffer.from(packet));
}

/** Values at which lengths and counters change their meaning. */
const edges = [0, 1, 2, 0x7f, 0x80, 0x81, 0xc0, 0xed, 0xfe, 0xff] as const;

export const mutations = {
  flipBit: (random, packets) =>
    change(random, packets, (packet) => {
      const at = random.below(packet.length);
      packet[at] = (packet[at] ?? 0) ^ (1 << random.below(8));
      return packet;
    }),
  setByte: (random, packets) =>
    change(random, packets, (packet) => {
      packet[random.below(packet.length)] = random.once(2) ? random.pick(edges) : random.below(256);
      return packet;
    }),
  /** The fixed header keeps its length: what follows is read as the rest. */
  cutShort: (random, packets) => change(random, packets, (packet) => packet.subarray(0, random.below(packet.length))),
  insertBytes: (random, packets) =>
    change(random, packets, (packet) => {
      const at = random.below(packet.length + 1);
      return Buffer.concat([packet.subarray(0, at), random.bytes(1 + random.below(8)), packet.subarray(at)]);
    }),
  removeBytes: (random, packets) =>
    change(random, packets, (packet) => {
      const at = random.below(packet.length);
      return Buffer.concat([packet.subarray(0, at), packet.subarray(at + 1 + random.below(4))]);
    }),
  /** The remaining length lies: by one, by much, or in more bytes than it needs. */
  lieAboutLength: (random, packets) =>
    change(random, packets, (packet) => {
      const lies = [
        Buffer.from([(packet[1] ?? 0) ^ 1]),
        Buffer.from([0x7f]),
        Buffer.from([(packet[1] ?? 0) | 0x80, 0]),
        Buffer.from([0xff, 0xff, 0xff, 0x7f]),
        Buffer.from([0xff, 0xff, 0xff, 0xff, 0x7f]),
        Buffer.from([0]),
      ] as const;
      return Buffer.concat([packet.subarray(0, 1), random.pick(lies), packet.subarray(2)]);
    }),
  /** Two bytes that may be the length of a string. */
  lieAboutText: (random, packets) =>
    change(random, packets, (packet) => {
      if (packet.length > 4)
        packet.writeUInt16BE(random.pick([0, 1, 0xff, 0xffff, packet.length]), 2 + random.below(packet.length - 3));
      return packet;
    }),
  otherType: (random, packets) =>
    change(random, packets, (packet) => {
      packet[0] = random.below(256);
      return packet;
    }),
  duplicate: (random, packets) => {
    const packet = packets[place(random, packets)];
    if (packet !== undefined)
      packets.splice(place(random, packets), 0, ...Array.from({ length: 1 + random.below(3) }, () => packet));
  },
  remove: (random, packets) => {
    if (packets.length > 1) packets.splice(place(random, packets), 1);
  },
  swap: (random, packets) => {
    const [from, to] = [place(random, packets), place(random, packets)];
    const [first, second] = [packets[from], packets[to]];
    if (first !== undefined && second !== undefined) {
      packets[from] = second;
      packets[to] = first;
    }
  },
  garbage: (random, packets) => {
    packets.splice(place(random, packets), 0, random.bytes(1 + random.below(100)));
  },
} as const satisfies Record<string, Mutation>;

type Name = keyof typeof mutations;
const mutationNames = Object.keys(mutations) as [Name, ...Name[]];

/** Damages a stream in one to four places; now and then it goes on in the middle of another one. */
export function mutate(random: Random, packets: readonly Buffer[], other: readonly Buffer[]): readonly Buffer[] {
  const damaged = [...packets];
  if (random.once(8))
    damaged.splice(place(random, damaged), damaged.length, ...other.slice(random.below(other.length)));
  for (let left = 1 + random.below(4); left > 0 && damaged.length > 0; left -= 1) {
    mutations[random.pick(mutationNames)](random, damaged);
  }
  return damaged;
}

/** The stream in the chunks in which it is written: at once, packet by packet, byte by byte, or cut anywhere. */
export function chunksOf(random: Random, packets: readonly Buffer[]): readonly Buffer[] {
  const whole = Buffer.concat(packets);
  switch (random.below(4)) {
    case 0:
      return [whole];
    case 1:
      return packets;
    case 2:
      return whole.length > 400 ? [whole] : Array.from(whole, (byte) => Buffer.from([byte]));
    default: {
      const cuts = Array.from({ length: 1 + random.below(6) }, () => random.below(whole.length + 1)).sort(
        (a, b) => a - b,
      );
      return [0, ...cuts].map((from, index) => whole.subarray(from, cuts[index] ?? whole.length));
    }
  }
}
