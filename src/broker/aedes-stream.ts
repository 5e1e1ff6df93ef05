// The stream that Aedes takes for a client's socket. What Aedes may read is pushed into it packet by packet, after the
// frame check; what Aedes writes is shown to the connection packet by packet, and what it lets pass goes on in as few
// writes as possible. Its write side is the bounded queue of a subscriber: `writableNeedDrain` from `queueBytes` on.

import { Duplex } from "node:stream";
import { FrameSplitter } from "./frames.ts";

/** The connection. */
export interface AedesStreamOwner {
  /** Aedes has room for more packets. */
  aedesHasRoom(): void;
  /** A packet for the client; false: it is not to go out now, the connection has taken it. */
  passes(buffer: Buffer, start: number, bodyStart: number, end: number): boolean;
  /** Whole packets for the socket. */
  writeCounted(bytes: Buffer): void;
  /** All of one write has been shown; `written` is called when the socket takes more. */
  aedesWrote(written: () => void): void;
  /** Aedes, or the connection, has ended the client. */
  aedesEnded(error: Error | null): void;
}

const LARGEST_PACKET = 268_435_460;

export class AedesStream extends Duplex {
  readonly #owner: AedesStreamOwner;
  readonly #splitter = new FrameSplitter(LARGEST_PACKET);

  constructor(queueBytes: number, owner: AedesStreamOwner) {
    super({ writableHighWaterMark: queueBytes, readableHighWaterMark: 65_536, allowHalfOpen: false });
    this.#owner = owner;
  }

  override _read(): void {
    this.#owner.aedesHasRoom();
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#show(chunk);
    this.#owner.aedesWrote(done);
  }

  override _writev(chunks: { chunk: Buffer }[], done: () => void): void {
    this.#show(Buffer.concat(chunks.map(({ chunk }) => chunk)));
    this.#owner.aedesWrote(done);
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#owner.aedesEnded(error);
    done(null);
  }

  /** Packets that lie side by side and pass go on together. */
  #show(chunk: Buffer): void {
    const owner = this.#owner;
    const splitter = this.#splitter;
    splitter.push(chunk);
    let run: Buffer | undefined;
    let from = 0;
    let to = 0;
    while (splitter.next()) {
      const { buffer, start, bodyStart, end } = splitter;
      const passes = owner.passes(buffer, start, bodyStart, end);
      if (run !== undefined && (!passes || run !== buffer)) {
        owner.writeCounted(run.subarray(from, to));
        run = undefined;
      }
      if (!passes) continue;
      if (run === undefined) from = start;
      run = buffer;
      to = end;
    }
    if (run !== undefined) owner.writeCounted(run.subarray(from, to));
  }
}
