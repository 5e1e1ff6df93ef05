// Clients that mean ill, or are broken, at the door of a running gateway. Beside each of them a healthy device publishes:
// it must be served all the time, and afterwards the gateway holds no more than before.

import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { expect } from "vitest";
import { openRawClient, publish, type RawClient } from "../broker/harness.ts";
import { counted, packet, properties, u16 } from "../broker/wire.ts";
import { climate, type GatewayProcess, test as base } from "../fixtures.ts";
import { openControl } from "../fuzz/control.ts";
import { measure, type Memory, withProbe } from "../fuzz/memory.ts";
import { startGateway } from "../gateway-process.ts";
import { errorsOf, until } from "./observe.ts";

const config = `
import { defineGateway, defineStream, json, tcp, z } from "sluice";
const climate = defineStream({
  name: "climate", topic: "devices/{device}/telemetry", codec: json, schema: z.looseObject({ ts: z.int(), seq: z.int() }),
});
export default defineGateway({
  listeners: [tcp({ port: 1883 })],
  streams: [climate],
  limits: { connectTimeoutMs: 1_000, maximumConnections: 300, maximumPacketBytes: 65_536, sessions: 100 },
});
`;

const test = base.extend("gateway", { scope: "file" }, async ({}, { onCleanup }) => {
  const dir = await mkdtemp(join(tmpdir(), "sluice-hostile-"));
  const env = { ...withProbe, SLUICE_LOG_LEVEL: "info" };
  const gateway = await startGateway({ dataDir: join(dir, "data"), config, env });
  onCleanup(async () => {
    await gateway.end("SIGKILL");
    await rm(dir, { recursive: true, force: true });
  });
  return gateway;
});

const megabyte = 2 ** 20;
/** What may be left behind: compiled code and the allocator's own, not anything per client. */
const allowed = { heapUsed: 6 * megabyte, arrayBuffers: 4 * megabyte, sockets: 2 } as const;
const servedWithinMs = 10_000;

/** Does it, with a healthy device beside it, and compares what the gateway holds before and after. */
async function survive(gateway: GatewayProcess, name: string, attack: () => Promise<void>): Promise<void> {
  await using control = await openControl(gateway.mqttPort, `healthy-${name}`, servedWithinMs);
  await until("the device is served", () => control.acknowledged > 0);
  const before = await measure(gateway, 1);
  await Promise.race([attack(), control.served]);
  const acknowledged = control.acknowledged;
  await Promise.race([
    until("the device is still served", () => control.acknowledged > acknowledged + 1),
    control.served,
  ]);
  const after = await measure(gateway, 1);
  for (const key of ["heapUsed", "arrayBuffers", "sockets"] as const satisfies readonly (keyof Memory)[])
    expect(after[key] - before[key], key).toBeLessThanOrEqual(allowed[key]);
  expect(errorsOf(gateway)).toEqual([]);
}

async function openSockets({ mqttPort }: GatewayProcess, count: number): Promise<readonly Socket[]> {
  const sockets = Array.from({ length: count }, () => connect(mqttPort, "127.0.0.1"));
  for (const socket of sockets) socket.on("error", () => {}).resume();
  await Promise.all(sockets.map((socket) => once(socket, "connect")));
  return sockets;
}

/** Resolves when the socket is closed, however: `once` would reject on a reset. */
const closedOf = (socket: Socket): Promise<"closed"> =>
  new Promise((resolve) => {
    if (socket.closed) resolve("closed");
    else socket.once("close", () => resolve("closed"));
  });

const toConnect = (clientId: string, flags = 2, keepAliveS = 0): Buffer =>
  packet(0x10, counted("MQTT"), 4, flags, u16(keepAliveS), counted(clientId));

/** Runs it for each number below `count`, `parallel` at a time. */
async function forEach(count: number, parallel: number, run: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  const work = async (): Promise<void> => {
    while (next < count) await run(next++);
  };
  await Promise.all(Array.from({ length: parallel }, work));
}

