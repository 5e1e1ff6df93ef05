import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { toOffset } from "../../src/reading.ts";
import type { SinkContext } from "../../src/sinks/sink.ts";
import { createOutputSink, stdout } from "../../src/sinks/stdout.ts";
import { describeSink, makeBatch, makeEntry, openContext } from "../contract/sink.ts";
import type { WrittenRow } from "../contract/sink.ts";
import { openPipe, type Pipe } from "../pipe.ts";

const never = new AbortController().signal;
const range = (from: number, to: number): readonly number[] => Array.from({ length: to - from }, (_, i) => from + i);
const fileOf = ({ dataDir }: SinkContext): string => join(dataDir, "output");

function openFile(context: SinkContext): number {
  const fd = openSync(fileOf(context), "a");
  onTestFinished(() => closeSync(fd));
  return fd;
}

describeSink("stdout", {
  once: "at least",
  open: (context) => Promise.resolve(createOutputSink({ fd: openFile(context), inLine: false })),
  rows: (context) => {
    const lines = readFileSync(fileOf(context), "utf8").split("\n").slice(0, -1);
    const found = lines.map((line) => JSON.parse(line) as WrittenRow);
    const sorted = found.toSorted((a, b) => a.gateway.localeCompare(b.gateway));
    return Promise.resolve(
      sorted.map(({ gateway, offset, device, time, data }) => ({ gateway, offset, device, time, data })),
    );
  },
});

describe("the stdout sink", () => {
  let context: SinkContext;
  let pipe: Pipe;
  beforeEach(async () => {
    context = await openContext();
    pipe = openPipe(join(context.dataDir, "pipe"));
  });

  /** Whole lines until there are so many. */
  async function readLines(count: number): Promise<readonly string[]> {
    let text = "";
    while (text.split("\n").length <= count) text += await pipe.read();
    return text.split("\n").slice(0, -1);
  }

  test("writes one document a line, whatever is in it", async () => {
    const sink = createOutputSink({ fd: pipe.fd, inLine: false });
    const entry = makeEntry(7, { text: "a\nb\r\0\u2028\u{1f600}", lone: "\ud800", nan: Number.NaN });
    const reading = { ...entry.reading, deviceId: '"\n', topic: "a\nb" };
    await sink.write({ gateway: "g", entries: [{ ...entry, reading }], next: toOffset(8) }, never);
    expect((await readLines(1)).map((line) => JSON.parse(line) as unknown)).toEqual([
      {
        gateway: "g",
        offset: 7,
        stream: "climate",
        device: '"\n',
        topic: "a\nb",
        time: 1_007,
        receivedAt: 2_007,
        data: { text: "a\nb\r\0\u2028\u{1f600}", lone: "\ud800", nan: null },
      },
    ]);
  });

  test("waits for a reader that is slower, and writes everything in order", async () => {
    const sink = createOutputSink({ fd: pipe.fd, inLine: false });
    const texts = range(0, 400).map((offset) => makeEntry(offset, "x".repeat((offset % 20) * 500)));
    const written = sink.write({ gateway: "g", entries: texts, next: toOffset(400) }, never);
    const lines = (await readLines(400)).map((line) => JSON.parse(line) as WrittenRow);
    expect(lines.map(({ offset }) => offset)).toEqual(range(0, 400));
    expect(await written).toEqual({ kind: "all" });
  });

  test("obeys its signal while nobody reads, and leaves whole lines in the pipe", async () => {
    const sink = createOutputSink({ fd: pipe.fd, inLine: false });
    const abort = new AbortController();
    const written = sink.write(makeBatch(range(0, 1_000)), abort.signal);
    const before = await pipe.read();
    abort.abort(new Error("enough"));
    await expect(written).rejects.toThrow("enough");
    const next = sink.write(makeBatch([5_000]), never);
    let text = before;
    while (!text.endsWith("\n") || !text.includes('"offset":5000,')) text += await pipe.read();
    await next;
    const offsets = text
      .split("\n")
      .slice(0, -1)
      .map((line) => (JSON.parse(line) as WrittenRow).offset);
    expect(offsets).toEqual([...range(0, offsets.length - 1), 5_000]);
  });

  test("begins a new line behind one that was cut short, also when it is opened again", async () => {
    const output = { fd: pipe.fd, inLine: false };
    const abort = new AbortController();
    const entries = [makeEntry(0, "x".repeat(300_000))];
    const written = createOutputSink(output).write({ gateway: "g", entries, next: toOffset(1) }, abort.signal);
    abort.abort(new Error("enough"));
    await expect(written).rejects.toThrow("enough");
    const again = createOutputSink(output).write({ gateway: "g", entries, next: toOffset(1) }, never);
    const [cut, whole] = await readLines(2);
    await again;
    expect(cut).toHaveLength(64 * 1024);
    expect((JSON.parse(whole ?? "") as WrittenRow).offset).toBe(0);
  });

  test("calls it misconfigured that its reader has ended", async () => {
    pipe.leave();
    const sink = createOutputSink({ fd: pipe.fd, inLine: false });
    await expect(sink.write(makeBatch([0]), never)).rejects.toMatchObject({
      kind: "misconfigured",
      message: /reader has ended.*Start the gateway again/,
    });
  });

  test("parks data that is not JSON, and writes nothing of its batch", async () => {
    const sink = createOutputSink({ fd: openFile(context), inLine: false });
    const entries = [makeEntry(0), makeEntry(1, { big: 1n })];
    expect(await sink.write({ gateway: "g", entries, next: toOffset(2) }, never)).toMatchObject({
      kind: "except",
      refused: [{ offset: 1 }],
    });
    expect(readFileSync(fileOf(context), "utf8")).toBe("");
  });

  test("takes the settings that every sink takes, and no others", () => {
    expect(stdout({ name: "lines", only: ["climate"] }).given).toEqual({ name: "lines", only: ["climate"] });
    expect(stdout().sink.settings.safeParse({ path: "x" }).success).toBe(false);
  });
});
