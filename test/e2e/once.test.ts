// P2: a message is stored once, although the gateway is killed between any two packets of its handshake.

import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect } from "vitest";
import { openRawClient, publish, type RawClient } from "../broker/harness.ts";
import { climate, type GatewayProcess, test } from "../fixtures.ts";
import { setTimeout as delay } from "node:timers/promises";
import { readRows } from "./rows.ts";

const withDedupe = `
import { defineGateway, defineStream, json, sqlite, tcp, z } from "sluice";
const climate = defineStream({
  name: "climate",
  topic: "devices/{device}/telemetry",
  codec: json,
  schema: z.looseObject({ ts: z.int(), seq: z.int() }),
  dedupe: { key: ({ seq }) => String(seq) },
});
export default defineGateway({ listeners: [tcp()], streams: [climate], sinks: [sqlite()] });
`;

/** The client's session as it comes back. */
async function resume({ mqttPort }: GatewayProcess): Promise<RawClient> {
  const client = await openRawClient(mqttPort);
  await client.connect({ clientId: "d1", clean: false });
  return client;
}

const sessionPresent = (client: RawClient): unknown =>
  client.packets.find((packet) => packet.cmd === "connack")?.sessionPresent;

const send = (seq: number, dup = false) => publish({ qos: 2, messageId: 1, payload: climate(seq), dup });

async function seqs(gateway: GatewayProcess, count: number): Promise<readonly number[]> {
  const rows = await readRows(gateway, count);
  return rows.map(({ data }) => (JSON.parse(data) as { seq: number }).seq);
}

describe("a QoS 2 message", () => {
  test("is stored once, and the next one with its packet identifier too, over three kills", async ({ start }) => {
    let gateway = await start();
    let client = await resume(gateway);
    expect(sessionPresent(client)).toBe(false);
    client.send(send(1));
    await client.next("pubrec");
    await gateway.end("SIGKILL"); // between PUBREC and PUBREL

    gateway = await start();
    client = await resume(gateway);
    expect(sessionPresent(client)).toBe(true);
    client.send(send(1, true));
    await client.next("pubrec");
    client.send({ cmd: "pubrel", messageId: 1 });
    await client.next("pubcomp");
    await gateway.end("SIGKILL"); // the identifier is free; a new message with it was sent, but never came

    gateway = await start();
    client = await resume(gateway);
    client.send(send(2, true));
    await client.next("pubrec");
    await gateway.end("SIGKILL"); // and now the new message is between PUBREC and PUBREL

    gateway = await start();
    client = await resume(gateway);
    client.send(send(2, true), { cmd: "pubrel", messageId: 1 });
    await client.next("pubcomp");
    client.send(send(3));
    await client.next("pubrec");
    expect(await seqs(gateway, 3)).toEqual([1, 2, 3]);
    client.socket.destroy();
  });

  test("is stored once over an orderly stop: the next start has it from the checkpoint", async ({ start }) => {
    let gateway = await start();
    let client = await resume(gateway);
    client.send(send(1));
    await client.next("pubrec");
    expect(await gateway.end("SIGTERM")).toBe(0);

    gateway = await start();
    expect(gateway.log.find(({ msg }) => msg?.startsWith("unfinished messages") === true)).toMatchObject({
      records: 0,
    });
    client = await resume(gateway);
    client.send(send(1, true), { cmd: "pubrel", messageId: 1 });
    await client.next("pubcomp");
    client.send(send(2));
    await client.next("pubrec");
    expect(await seqs(gateway, 2)).toEqual([1, 2]);
    client.socket.destroy();
  });
});

describe("a stream with dedupe", () => {
  test("stores a key once over a kill and over a lost checkpoint, acknowledges and counts what comes again", async ({
    start,
    connect,
  }) => {
    let gateway = await start({ config: withDedupe });
    const sendAll = async (seqsToSend: readonly number[]): Promise<void> => {
      const client = await connect(gateway, { clientId: "d1" });
      for (const seq of seqsToSend) await client.publishAsync("devices/d1/telemetry", climate(seq), { qos: 1 });
    };
    await sendAll([1, 2, 3]);
    await gateway.end("SIGKILL");
    gateway = await start({ config: withDedupe });
    await sendAll([1, 2, 3, 4]);
    expect((await gateway.fetch("/metrics")).text).toMatch(/gateway_messages_refused_total\{reason="duplicate"\} 3$/m);
    expect(gateway.log.filter(({ msg }) => msg === "message refused")).toMatchObject([
      { level: 20 },
      { level: 20 },
      { level: 20 },
    ]);
    await gateway.end("SIGTERM");
    await writeFile(join(gateway.dataDir, "journal", "checkpoint"), "garbage");
    gateway = await start({ config: withDedupe });
    expect(gateway.log.filter(({ level }) => level === 40)).toMatchObject([
      { unknown: [expect.stringMatching(/checkpoint is not a checkpoint$/)] },
    ]);
    await sendAll([4, 2, 5]);
    expect(await seqs(gateway, 5)).toEqual([1, 2, 3, 4, 5]);
  });
});

interface Status {
  readonly consumers: readonly [{ readonly durable: number }];
}

const readStatus = async (gateway: GatewayProcess): Promise<Status> =>
  JSON.parse((await gateway.fetch("/")).text) as Status;

describe("a gateway that cannot write a checkpoint", () => {
  const small = `
import { defineGateway, defineStream, json, sqlite, tcp, z } from "sluice";
const climate = defineStream({
  name: "climate",
  topic: "devices/{device}/telemetry",
  codec: json,
  schema: z.looseObject({ seq: z.int() }),
});
export default defineGateway({
  listeners: [tcp()],
  streams: [climate],
  sinks: [sqlite()],
  journal: { maxBytes: ${4 * 2 ** 20}, segmentBytes: ${2 ** 20} },
});
`;

  test("keeps the records that a start needs, and gives way before a full journal stops the devices", async ({
    dir,
    start,
    connect,
  }) => {
    const journal = join(dir, "data", "journal");
    await mkdir(join(journal, "checkpoint.tmp"), { recursive: true });
    const gateway = await start({ config: small });
    const client = await connect(gateway, { clientId: "d1" });
    let seq = 0;
    const sendMiB = async (mib: number): Promise<void> => {
      for (const end = seq + mib * 16; seq < end; seq += 1) {
        const payload = JSON.stringify({ seq, filler: "x".repeat(2 ** 16) });
        await client.publishAsync("devices/d1/telemetry", payload, { qos: 1 });
      }
      await readRows(gateway, seq);
    };
    /** The sink's cursor is on disk, so that the journal could be trimmed, and its thread has had a commit since. */
    const trimmed = async (): Promise<void> => {
      while ((await readStatus(gateway)).consumers[0].durable < seq) await delay(20);
      await sendMiB(1 / 16);
    };
    const first = (await readdir(journal)).find((name) => name.endsWith(".seg")) ?? "";
    await sendMiB(2);
    await gateway.waitForLog(({ msg }) => msg?.startsWith("no checkpoint could be written") === true);
    await trimmed();
    expect(await readdir(journal)).toContain(first);
    await sendMiB(8);
    while ((await readdir(journal)).includes(first)) await delay(20);
  });
});
