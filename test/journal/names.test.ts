import { expect, test } from "vitest";
import { NameCache, type Names } from "../../src/journal/names.ts";

/** Reads as a record would have it: a client id and a topic, from the middle of a chunk. */
function read(cache: NameCache, clientId: string, topic: string): Names {
  const bytes = Buffer.from(`..${clientId}${topic}....`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const end = 2 + Buffer.byteLength(clientId + topic);
  return cache.read({ bytes, view }, 2, end, Buffer.byteLength(clientId) | (Buffer.byteLength(topic) << 16));
}

test("more names than there is room for come back right, each time", () => {
  const cache = new NameCache();
  for (let pass = 0; pass < 2; pass += 1) {
    for (let index = 0; index < 20_000; index += 1) {
      const [clientId, topic] = [`d${index}`, `devices/${index % 7}/é${index}`];
      expect(read(cache, clientId, topic)).toEqual({ clientId, topic, deviceId: clientId });
    }
  }
});

test("names are told apart by their bytes also when they have the same hash", () => {
  const [known, ...others] = createCollision();
  expect(others.length).toBeGreaterThan(2);
  const cache = new NameCache();
  for (const clientId of [known, ...others, known]) {
    expect(read(cache, clientId, "topic")).toEqual({ clientId, topic: "topic", deviceId: clientId });
  }
});

test("the strings of a name that is kept are made once", () => {
  const cache = new NameCache();
  expect(read(cache, "device", "topic")).toBe(read(cache, "device", "topic"));
});

const rotate = (hash: number): number => (hash << 5) | (hash >>> 27);
const mix = (hash: number, word: number): number => Math.imul(rotate(hash) ^ word, 0x9e3779b1);

/**
 * Client ids of eight letters, digits or underscores that have the same hash. It takes four bytes a step, so that the
 * second half can undo the first.
 */
function createCollision(): [string, ...string[]] {
  const lengths = 8 | (5 << 16);
  const afterFirst = (half: string): number => rotate(mix(lengths, Buffer.from(half).readInt32LE()));
  const known = "deviceid";
  const goal = afterFirst(known.slice(0, 4)) ^ Buffer.from(known.slice(4)).readInt32LE();
  const found: [string, ...string[]] = [known];
  for (let number = 0; number < 36 ** 4 && found.length < 6; number += 1) {
    const half = number.toString(36).padStart(4, "0");
    const rest = Buffer.alloc(4);
    rest.writeInt32LE(afterFirst(half) ^ goal);
    if (/^\w{4}$/.test(rest.toString("latin1"))) found.push(half + rest.toString("latin1"));
  }
  return found;
}
