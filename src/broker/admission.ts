// One connection for each client id: the last one that was authenticated, which ends the one before.
//
// Left to Aedes, the new one waits until an old one of MQTT 5 has taken its DISCONNECT: one that does not read holds up the
// take-over for as long as its socket lives.

/** A connection, as far as another with its client id is concerned. */
export interface Holder {
  /** Ends it at once, with 0x8E to a client of MQTT 5 [MQTT-3.1.4-3]; its session is given back. */
  readonly giveWay: () => void;
}

export class Admission {
  readonly #holders = new Map<string, Holder>();

  enter(clientId: string, holder: Holder): void {
    const before = this.#holders.get(clientId);
    this.#holders.set(clientId, holder);
    if (before !== holder) before?.giveWay();
  }

  leave(clientId: string, holder: Holder): void {
    if (this.#holders.get(clientId) === holder) this.#holders.delete(clientId);
  }
}
