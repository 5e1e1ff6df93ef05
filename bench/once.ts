// What it costs to take a message once: the intake's time per message on the main thread with and without `dedupe`, how long
// a checkpoint takes and what it holds up meanwhile, and how long a start takes to know everything again.
//   node bench/once.ts [folder on the disk to measure, default: the system's temporary folder]

import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { argv, stdout, threadCpuUsage } from "node:process";
import { setImmediate as turn } from "node:timers/promises";
import { z } from "zod";
import { json } from "../src/decode/json.ts";
import { createEvents } from "../src/events.ts";
import { writeCheckpoint } from "../src/intake/checkpoint.ts";
import { createIntake, type Intake } from "../src/intake/intake.ts";
import { restoreMemory, type Restored } from "../src/intake/restore.ts";
import { openJournal, type Journal } from "../src/journal/journal.ts";
import { openReader } from "../src/journal/reader.ts";
import type { Message } from "../src/reading.ts";
import { createRegistry, type Registry } from "../src/validate/registry.ts";
import { defineStream } from "../src/validate/stream.ts";
import { describeMachine, toText } from "./machine.ts";

const perRound = 20_000;
const rounds = 20;
const devices = 1_000;
const window = 200_000;
/** Of this thread: what else the machine does is not in it. */
const cpuMs = (): number => {
  const { user, system } = threadCpuUsage();
  return (user + system) / 1000;
};
const say = (line: string): void => void stdout.write(`${line}\n`);
const schema = z.looseObject({ ts: z.int(), seq: z.int(), metrics: z.record(z.string(), z.number()) });
const plain = { topic: "devices/{device}/telemetry", codec: json, schema };
const registry = createRegistry([
  defineStream({ ...plain, name: "plain" }),
  defineStream({ ...plain, topic: "once/{device}", name: "dedupe", dedupe: { key: ({ seq }) => String(seq), window } }),
]);

/** As from the wire, 150 B; each with a key of its own. */
function createMessages(from: number): readonly Message[] {
  return Array.from({ length: perRound }, (_, index) => {
    const seq = from + index;
    const deviceId = `sensor-${String(seq % devices).padStart(6, "0")}`;
    const data = { ts: 1_700_000_000_000 + seq, seq, metrics: { temperature: 21.5, humidity: 40.25, battery: 3.71 } };
    const text = JSON.stringify(data);
    return {
      topic: `devices/${deviceId}/telemetry`,
      payload: Buffer.from(text.padEnd(150)),
      clientId: deviceId,
      deviceId,
      receivedAt: 1_700_000_000_000,
      qos: 1,
      packetId: 0,
    };
  });
}

function restore(journal: Journal, path: string, given: Registry = registry): Restored {
  return restoreMemory({
    path,
    journal,
    openReader: (from, onLost) => openReader(journal.share, from, onLost),
    registry: given,
    limits: { sessions: 10_000, maximumInflightQos2: 1_000 },
  });
}

async function settle(journal: Journal): Promise<void> {
  while (journal.congested) await turn();
}

async function measureTake(journal: Journal, { take }: Intake): Promise<void> {
  const busyMs = { plain: 0, dedupe: 0 };
  for (let round = 0; round < rounds; round += 1) {
    const messages = createMessages(round * perRound);
    for (const stream of ["plain", "dedupe"] as const) {
      const startedMs = cpuMs();
      for (const message of messages) take(message, { stream, deviceId: message.deviceId });
      if (round > 0) busyMs[stream] += cpuMs() - startedMs;
      await settle(journal);
    }
  }
  await journal.flush();
  const [without, withKey] = [busyMs.plain, busyMs.dedupe].map((ms) => (ms / ((rounds - 1) * perRound)) * 1e6);
  say(`take       ${without?.toFixed(0)} ns/message without dedupe, ${withKey?.toFixed(0)} ns with: decode to append`);
}

async function measureCheckpoint(journal: Journal, { memory }: Restored, path: string): Promise<void> {
  for (let round = 0; round < 3; round += 1) {
    const written = new AbortController();
    let longestMs = 0;
    const startedMs = performance.now();
    const head = { journalId: journal.id, position: journal.next };
    const writing = writeCheckpoint(path, head, memory, () => journal.flush()).finally(() => written.abort());
    for (let atMs = startedMs; !written.signal.aborted; atMs = performance.now()) {
      await turn();
      longestMs = Math.max(longestMs, performance.now() - atMs);
    }
    await writing;
    const tookMs = performance.now() - startedMs;
    const { size } = await stat(path);
    say(
      `checkpoint ${tookMs.toFixed(0)} ms for ${(size / 1e6).toFixed(1)} MB; longest turn of the event loop ${longestMs.toFixed(1)} ms`,
    );
  }
}

function measureRestore(journal: Journal, path: string, name: string, given = registry): void {
  const startedMs = cpuMs();
  const { records, elapsedMs } = restore(journal, path, given);
  const busyMs = cpuMs() - startedMs;
  say(`restore    ${elapsedMs.toFixed(0)} ms, of it CPU ${busyMs.toFixed(0)} ms, ${name}: ${records} records read`);
}

const dir = await mkdtemp(join(argv[2] ?? tmpdir(), "sluice-bench-"));
try {
  say(toText(await describeMachine(dir, ["zod"])));
  await using journal = await openJournal({ dir, streams: registry.names, maxBytes: 8 * 2 ** 30 });
  const path = join(dir, "checkpoint");
  const restored = restore(journal, path);
  const intake = createIntake({ registry, journal, memory: restored.memory, events: createEvents() });
  await measureTake(journal, intake);
  await measureCheckpoint(journal, restored, path);
  for (let round = 0; round < 10; round += 1) {
    for (const message of createMessages((rounds + round) * perRound))
      intake.take(message, { stream: "dedupe", deviceId: message.deviceId });
    await settle(journal);
  }
  await journal.flush();
  measureRestore(journal, path, "with a checkpoint");
  while (journal.stats().bytes < 300 * 2 ** 20) {
    for (const message of createMessages(journal.next))
      intake.take(message, { stream: "dedupe", deviceId: message.deviceId });
    await settle(journal);
  }
  await journal.flush();
  say(`journal    ${(journal.stats().bytes / 2 ** 20).toFixed(0)} MiB, ${journal.next} records`);
  const missing = join(dir, "missing");
  measureRestore(journal, missing, "without one, with dedupe");
  const without = createRegistry([defineStream({ ...plain, name: "plain" })]);
  measureRestore(journal, missing, "without one and without dedupe", without);
} finally {
  await rm(dir, { recursive: true });
}
