// The stream that Aedes takes for a client's socket. What Aedes may read is pushed into it packet by packet, after the
// frame check; what Aedes writes is shown to the connection packet by packet, and what it lets pass goes on in as few
// writes as possible. Its write side is the bounded queue of a subscriber: `writableNeedDrain` from `queueBytes` on.

import { Duplex } from "node:stream";
import { FrameSplitter } from "./frames.ts";

export interface AedesStreamOptions {
  readonly queueBytes: number;
  /** Aedes has room for more packets. */
  readonly onRoom: () => void;
  /** A packet for the client; false: it is not to go out now, the connection has taken it. */
  readonly onPacket: (buffer: Buffer, start: number, bodyStart: number, end: number) => boolean;
  /** Whole packets for the socket. */
  readonly onBytes: (bytes: Buffer) => void;
  /** All of one write has been shown; `written` is called when the socket takes more. */
  readonly onWritten: (written: () => void) => void;
  /** Aedes, or the connection, has ended the client. */
  readonly onDestroyed: (error: Error | null) => void;
}

const LARGEST_PACKET = 268_435_460;

export class AedesStream extends Duplex {
  readonly #options: AedesStreamOptions;
  readonly #splitter = new FrameSplitter(LARGEST_PACKET);

  constructor(options: AedesStreamOptions) {
    super({ writableHighWaterMark: options.queueBytes, readableHighWaterMark: 65_536, allowHalfOpen: false });
    this.#options = options;
  }

  override _read(): void {
    this.#options.onRoom();
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#show(chunk);
    this.#options.onWritten(done);
  }

  override _writev(chunks: { chunk: Buffer }[], done: () => void): void {
    this.#show(Buffer.concat(chunks.map(({ chunk }) => chunk)));
    this.#options.onWritten(done);
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#options.onDestroyed(error);
    done(null);
  }

  /** Packets that lie side by side and pass go on together. */
  #show(chunk: Buffer): void {
    const { onPacket, onBytes } = this.#options;
    const splitter = this.#splitter;
    splitter.push(chunk);
    let run: Buffer | undefined;
    let from = 0;
    let to = 0;
    while (splitter.next()) {
      const { buffer, start, bodyStart, end } = splitter;
      const passes = onPacket(buffer, start, bodyStart, end);
      if (run !== undefined && (!passes || run !== buffer)) {
        onBytes(run.subarray(from, to));
        run = undefined;
      }
      if (!passes) continue;
      if (run === undefined) from = start;
      run = buffer;
      to = end;
    }
    if (run !== undefined) onBytes(run.subarray(from, to));
  }
}
