// What a record costs on the main thread, how long a commit takes at a paced rate, and how fast a reader reads back.
//   node bench/journal.ts [folder on the disk to measure, default: the system's temporary folder]

import { mkdtemp, rm } from "node:fs/promises";
import { cpus, release, tmpdir } from "node:os";
import { join } from "node:path";
import { createHistogram, type RecordableHistogram } from "node:perf_hooks";
import { argv, stdout, version } from "node:process";
import { setImmediate as turn, setTimeout as sleep } from "node:timers/promises";
import { openJournal, type Journal } from "../src/journal/journal.ts";
import { openReader } from "../src/journal/reader.ts";
import { toOffset, type Message } from "../src/reading.ts";

const payloadBytes = 150;
const streams = ["climate"];
const say = (line: string): void => void stdout.write(`${line}\n`);

/** As from the wire: fresh strings and a payload that is a view of a larger buffer. */
function createMessages(): readonly Message[] {
  const socket = Buffer.alloc(1024 * payloadBytes, "{");
  return Array.from({ length: 1024 }, (_, index) => {
    const deviceId = `sensor-${String(index).padStart(6, "0")}`;
    return {
      topic: `devices/${deviceId}/telemetry`,
      payload: socket.subarray(index * payloadBytes, (index + 1) * payloadBytes),
      clientId: deviceId,
      deviceId,
      receivedAt: Date.now(),
      qos: 1 as const,
      packetId: 0,
    };
  });
}

function append(journal: Journal, messages: readonly Message[], count: number): void {
  for (let index = 0; index < count; index += 1) {
    const message = messages[index % messages.length];
    if (message !== undefined) journal.append(message, "climate");
  }
}

async function measureAppend(journal: Journal, messages: readonly Message[]): Promise<void> {
  for (let round = 0; round < 4; round += 1) {
    const rounds = 60;
    const perRound = 20_000;
    let busyMs = 0;
    const startedMs = performance.now();
    for (let part = 0; part < rounds; part += 1) {
      const partMs = performance.now();
      append(journal, messages, perRound);
      busyMs += performance.now() - partMs;
      while (journal.congested) await turn();
    }
    await journal.flush();
    const nanoseconds = (busyMs / (rounds * perRound)) * 1e6;
    const perSecond = (rounds * perRound) / (performance.now() - startedMs) / 1000;
    say(
      `append     ${nanoseconds.toFixed(0)} ns/record on the main thread, ${perSecond.toFixed(2)} M records/s durable`,
    );
  }
}

function toText(histogram: RecordableHistogram): string {
  const ms = (percentile: number): string => (histogram.percentile(percentile) / 1000).toFixed(2);
  return `p50 ${ms(50)} ms, p99 ${ms(99)} ms, max ${ms(100)} ms`;
}

/** Latency of a record: from its append to the moment the main thread knows that it is durable. */
async function measureCommits(journal: Journal, messages: readonly Message[], perSecond: number): Promise<void> {
  const latency = createHistogram();
  const disk = createHistogram();
  const waiting: { readonly offset: number; readonly atMs: number }[] = [];
  using _ = journal.onDurable((to) => {
    const nowMs = performance.now();
    disk.record(Math.max(1, Math.round(journal.stats().lastCommitMs * 1000)));
    for (let [first] = waiting; first !== undefined && first.offset < to; [first] = waiting) {
      latency.record(Math.max(1, Math.round((nowMs - first.atMs) * 1000)));
      waiting.shift();
    }
  });
  const commits = journal.stats().commits;
  const startedMs = performance.now();
  let sent = 0;
  for (let nowMs = startedMs; nowMs - startedMs < 5000; nowMs = performance.now()) {
    const due = Math.floor(((nowMs - startedMs) / 1000) * perSecond) - sent;
    if (due > 0) {
      append(journal, messages, due);
      sent += due;
      waiting.push({ offset: journal.next - 1, atMs: nowMs });
    }
    await sleep(1);
  }
  await journal.flush();
  const made = journal.stats().commits - commits;
  say(`commit     ${perSecond} records/s: ${toText(latency)}; of it write and sync ${toText(disk)}; ${made} commits`);
}

function measureReading(journal: Journal): void {
  for (let round = 0; round < 3; round += 1) {
    using reader = openReader(journal.share, toOffset(0));
    const startedMs = performance.now();
    let records = 0;
    let payload = 0;
    for (let part = reader.read(limit); part.length > 0; part = reader.read(limit)) {
      records += part.length;
      for (const { message } of part) payload += message.payload.length;
    }
    const seconds = (performance.now() - startedMs) / 1000;
    say(
      `read       ${(records / seconds / 1e6).toFixed(2)} M records/s, ${(payload / seconds / 1e6).toFixed(0)} MB/s of payload`,
    );
  }
}

function measureSeek(journal: Journal): void {
  using reader = openReader(journal.share, toOffset(0));
  const startedMs = performance.now();
  const seeks = 20;
  for (let index = 0; index < seeks; index += 1) {
    reader.seek(toOffset(Math.floor((journal.durable * index) / seeks)));
    reader.read({ records: 1, bytes: 1 });
  }
  say(`seek       ${((performance.now() - startedMs) / seeks).toFixed(1)} ms`);
}

const limit = { records: 1000, bytes: 1024 * 1024 };
const dir = await mkdtemp(join(argv[2] ?? tmpdir(), "sluice-bench-"));
try {
  say(`${cpus().length} × ${cpus()[0]?.model ?? "?"}, Linux ${release()}, Node ${version}, payload ${payloadBytes} B`);
  const messages = createMessages();
  {
    await using journal = await openJournal({ dir, streams, maxBytes: 8 * 2 ** 30 });
    await measureAppend(journal, messages);
    const { bytes } = journal.stats();
    say(
      `on disk    ${(bytes / journal.durable).toFixed(1)} B/record: ${messages[0]?.topic} from ${messages[0]?.clientId}`,
    );
    measureReading(journal);
    measureSeek(journal);
    for (const perSecond of [100, 10_000, 50_000, 100_000]) await measureCommits(journal, messages, perSecond);
  }
  const startedMs = performance.now();
  await using journal = await openJournal({ dir, streams, maxBytes: 8 * 2 ** 30 });
  const scanMs = journal.recovered.elapsedMs;
  say(`open       ${(performance.now() - startedMs).toFixed(0)} ms, of it recovery ${scanMs.toFixed(0)} ms`);
} finally {
  await rm(dir, { recursive: true });
}