test("a CONNECT that drips in byte by byte is ended after the time for a CONNECT", async ({ gateway }) => {
  await survive(gateway, "drip", async () => {
    const sockets = await openSockets(gateway, 200);
    const whole = toConnect("x".repeat(60));
    let at = 0;
    const timer = setInterval(() => {
      for (const socket of sockets) if (socket.writable) socket.write(whole.subarray(at, at + 1));
      at += 1;
    }, 100);
    await Promise.all(sockets.map(closedOf));
    clearInterval(timer);
    expect(at).toBeLessThan(whole.length);
  });
});

test("a PUBLISH that drips in byte by byte delays nobody", async ({ gateway }) => {
  await survive(gateway, "drip-publish", async () => {
    await forEach(100, 100, async (index) => {
      const client = await openRawClient(gateway.mqttPort);
      await client.connect({ clientId: `drip-${index}` });
      const topic = `devices/drip-${index}/telemetry`;
      const whole = packet(0x32, counted(topic), u16(1), climate(index));
      for (const byte of whole) {
        client.send(Buffer.from([byte]));
        await delay(5);
      }
      await client.next("puback");
      client.socket.destroy();
      await client.closed;
    });
  });
});

test("connections that say nothing are ended, before CONNECT and after it", async ({ gateway }) => {
  await survive(gateway, "silent", async () => {
    const never = await openSockets(gateway, 100);
    const silent = await openSockets(gateway, 100);
    for (const [index, socket] of silent.entries()) socket.write(toConnect(`silent-${index}`, 2, 1));
    await Promise.all([...never, ...silent].map(closedOf));
  });
});

test("a flood of CONNECT packets fills the places there are and no more", async ({ gateway }) => {
  await survive(gateway, "flood", async () => {
    let accepted = 0;
    const sockets: Socket[] = [];
    await forEach(2_000, 100, async (index) => {
      const socket = connect(gateway.mqttPort, "127.0.0.1");
      socket.on("error", () => {});
      sockets.push(socket);
      socket.write(toConnect(`flood-${index}`));
      const answered = new Promise<"answered">((resolve) => void socket.once("data", () => resolve("answered")));
      if ((await Promise.race([answered, closedOf(socket)])) === "answered") accepted += 1;
    });
    const open = sockets.filter((socket) => !socket.destroyed);
    for (const socket of open) socket.destroy();
    expect(accepted).toBeGreaterThan(0);
    expect(open.length).toBeLessThan(300);
  });
});

const largest = (first: number): Buffer => Buffer.from([first, 0xff, 0xff, 0xff, 0x7f]);

test("a length of 256 MB costs its sender the connection and the gateway nothing", async ({ gateway }) => {
  await survive(gateway, "length", async () => {
    const sockets = await openSockets(gateway, 100);
    for (const socket of sockets) socket.write(largest(0x10));
    await Promise.all(sockets.map(closedOf));
    await forEach(100, 50, async (index) => {
      const client = await openRawClient(gateway.mqttPort);
      await client.connect({ clientId: `length-${index}`, protocolVersion: index % 2 === 0 ? 4 : 5 });
      client.send(largest(0x30), Buffer.alloc(100_000));
      await client.closed;
    });
  });
});

test("packets of the largest size that never end are held by what has come of them", async ({ gateway }) => {
  await survive(gateway, "unfinished", async () => {
    const clients: RawClient[] = [];
    await forEach(200, 50, async (index) => {
      const client = await openRawClient(gateway.mqttPort);
      await client.connect({ clientId: `unfinished-${index}` });
      client.send(
        Buffer.concat([packet(0x30, Buffer.alloc(65_000)).subarray(0, 4), counted("news"), Buffer.alloc(10)]),
      );
      clients.push(client);
    });
    expect((await measure(gateway, 201)).arrayBuffers).toBeLessThan(200 * megabyte);
    for (const client of clients) client.socket.destroy();
  });
});

