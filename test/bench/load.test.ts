// The load generator against a server that is made to be wrong: a figure counts only when every PUBACK is the right one.

import { once } from "node:events";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { parser as createParser, type Packet } from "mqtt-packet";
import { describe, expect } from "vitest";
import { openLoad, type Load } from "../../bench/load-client.ts";
import type { LoadResult } from "../../bench/load-protocol.ts";
import { test as base } from "../fixtures.ts";

/** What the server sends for the `number`th PUBLISH of a connection, with the packet identifier that it has. */
type Answer = (packetId: number, number: number, socket: Socket) => readonly number[];

interface Fixtures {
  readonly openAgainst: (answer: Answer, size?: { connections: number; window: number }) => Promise<Server>;
}

interface Server {
  readonly load: Load;
  /** Packet identifiers of each connection, in the order of arrival. */
  readonly arrived: readonly (readonly number[])[];
}

const phase = { warmupMs: 20, measureMs: 150, pids: [process.pid], drainMs: 100 };
const honest: Answer = (packetId) => [packetId];
const silentAtLast: Answer = (packetId) => (packetId < 20 ? [packetId] : []);

const test = base.extend("openAgainst", async ({}, { onCleanup }): Promise<Fixtures["openAgainst"]> => {
  const stack = new AsyncDisposableStack();
  onCleanup(() => stack.disposeAsync());
  return async (answer, size = { connections: 3, window: 4 }) => {
    const arrived: number[][] = [];
    const server = createServer((socket) => serve(socket, answer, arrived));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    stack.defer(() => void server.close());
    const { port } = server.address() as AddressInfo;
    const load = stack.use(await openLoad({ port, payloadBytes: 150, ...size }, new AbortController().signal));
    return { load, arrived };
  };
});

function serve(socket: Socket, answer: Answer, arrived: number[][]): void {
  const own: number[] = [];
  arrived.push(own);
  const parser = createParser();
  parser.on("packet", (packet: Packet) => {
    if (packet.cmd === "connect") socket.write(Buffer.from([0x20, 2, 0, 0]));
    if (packet.cmd !== "publish") return;
    const packetId = packet.messageId ?? 0;
    own.push(packetId);
    socket.write(toPubacks(answer(packetId, own.length, socket)));
  });
  socket.on("data", (chunk) => parser.parse(chunk));
  socket.on("error", () => socket.destroy());
}

const toPubacks = (ids: readonly number[]): Buffer => Buffer.from(ids.flatMap((id) => [0x40, 2, id >> 8, id & 0xff]));

const rejection = (result: Promise<LoadResult>): Promise<unknown> => result.catch((error: unknown) => error);

describe("the load generator", () => {
  test("sends each packet identifier in turn and counts every PUBACK", async ({ openAgainst }) => {
    const { load, arrived } = await openAgainst(honest);
    const result = await load.saturate(phase);
    expect(result).toMatchObject({ leastInFlight: 1, sent: result.acknowledged });
    expect(result.messages).toBeGreaterThan(0);
    expect(arrived).toHaveLength(3);
    expect(arrived.flat()).toHaveLength(result.sent);
    for (const ids of arrived) expect(ids).toEqual(ids.map((_, index) => 1 + index));
  });

  test("sends at the rate that it is given, as bursts of each connection in turn", async ({ openAgainst }) => {
    const { load, arrived } = await openAgainst(honest);
    const { sent, acknowledged } = await load.pace({ ...phase, perSecond: 2000, burst: 2 });
    expect(acknowledged).toBe(sent);
    const counts = arrived.map((ids) => ids.length);
    for (const count of counts) expect(count % 2).toBe(0);
    expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(2);
  });

  test("counts the time of a paced message from when it was due", async ({ openAgainst }) => {
    const heldMs = 200;
    const { load } = await openAgainst(
      (packetId, number, socket) => {
        // Eight are all that a window of two lets go: what is due meanwhile waits, and is sent late.
        const ids = Array.from({ length: 8 }, (_, index) => packetId - 7 + index);
        if (number % 8 === 0) setTimeout(() => socket.write(toPubacks(ids)), heldMs);
        return [];
      },
      { connections: 1, window: 2 },
    );
    const paced = { ...phase, measureMs: 700, drainMs: 1000, mayStall: true };
    const { pubackMs } = await load.pace({ ...paced, perSecond: 100, burst: 1 });
    // The ninth is due at 80 ms, sent at 270 at the earliest, and acknowledged 200 ms later.
    expect(pubackMs.max).toBeGreaterThan(heldMs + 150);
  });

  test.for<readonly [string, Answer, RegExp]>([
    ["out of order", (packetId) => [packetId === 9 ? 10 : packetId === 10 ? 9 : packetId], /unexpected 4002000a/],
    ["left out", (packetId) => (packetId === 9 ? [] : [packetId]), /unexpected 4002000a/],
    ["sent twice", (packetId) => (packetId === 9 ? [9, 9] : [packetId]), /unexpected 40020009/],
    [
      "of a message that was not sent",
      (_packetId, number) => (number === 1 ? [1, 2, 3, 4, 5] : []),
      /unexpected 40020005 after 4/,
    ],
  ])("fails on a PUBACK that is %s", async ([, answer, message], { openAgainst }) => {
    const { load } = await openAgainst(answer);
    expect(String(await rejection(load.saturate(phase)))).toMatch(message);
  });

  test("fails when the last PUBACKs never come, unless a stall is what is measured", async ({ openAgainst }) => {
    const strict = await openAgainst(silentAtLast);
    expect(String(await rejection(strict.load.saturate(phase)))).toMatch(/12 messages were never acknowledged/);
    const lenient = await openAgainst(silentAtLast);
    const { sent, acknowledged } = await lenient.load.saturate({ ...phase, mayStall: true });
    expect(sent - acknowledged).toBe(12);
  });

  test("fails when the server closes a connection, also while nothing is sent", async ({ openAgainst }) => {
    const sockets: Socket[] = [];
    const { load } = await openAgainst((packetId, number, socket) => {
      if (number === 1) sockets.push(socket);
      return [packetId];
    });
    await load.saturate(phase);
    await load.check();
    const [first] = sockets;
    if (first === undefined) throw new Error("no connection sent anything");
    const closed = once(first, "close");
    first.end();
    await closed;
    await expect(load.check()).rejects.toThrow(/the server closed the connection/);
  });
});
