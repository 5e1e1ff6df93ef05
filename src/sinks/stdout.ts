// Readings to the gateway's standard output: the documents of document.ts, one a line. The log goes to standard error then.

import { writeSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { z } from "zod";
import { toError } from "../errors.ts";
import { toDocuments } from "./document.ts";
import { defineSink, SinkError } from "./sink.ts";
import type { Sink } from "./sink.ts";

/** Readings to the gateway's standard output. */
export const stdout = defineSink({
  type: "stdout",
  settings: z.strictObject({}),
  batch: { records: 1_000, bytes: 256 * 1024 },
  reference: {
    writes:
      "As lines of JSON (NDJSON) to the standard output of the gateway, for a program behind a pipe: `sluice start gateway.ts | jq .data`. The gateway's log goes to standard error then.",
    once: "At least once. A batch counts as delivered when the pipe has taken all of it; after a restart the last batch may come again, and `gateway` and `offset` tell a repetition. What the reader had not read when it ended is gone with the pipe.",
    notes: [
      "A line is `{gateway, offset, stream, device, topic, time, receivedAt, data}`; times are in milliseconds since 1970.",
      "A reader that is slow or stands still slows this sink and nothing else. When it is gone, the sink says so in the log, and only a restart of the gateway brings another reader: until then the readings wait in the journal.",
      "Lines of up to 4,096 bytes are written to a pipe whole or not at all; a longer one may be cut short when a write is given up in the middle of it (`timeoutMs`). It comes again on a line of its own.",
      "Give it once, and only where a program reads: into a file, the sink `files` writes durably, which this one does not.",
    ],
    example: "stdout()",
  },
  open: () => Promise.resolve(createOutputSink(standardOutput)),
});

/** PIPE_BUF of Linux: so much is written to a pipe whole or not at all. */
const WHOLE_BYTES = 4_096;
const LINE_FEED = 0x0a;
const PAUSE_MS = { first: 1, longest: 50 };

/** Where lines go; it outlives the sinks that write to it. */
export interface Output {
  readonly fd: number;
  /** What was written last did not end its line: a write was given up. */
  inLine: boolean;
}

/** There is one for the process, and no sink owns it. */
const standardOutput: Output = { fd: 1, inLine: false };

export function createOutputSink(output: Output): Sink {
  return {
    async write(batch, signal) {
      signal.throwIfAborted();
      const made = toDocuments(batch);
      if (made.kind === "except") return made;
      if (output.inLine) await writePiece(output, Buffer.from("\n"), signal);
      for (const piece of toPieces(made.documents)) await writePiece(output, piece, signal);
      return { kind: "all" };
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

/** Whole lines, as many as the pipe takes together; or one that is longer. */
function* toPieces(documents: readonly string[]): Generator<Buffer> {
  let lines: Buffer[] = [];
  let bytes = 0;
  for (const document of documents) {
    const line = Buffer.from(`${document}\n`);
    if (bytes > 0 && bytes + line.length > WHOLE_BYTES) {
      yield Buffer.concat(lines);
      lines = [];
      bytes = 0;
    }
    lines.push(line);
    bytes += line.length;
  }
  if (bytes > 0) yield Buffer.concat(lines);
}

/**
 * Waits with a timer while the pipe is full: this thread is not told when it has room. It is never in a write that blocks,
 * because Node has made a pipe non-blocking for the main thread.
 */
async function writePiece(output: Output, piece: Buffer, signal: AbortSignal): Promise<void> {
  let pauseMs = PAUSE_MS.first;
  for (let at = 0; at < piece.length;) {
    const written = tryWrite(output.fd, piece.subarray(at));
    if (written > 0) {
      at += written;
      output.inLine = piece[at - 1] !== LINE_FEED;
      pauseMs = PAUSE_MS.first;
      continue;
    }
    await setTimeout(pauseMs, undefined, { signal }).catch(() => signal.throwIfAborted());
    pauseMs = Math.min(2 * pauseMs, PAUSE_MS.longest);
  }
}

/** How many bytes were written: 0 when the reader must read first. */
function tryWrite(fd: number, bytes: Uint8Array): number {
  try {
    return writeSync(fd, bytes);
  } catch (cause) {
    const { code, message } = toError(cause) as NodeJS.ErrnoException;
    if (code === "EAGAIN") return 0;
    if (code !== "EPIPE") throw new Error(`standard output: ${message}.`, { cause });
    const text = "standard output: its reader has ended. Start the gateway again with a program that reads.";
    throw new SinkError("misconfigured", text, { cause });
  }
}
