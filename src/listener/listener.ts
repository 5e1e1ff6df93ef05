// The contract between what opens ports (tcp.ts) and the broker that owns what connects to them.

import type { Duplex } from "node:stream";

/** What a listener knows of the other side. */
export interface Peer {
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly incoming: Incoming;
}

/**
 * Where the bytes of a connection go as they come; its stream has no "data". The listener may use the memory of a chunk again
 * when the call returns. `pause` and `resume` of the stream hold as always, and "end" follows the last chunk.
 */
export interface Incoming {
  onBytes: (chunk: Buffer) => void;
}

/**
 * Called once per connection with a paused stream. The callee owns it from then on: it sets `incoming.onBytes`, and resumes it.
 */
export type Accept = (stream: Duplex, peer: Peer) => void;

/** For a stream that reads into memory of its own. */
export function forwardData(stream: Duplex): Incoming {
  const incoming: Incoming = { onBytes: () => {} };
  stream.pause();
  stream.on("data", (chunk: Buffer) => incoming.onBytes(chunk));
  return incoming;
}

/** Disposing stops accepting; connections that were accepted go on. */
export interface Listener extends AsyncDisposable {
  /** What it really listens on, with the port that the system chose for 0. */
  readonly host: string;
  readonly port: number;
}
