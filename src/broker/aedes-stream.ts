// The stream that Aedes takes for a client's socket. What Aedes may read is pushed into it packet by packet, after the
// frame check; what Aedes writes is given to the connection as whole chunks. Its write side is the bounded queue of a
// subscriber: `writableNeedDrain` is true from `queueBytes` on.

import { Duplex } from "node:stream";

export interface AedesStreamOptions {
  readonly queueBytes: number;
  /** Aedes has room for more packets. */
  readonly onRoom: () => void;
  /** Bytes for the client; `written` is called when the next may come. */
  readonly onBytes: (bytes: Buffer, written: () => void) => void;
  /** Aedes, or the connection, has ended the client. */
  readonly onDestroyed: (error: Error | null) => void;
}

export class AedesStream extends Duplex {
  readonly #options: AedesStreamOptions;

  constructor(options: AedesStreamOptions) {
    super({ writableHighWaterMark: options.queueBytes, readableHighWaterMark: 65_536, allowHalfOpen: false });
    this.#options = options;
  }

  override _read(): void {
    this.#options.onRoom();
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#options.onBytes(chunk, done);
  }

  override _writev(chunks: { chunk: Buffer }[], done: () => void): void {
    this.#options.onBytes(
      chunks.length === 1 && chunks[0] ? chunks[0].chunk : Buffer.concat(chunks.map(({ chunk }) => chunk)),
      done,
    );
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#options.onDestroyed(error);
    done(null);
  }
}