test("10,000 reconnections a minute, of sessions that last, are all served", async ({ gateway }) => {
  const devices = 50;
  const rounds = 33; // 1,650 in ten seconds
  await survive(gateway, "reconnect", async () => {
    const sinceMs = performance.now();
    await forEach(devices * rounds, devices, async (index) => {
      const client = await openRawClient(gateway.mqttPort);
      const clientId = `again-${index % devices}`;
      await client.connect({
        clientId,
        clean: false,
        will: { topic: "gone", payload: Buffer.from(clientId), qos: 1, retain: false },
      });
      client.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: `commands/${clientId}`, qos: 1 }] });
      await client.next("suback");
      client.send(publish({ topic: `devices/${clientId}/telemetry`, payload: climate(index), messageId: 2 }));
      await client.next("puback");
      client.socket.destroy();
      await client.closed;
      await delay(Math.max(0, sinceMs + (index / (devices * rounds)) * 9_900 - performance.now()));
    });
  });
});

test("what clients of ever new names leave behind is forgotten with them", async ({ gateway }) => {
  const leave = (from: number) => async () => {
    await forEach(600, 20, async (index) => {
      const client = await openRawClient(gateway.mqttPort);
      await client.connect({ clientId: `new-${from + index}`, protocolVersion: 5 });
      client.send(publish({ topic: "news", qos: 2, messageId: 1, payload: "x".repeat(20_000) }));
      await client.next("pubrec");
      const one = packet(0x82, u16(1), properties(), counted(`news/${index}`), 2);
      client.send(one);
      await client.next("suback");
      client.socket.destroy();
      await client.closed;
    });
  };
  await survive(gateway, "warm", leave(0));
  await survive(gateway, "names", leave(1_000));
});

/** Sends what takes buffers and keeps none, so that what comes after it lies in a new slab of Node's pool. */
async function stir(client: RawClient): Promise<void> {
  client.send(...Array.from({ length: 4 }, () => publish({ topic: "nobody", qos: 0, payload: "x".repeat(20_000) })));
  client.send({ cmd: "pingreq" });
  await client.next("pingresp");
}

test("short messages that are kept cost what they are long, not a slab of the pool each", async ({ gateway }) => {
  await survive(gateway, "slabs", async () => {
    const client = await openRawClient(gateway.mqttPort);
    await client.connect({ clientId: "keeper", clean: false });
    client.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "kept/#", qos: 1 }] });
    await client.next("suback");
    client.send({ cmd: "subscribe", messageId: 2, subscriptions: [{ topic: "devices/kept/#", qos: 1 }] });
    await client.next("suback");
    client.socket.destroy();
    await client.closed;
    const sender = await openRawClient(gateway.mqttPort);
    await sender.connect({ clientId: "sender" });
    for (let index = 0; index < 200; index += 1) {
      sender.send(publish({ topic: `kept/${index}`, payload: "x".repeat(100), messageId: 1, retain: index % 2 === 0 }));
      await sender.next("puback");
      sender.send(publish({ topic: "devices/kept/telemetry", payload: climate(index), messageId: 2 }));
      await sender.next("puback");
      await stir(sender);
    }
    sender.socket.destroy();
    await sender.closed;
  });
});

test("messages of ever new lengths leave nothing behind", async ({ gateway }) => {
  await survive(gateway, "lengths", async () => {
    const client = await openRawClient(gateway.mqttPort);
    await client.connect({ clientId: "lengths", protocolVersion: 5 });
    client.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "lengths", qos: 1 }] });
    await client.next("suback");
    for (let length = 200; length < 500; length += 1) {
      client.send(publish({ topic: "lengths", payload: "x".repeat(length), messageId: 1 }));
      await client.next("puback");
      const { messageId = 0 } = await client.next("publish");
      client.send({ cmd: "puback", messageId });
      await stir(client);
    }
    client.socket.destroy();
    await client.closed;
  });
});
