// The QoS 2 messages that are in the journal and whose release is not, of the sessions that outlive their connection. A
// fold over the journal's records: a message with a packet identifier adds it, a release takes it away. The intake applies
// each record as it appends it, and a start applies those that it reads, so that both know the same.

import type { Offset } from "../reading.ts";

/** By client id, then by packet identifier: the offset of the message's record. No entry is empty. */
export type Sessions = ReadonlyMap<string, ReadonlyMap<number, Offset>>;

export class Unfinished {
  readonly #sessions = new Map<string, Map<number, Offset>>();

  get sessions(): Sessions {
    return this.#sessions;
  }

  add(clientId: string, packetId: number, offset: Offset): void {
    const known = this.#sessions.get(clientId);
    if (known === undefined) this.#sessions.set(clientId, new Map([[packetId, offset]]));
    else known.set(packetId, offset);
  }

  /** 0: all of the client. */
  release(clientId: string, packetId: number): void {
    const known = this.#sessions.get(clientId);
    known?.delete(packetId);
    if (packetId === 0 || known?.size === 0) this.#sessions.delete(clientId);
  }

  /** Something between is not known: it may have been the release of any of them. */
  clear(): void {
    this.#sessions.clear();
  }
}
